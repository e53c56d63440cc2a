"""What the gate does with films and with what is none, by rules that were fitted without the source or the kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydicom.uid import DigitalXRayImageStorageForPresentation

from firstread.dicom.files import read_dataset
from firstread.phantoms.chest import FilmSpec, film
from training.chest.gate_examples import (
    DRAWN,
    OTHERS,
    Examples,
    described,
    film_paths,
    fitted_half,
    other_paths,
)
from training.chest.hard_films import MEASURED, WRONG
from training.datasets.base import read_grey
from training.evaluation import metrics
from worker.pipelines.chest_xray.film import read_film
from worker.pipelines.chest_xray.likeness import ChestLikeness, Rule

Rows = list[dict[str, Any]]
Judge = Callable[[Iterable[np.ndarray]], Sequence[ChestLikeness]]
CHANGED_MOST = 250
"""Films of a source that are changed, or wrapped in DICOM; unchanged, all are judged."""

DRAWN_MEASURED = 1200
PHOTOGRAPHS = "parts of two photographs"


@dataclass(frozen=True)
class Tally:
    """How the gate judged some pictures."""

    judgements: Sequence[ChestLikeness]

    @property
    def refused(self) -> dict[str, Any]:
        """Share that is refused."""
        return self._share(sum(not judgement.possible for judgement in self.judgements))

    @property
    def doubted(self) -> dict[str, Any]:
        """Share that is scored with the warning ``chest_uncertain``."""
        return self._share(sum(judgement.possible and not judgement.certain for judgement in self.judgements))

    @property
    def passed(self) -> dict[str, Any]:
        """Share that is scored without a question."""
        return self._share(sum(judgement.certain for judgement in self.judgements))

    @property
    def turned_round(self) -> dict[str, Any]:
        """Share that is taken for stored inverted, and scored."""
        return self._share(sum(judgement.possible and judgement.inverted for judgement in self.judgements))

    def _share(self, count: int) -> dict[str, Any]:
        return dict(metrics.wilson(count, len(self.judgements)).as_dict())


def judged(examples: Examples, by: Rule) -> list[ChestLikeness]:
    """What a rule says of examples."""
    negatives = examples.negatives()
    upright, negative = (by.log_odds(part.ranks, part.edges) for part in (examples, negatives))
    return [ChestLikeness(float(a), float(b)) for a, b in zip(upright, negative, strict=True)]


def judged_by(by: Rule) -> Judge:
    """The judge of pictures that a rule makes."""
    return lambda pictures: judged(described(pictures), by)


def film_rows(data: Path, judges: Mapping[str, Judge], most: int = CHANGED_MOST) -> Rows:
    """A row for each change of films: shares refused by source (each by its own judge), doubted, turned round."""
    tallies: dict[str, dict[str, Tally]] = {}
    for number, (source, judge) in enumerate(judges.items()):
        paths = film_paths(data, source)
        for name, pictures in _looks_of(paths, number, most):
            tallies.setdefault(name, {})[source] = Tally(judge(pictures))
    rows: Rows = []
    for name, by_source in tallies.items():
        every = Tally([judgement for tally in by_source.values() for judgement in tally.judgements])
        counts = " / ".join(str(len(tally.judgements)) for tally in by_source.values())
        refused = {f"refused: {source}": tally.refused for source, tally in by_source.items()}
        rows.append(
            {"films": name, "n": counts} | refused | {"doubted": every.doubted, "turned_round": every.turned_round}
        )
    return rows


def _looks_of(paths: Sequence[Path], seed: int, most: int) -> Iterator[tuple[str, Iterable[np.ndarray]]]:
    """Films of a source as they are, changed, inverted, turned, and through DICOM."""
    some = [read_grey(path).astype(np.float32) for path in paths[:: max(1, len(paths) // most)][:most]]
    for number, (name, change) in enumerate(MEASURED.items()):
        rng = np.random.default_rng([seed, number])
        shown = (read_grey(path) for path in paths) if name == "as they are" else (change(film, rng) for film in some)
        yield name, shown
    yield "inverted, the header says nothing", (-film for film in some)
    rng = np.random.default_rng([seed, 1000])
    bedside = MEASURED["bedside: turned, cut, washed out, tubes"]
    yield "bedside and inverted", (-bedside(film, rng) for film in some)
    for name, turn in WRONG.items():
        yield name, (turn(film) for film in some)
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        yield f"as DX objects, {photometric}", (through_dicom(film, photometric) for film in some)
    yield "as DX objects, MONOCHROME1 called 2", (through_dicom(film, "MONOCHROME1", True) for film in some)


def through_dicom(grey: np.ndarray, photometric: str, mislabelled: bool = False) -> np.ndarray:
    """The film as the worker reads it from a 12-bit DX object with a window; perhaps with a label that is wrong."""
    low, high = float(grey.min()), float(grey.max())
    ds = film(((grey - low) / max(high - low, 1e-6)).astype(np.float32), FilmSpec(photometric=photometric))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    ds.Modality = "DX"
    if mislabelled:
        ds.PhotometricInterpretation = "MONOCHROME2" if photometric == "MONOCHROME1" else "MONOCHROME1"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        ds.save_as(path, enforce_file_format=True)
        return read_film(path, read_dataset(path))[0]


def none_rows(data: Path, rule: Rule, without: Mapping[str, Rule]) -> Rows:
    """A row for each kind that is no chest film, by the rule and by one that was fitted without that kind."""
    rows: Rows = []
    for kind, examples in _none_of(data):
        tally = Tally(judged(examples, rule))
        row = {"pictures": kind, "n": len(examples), "passed": tally.passed, "doubted": tally.doubted}
        if kind in without:
            left_out = Tally(judged(examples, without[kind]))
            row |= {"kind_left_out: passed": left_out.passed, "kind_left_out: doubted": left_out.doubted}
        rows.append(row)
    return rows


def _none_of(data: Path) -> Iterator[tuple[str, Examples]]:
    """Pictures that are no chest film, and that no rule was fitted on."""
    for kind in OTHERS:
        paths = other_paths(data, kind)
        fitted = set(fitted_half(paths))
        yield kind, described(read_grey(path) for path in paths if path not in fitted)
    for number, (kind, draw) in enumerate(DRAWN.items()):
        rng = np.random.default_rng([99, number])
        yield kind, described(draw(rng) for _ in range(DRAWN_MEASURED))
    yield PHOTOGRAPHS, described(_parts_of_photographs(np.random.default_rng(5)))


def _parts_of_photographs(rng: np.random.Generator, each: int = 100) -> Iterator[np.ndarray]:
    """Random parts of the two photographs that scikit-learn brings along."""
    from sklearn.datasets import load_sample_images

    for colours in load_sample_images().images:
        grey = colours.mean(axis=-1).astype(np.float32)
        for _ in range(each):
            height, width = (int(v) for v in rng.integers(100, 400, 2))
            top, left = (
                int(rng.integers(0, side - part)) for side, part in zip(grey.shape, (height, width), strict=True)
            )
            yield grey[top : top + height, left : left + width]
