"""A package on films that are not as they should be: low resolution, objects in the film, borders, lungs cut out.

``firstread chest stress PACKAGE... --data DIR --out DIR``. Nothing is trained: each change is made to the test films,
and the package scores them as it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from training.augmentation.films import lower_resolution
from training.chest.figures import four_class_truth, patients_of, thresholds_of
from training.chest.labels import CLASSES
from training.datasets.base import Item
from training.datasets.registry import open_dataset
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose
from worker.packages.preprocessing.lungs import lung_box, lung_field
from worker.packages.runtimes.tensorflow import Package

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SIZES = (64, 96, 128, 224)
BATCH = 32


@click.command("stress")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True, type=EXISTING_FOLDER)
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of chest film collections.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the table.")
@click.option("--films", type=int, default=0, help="Test films to use; 0 for all.")
def stress(packages: tuple[Path, ...], data: Path, out: Path, films: int) -> None:
    """Score the test films of --data with each PACKAGE, unchanged and changed, and write a table for each."""
    dataset = open_dataset("chest_films", data)
    items = [item for item in dataset.items() if item.split == "test" and item.labels]
    if films:
        items = items[:: max(1, len(items) // films)][:films]
    pixels = [dataset.pixels(item) for item in items]
    for loaded in map(load, packages):
        rows = stress_rows(loaded, items, pixels, CHANGES)
        budget = f"{len(items)} test films, package {loaded.key}, no training"
        name = "stress" if len(packages) == 1 else f"stress_{loaded.card.name}"
        click.echo(write_table(out, name, "Films that are not as they should be", budget, rows).read_text("utf-8"))


def stress_rows(
    package: Package, items: list[Item], pixels: list[np.ndarray], changes: Mapping[str, Change] | None = None
) -> list[dict[str, Any]]:
    """One row a change: figures, and how many calls differ from those on the unchanged films."""
    plain = scores(package, pixels, unchanged)
    rows = []
    for name, change in (CHANGES if changes is None else changes).items():
        p = plain if change is unchanged else scores(package, pixels, change)
        rows.append(
            {"films": name} | figures_of(package, items, p) | {"calls_changed": _changed(package, items, plain, p)}
        )
    return rows


def scores(package: Package, pixels: list[np.ndarray], change: Change) -> np.ndarray:
    """Probabilities (n, labels) of changed films; each film's change is drawn from its own seed."""
    batches = []
    for start in range(0, len(pixels), BATCH):
        part = pixels[start : start + BATCH]
        x = [
            compose(change(film, np.random.default_rng(start + i))[None], package.card.input)[0]
            for i, film in enumerate(part)
        ]
        batches.append(package.predict(np.stack(x))["p"])
    return np.concatenate(batches).astype(np.float64)


def figures_of(package: Package, items: list[Item], p: np.ndarray) -> dict[str, Any]:
    """Four classes: accuracy and macro-F1. Binary: AUC and accuracy at the flag."""
    patients = patients_of(items)
    if package.card.task == "pneumonia":
        y = np.asarray([item.labels.get("pneumonia", -1.0) for item in items])
        known = y >= 0
        limits = thresholds_of(package.card.point("pneumonia"), items)
        called, judged = p[:, 0] >= limits, known & ~np.isnan(limits)
        auc = metrics.bootstrap(metrics.auc, patients[known], y[known], p[known, 0], repeats=300)
        right = int((called[judged] == (y[judged] == 1)).sum())
        return {"auc": auc.as_dict(), "accuracy": metrics.wilson(right, int(judged.sum())).as_dict()}
    truth = four_class_truth(items)
    known = truth >= 0
    guess = p[:, [package.card.labels.index(name) for name in CLASSES]].argmax(axis=1)
    right = int((guess[known] == truth[known]).sum())
    f1 = [
        metrics.f1((truth[known] == c).astype(int), guess[known] == c)
        for c in range(len(CLASSES))
        if (truth == c).any()
    ]
    return {"accuracy": metrics.wilson(right, int(known.sum())).as_dict(), "macro_f1": float(np.mean(f1))}


def _changed(package: Package, items: list[Item], plain: np.ndarray, p: np.ndarray) -> float:
    """Share of films whose call changes; those that are called nothing change none."""
    if package.card.task == "pneumonia":
        limits = thresholds_of(package.card.point("pneumonia"), items)
        return float(np.mean((plain[:, 0] >= limits) != (p[:, 0] >= limits)))
    return float(np.mean(plain.argmax(axis=1) != p.argmax(axis=1)))


def unchanged(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The film as it is."""
    return film


def resolution(side_px: int) -> Change:
    """Reduced to ``side_px`` squared and enlarged again."""

    def change(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return lower_resolution(film.astype(np.float32), side_px)

    return change


def letters(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``R`` or a longer label in a corner, bright."""
    height, width = film.shape
    ink = np.zeros(film.shape, np.uint8)
    text = str(rng.choice(["R", "L", "AP", "PORTABLE", "MOBILE AP"]))
    place = (int(width * rng.choice([0.03, 0.7])), int(height * rng.choice([0.12, 0.95])))
    cv2.putText(ink, text, place, cv2.FONT_HERSHEY_SIMPLEX, height / 230, 255, max(1, height // 110))
    return np.asarray(np.maximum(film, ink * (np.percentile(film, 99.5) / 255.0)), dtype=np.float32)


def electrodes(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three electrodes with their leads over the chest."""
    height, width = film.shape
    ink = np.zeros(film.shape, np.uint8)
    for _ in range(3):
        spot = (int(width * rng.uniform(0.2, 0.8)), int(height * rng.uniform(0.2, 0.75)))
        rim = (int(width * rng.choice([0.0, 1.0])), int(height * rng.uniform(0.0, 1.0)))
        cv2.circle(ink, spot, max(2, height // 40), 255, -1)
        cv2.line(ink, spot, rim, 255, max(1, height // 200))
    return np.asarray(np.maximum(film, ink * (np.percentile(film, 99.5) / 255.0)), dtype=np.float32)


def hand_at_edge(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fingers of a holding hand that reach in from one side."""
    height, width = film.shape
    ink = np.zeros(film.shape, np.uint8)
    right = bool(rng.random() < 0.5)
    for finger in range(4):
        y = int(height * (0.3 + 0.08 * finger + rng.uniform(-0.01, 0.01)))
        reach = int(width * rng.uniform(0.12, 0.2))
        start, end = (width, width - reach) if right else (0, reach)
        cv2.line(ink, (start, y), (end, y + height // 40), 255, max(2, height // 22))
    bright = float(np.percentile(film, 90))
    return np.where(ink > 0, 0.5 * film + 0.5 * bright, film).astype(np.float32)


def black_border(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A collimated rim: 8 % of each side black, what lay there is lost."""
    out = np.full(film.shape, film.min(), dtype=np.float32)
    top, left = round(0.08 * film.shape[0]), round(0.08 * film.shape[1])
    out[top:-top, left:-left] = film[top:-top, left:-left]
    return out


def border_around(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black bars of a tenth around the whole film: nothing of it is lost."""
    bars = [(round(0.1 * side),) * 2 for side in film.shape]
    return np.pad(film, bars, constant_values=float(film.min()))


def rim_cut(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The film without 8 % of each side, and no border in their place."""
    top, left = round(0.08 * film.shape[0]), round(0.08 * film.shape[1])
    return film[top:-top, left:-left]


def lungs_cropped(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The box around the lung field, with a margin."""
    top, left, height, width = lung_box(film)
    return film[top : top + height, left : left + width]


def lungs_only(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Everything outside the lung field black: what is left is what the lungs alone tell."""
    mask = cv2.resize(lung_field(film).mask.astype(np.uint8), film.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.where(mask > 0, film, film.min()).astype(np.float32)


def without_lungs(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The lung field filled with its mean: what a model still knows then, it does not know from the lungs."""
    mask = cv2.resize(lung_field(film).mask.astype(np.uint8), film.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(mask, film[mask].mean() if mask.any() else film, film).astype(np.float32)


CHANGES: dict[str, Change] = {
    "as they are": unchanged,
    **{f"at {size} px": resolution(size) for size in SIZES},
    "letters pasted": letters,
    "electrodes pasted": electrodes,
    "a hand at the edge": hand_at_edge,
    "black border": black_border,
    "black border around the film": border_around,
    "8 % of each side cut off": rim_cut,
    "cropped to the lungs": lungs_cropped,
    "lungs alone": lungs_only,
    "lungs blanked": without_lungs,
}
