"""What the gate's rule is fitted on: described films of several sources, and described pictures that are none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.chest.drawn import other_part, other_picture
from training.chest.hard_films import WRONG, patch, taught, turned
from training.chest.readers import pictures
from training.datasets.base import DataSetError, read_grey
from worker.pipelines.chest_xray.likeness import Array, descriptions, negatives, reduced

SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "NIH": (("nih", "*"), ("radiography", "normal-*")),
    "children": (("kermany224", "*"),),
    "papers": (("covid_ieee8023", "*"),),
    "COVID-19": (("radiography", "covid-*"),),
}
"""Source -> folders below ``chest_xray`` and names of its films. A source is one hospital, or one collector's."""

OTHERS = {
    "head CT slices": ("head_ct/ct_ich/images", "head_ct/phe_sich/images"),
    "skin pictures": ("dermoscopy/ham10000_200x150",),
}
"""Kind of picture that is no chest film -> its folders."""

DRAWN = {"drawn parts of the body": other_part, "drawn pages, charts, scenes, slices": other_picture}

OTHERS_MOST = 1600
CHUNK = 256


@dataclass(frozen=True)
class Size:
    """How many examples are made: of a source's films, of each wrong turn and patches of them, of drawn pictures."""

    films: int = 5000
    wrong: int = 600
    patches: int = 700
    drawn: int = 2500


@dataclass(frozen=True)
class Examples:
    """Descriptions of pictures (:func:`worker.pipelines.chest_xray.likeness.descriptions`)."""

    ranks: Array
    edges: Array

    def __len__(self) -> int:
        return len(self.ranks)

    def negatives(self) -> Examples:
        """Those of their negatives."""
        return Examples(*negatives(self.ranks, self.edges))

    def both(self) -> Examples:
        """With those of their negatives."""
        return joined([self, self.negatives()])

    def some(self, rows: slice) -> Examples:
        """A part of them."""
        return Examples(self.ranks[rows], self.edges[rows])


@dataclass(frozen=True)
class FilmSource:
    """One source: its films, and what is made of them that is none."""

    films: Examples
    none: Examples


def joined(parts: Sequence[Examples]) -> Examples:
    """All examples of several."""
    return Examples(np.concatenate([part.ranks for part in parts]), np.concatenate([part.edges for part in parts]))


def described(found: Iterable[np.ndarray]) -> Examples:
    """Examples of pictures (H, W); a chunk of them is held at once."""
    parts, chunk = [], []
    for picture in found:
        chunk.append(reduced(picture))
        if len(chunk) == CHUNK:
            parts.append(Examples(*descriptions(chunk)))
            chunk = []
    if chunk:
        parts.append(Examples(*descriptions(chunk)))
    return joined(parts)


def film_paths(data: Path, source: str) -> list[Path]:
    """The films of a source, sorted; of a folder that is missing, none."""
    return [
        path
        for folder, names in SOURCES[source]
        for path in pictures(data / "chest_xray" / folder)
        if path.match(names)
    ]


def other_paths(data: Path, kind: str) -> list[Path]:
    """At most :data:`OTHERS_MOST` pictures of a kind, evenly spaced in each folder, masks left aside."""
    chosen: list[Path] = []
    for folder in OTHERS[kind]:
        found = [path for path in pictures(data / folder) if "mask" not in path.as_posix().lower()]
        most = OTHERS_MOST // len(OTHERS[kind])
        chosen += found[:: max(1, len(found) // most)][:most]
    return chosen


def sources_of(data: Path, size: Size) -> dict[str, FilmSource]:
    """Examples of every source that the folder holds.

    Raises
    ------
    DataSetError
        If it holds films of fewer than two sources.
    """
    paths = {name: film_paths(data, name) for name in SOURCES}
    held = {name: found for name, found in paths.items() if found}
    if len(held) < 2:
        raise DataSetError(f"films of {len(held)} sources below {data.name}/chest_xray: two are needed at least")
    return {name: source_of(found, size, number) for number, (name, found) in enumerate(held.items())}


def source_of(paths: Sequence[Path], size: Size, seed: int) -> FilmSource:
    """Examples of the films at ``paths``: three in ten as they are, the others changed; and what is none of them."""
    rng = np.random.default_rng([7, seed])
    films = [reduced(read_grey(path)) for path in paths]

    def drawn_film() -> np.ndarray:
        return films[int(rng.integers(len(films)))]

    kept = described(drawn_film() if rng.random() < 0.3 else taught(drawn_film(), rng) for _ in range(size.films))
    wrong = [
        described(
            turned(turn(taught(drawn_film(), rng)), float(rng.uniform(-15, 15)), 1.15)
            if rng.random() < 0.6
            else turn(drawn_film())
            for _ in range(size.wrong)
        )
        for turn in WRONG.values()
    ]
    patches = described(patch(drawn_film(), rng) for _ in range(size.patches))
    inverted = kept.negatives().some(slice(None, None, 2))
    return FilmSource(kept, joined([inverted, joined([*wrong, patches]).both()]))


def others_of(data: Path, size: Size) -> dict[str, Examples]:
    """Examples of each kind of other picture, as they are and changed, and their negatives.

    Of pictures only the first half is used: the other half is what the rule is measured on.
    """
    rng = np.random.default_rng(11)
    found: dict[str, Examples] = {}
    for kind in OTHERS:
        paths = other_paths(data, kind)
        shown = [reduced(read_grey(path)) for path in fitted_half(paths)]
        found[kind] = joined([described(shown), described(changed(picture, rng) for picture in shown)]).both()
    for kind, draw in DRAWN.items():
        found[kind] = described(changed(draw(rng), rng) for _ in range(size.drawn)).both()
    return found


def fitted_half(paths: Sequence[Path]) -> list[Path]:
    """Those of a kind that the rule is fitted on: the first half of each folder's, so that patients are not shared."""
    folders = {path.parent: [other for other in paths if other.parent == path.parent] for path in paths}
    return [path for inside in folders.values() for path in inside[: len(inside) // 2]]


def changed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture that is no chest film, turned any way, cut, crossed."""
    out = np.ascontiguousarray(np.rot90(picture, int(rng.integers(4))))
    return taught(out, rng) if rng.random() < 0.5 else out
