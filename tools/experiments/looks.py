"""How often a called film carries ``low_evidence``, by what it truly is, and for which model's map.

``python -m tools.experiments.looks BINARY FOUR --data DIR --out DIR``. Nothing is trained: the test films are scored as
they are in service, and the maps of those that are called pneumonia are measured as
:mod:`worker.pipelines.chest_xray.evidence` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from training.chest.figures import age_groups
from training.chest.maps import DirectEngine
from training.chest.readers import class_of
from training.datasets.base import DataSetError, Item
from training.datasets.registry import open_dataset
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.operating_points import AGE_GROUPS
from worker.packages.package import load
from worker.packages.preprocessing.lungs import lung_field
from worker.packages.runtimes.tensorflow import Package
from worker.pipelines.base import Served
from worker.pipelines.chest_xray.evidence import FilmMaps, film_maps, low_evidence
from worker.pipelines.chest_xray.maps import Map, agreement, composed, enlarged, place_of
from worker.pipelines.chest_xray.scores import BINARY, combined_scores, voices_of

BATCH = 32
SERVED = "joined by share (as served)"


@dataclass(frozen=True)
class Called:
    """A film that is called pneumonia: by each map its share in the lungs, whether it is doubted, and agreement."""

    item: Item
    lung_share: dict[str, float]
    doubted: dict[str, bool]
    agreement: dict[str, float]


@click.command("looks")
@click.argument("binary", type=EXISTING_FOLDER)
@click.argument("four", type=EXISTING_FOLDER)
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of chest film collections.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the table.")
@click.option("--films", type=int, default=0, help="Test films to use; 0 for all.")
def looks(binary: Path, four: Path, data: Path, out: Path, films: int) -> None:
    """Measure where the maps of called test films lie: share with low_evidence by true class, and agreement."""
    packages = [load(binary), load(four)]
    dataset = open_dataset("chest_films", data)
    items = [item for item in dataset.items() if item.split == "test" and BINARY in item.labels]
    if not items:
        raise DataSetError("no labelled films of the part test")
    if films:
        items = items[:: max(1, len(items) // films)][:films]
    called = called_films(packages, items, [dataset.pixels(item) for item in items])
    keys = " and ".join(package.key for package in packages)
    budget = f"{len(items)} test films, {len(called)} of them called, packages {keys}, no training"
    path = write_table(out, "looks", "Called films whose map lies mostly outside the lungs", budget, look_rows(called))
    click.echo(path.read_text(encoding="utf-8"))


def called_films(packages: Sequence[Package], items: Sequence[Item], pixels: Sequence[np.ndarray]) -> list[Called]:
    """Score the films (H, W) as the pipeline does, and measure the maps of those above the flag."""
    groups = {package.card.task: [Served(package.card)] for package in packages}
    engine = DirectEngine(packages)
    network_inputs = {package.key: composed(pixels, package.card.input) for package in packages}
    inputs = {key: x for key, (x, _) in network_inputs.items()}
    outputs = {key: {"p": _scored(engine, key, x)} for key, x in inputs.items()}
    combined, own = combined_scores(groups, outputs)
    by_group = {
        group: combined_scores(groups, outputs, group)[0][BINARY].flag_threshold(BINARY) for group in AGE_GROUPS
    }
    limits = np.asarray([np.inf if (t := by_group[group]) is None else t for group in age_groups(items)])
    above = combined[BINARY].of(BINARY) >= limits
    return [
        _measured(
            items[i],
            pixels[i],
            film_maps(
                engine,
                voices_of(groups, combined, own, i),
                inputs,
                i,
                {key: parts[i] for key, (_, parts) in network_inputs.items()},
            ),
            groups[BINARY][0],
        )
        for i in map(int, np.flatnonzero(above))
    ]


def _scored(engine: DirectEngine, key: str, x: np.ndarray) -> np.ndarray:
    return np.concatenate([engine.run(key, x[start : start + BATCH])["p"] for start in range(0, len(x), BATCH)])


def _measured(item: Item, film: np.ndarray, maps: FilmMaps, serving: Served) -> Called:
    field = lung_field(film)
    variants = variants_of(maps)
    return Called(
        item,
        {name: place_of(heat, field).lung_share for name, heat in variants.items()},
        {name: low_evidence(heat, field, serving) for name, heat in variants.items()},
        {name: agreement(heat, maps.joined) for name, heat in variants.items()},
    )


def variants_of(maps: FilmMaps) -> dict[str, Map]:
    """The map that serves, and those that could."""
    variants = {SERVED: maps.joined, "the same as Grad-CAM++": maps.plus, "binary model alone": maps.voices[0]}
    if len(maps.voices) > 1:
        variants |= {
            "four-class model alone": maps.voices[1],
            "mean of both": enlarged(maps.voices[0] + maps.voices[1]),
        }
    return variants


def look_rows(called: Sequence[Called]) -> list[dict[str, Any]]:
    """One row a map: share of called films with ``low_evidence``, of all that are ill and by what they truly are."""
    groups: dict[str, list[Called]] = {"pneumonia": [film for film in called if film.item.labels[BINARY] == 1.0]}
    for film in called:
        groups.setdefault(class_of(film.item) or "other germ", []).append(film)
    names = list(called[0].doubted) if called else []
    return [{"map": name} | _figures(name, groups) for name in names]


def _figures(name: str, groups: Mapping[str, Sequence[Called]]) -> dict[str, Any]:
    ill = groups["pneumonia"]
    row: dict[str, Any] = {
        f"low_evidence_{group}": metrics.wilson(sum(film.doubted[name] for film in films), len(films)).as_dict()
        for group, films in groups.items()
    }
    shares = [film.lung_share[name] for film in ill]
    row["median_lung_share_pneumonia"] = float(np.nanmedian(shares)) if np.isfinite(shares).any() else None
    row["agreement_with_served"] = float(np.mean([film.agreement[name] for film in ill])) if ill else None
    return row


if __name__ == "__main__":
    looks()
