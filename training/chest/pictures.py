"""Pictures of a run for its report: a batch as the network saw it, learning curves, the confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.augmentation.kinds import augment_from
from training.datasets.arrays import Arrays
from training.evaluation.report import Miss
from training.fit.batches import groups_by, train_batch
from training.fit.crossval import fold_rows
from training.recipe import Recipe

COLUMNS = 8


def run_pictures(recipe: Recipe, arrays: Arrays, out: Path) -> dict[str, list[Miss]]:
    """By heading, every picture that can be made from what the run left in ``out``."""
    pictures = {"Training batch": [Miss(batch_picture(recipe, arrays), "the first batch, after augmentation")]}
    log = next((path for path in sorted(out.rglob("log.jsonl"))), None)
    if log is not None:
        pictures["Learning curves"] = [
            Miss(curve_picture(log, names, title), f"{title} by step")
            for title, names in CURVES.items()
            if logged(log, names)
        ]
    return pictures


CURVES = {"loss": ("loss", "val_loss"), "validation": ("val_accuracy", "val_precision", "val_recall")}
"""Curve -> what of the log is in it."""


def confusion_pictures(figures: Mapping[str, Any]) -> dict[str, list[Miss]]:
    """A confusion matrix for each group of figures that has one, under one heading."""
    matrices = []
    for name, group in figures.items():
        if not isinstance(group, Mapping):
            continue
        if "four_classes" in group:
            row = group["four_classes"]
            matrices.append(Miss(confusion_picture(row["confusion_matrix"], row["labels"]), f"four classes, {name}"))
        if "all" in group and "confusion" in group["all"]:
            c = group["all"]["confusion"]
            matrix = [[c["true_negative"], c["false_positive"]], [c["false_negative"], c["true_positive"]]]
            matrices.append(Miss(confusion_picture(matrix, ("normal", "pneumonia")), name.replace("_", " ")))
    return {"Confusion matrices": matrices} if matrices else {}


def batch_picture(recipe: Recipe, arrays: Arrays) -> np.ndarray:
    """The first batch of the run, uint8 (H, W): rows of eight films."""
    rows, _ = fold_rows(arrays, recipe, None)
    groups = groups_by(arrays, rows, recipe.shares or {"*": 1.0}, recipe.patients_first)
    x, _ = train_batch(
        arrays, groups, augment_from(recipe.augment, recipe.input), recipe.schedule.batch_size, recipe.seed, 0
    )
    low, high = float(x.min()), float(x.max())
    films = np.round((x[..., 0] - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)
    films = films[: max(COLUMNS, len(films) // COLUMNS * COLUMNS)]
    small = [cv2.resize(film, (96, 96), interpolation=cv2.INTER_AREA) for film in films]
    small += [np.zeros((96, 96), np.uint8)] * (-len(small) % COLUMNS)
    return np.vstack([np.hstack(small[i : i + COLUMNS]) for i in range(0, len(small), COLUMNS)])


def logged(log: Path, names: Sequence[str]) -> bool:
    """Whether a run's log holds any of these numbers."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return any(name in row for name in names for row in rows)


def curve_picture(log: Path, names: Sequence[str] = CURVES["loss"], title: str = "loss") -> np.ndarray:
    """Numbers by step from a run's ``log.jsonl``, uint8 (H, W, 3) in RGB."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    def draw(axes: Any) -> None:
        for name in names:
            if any(name in row for row in rows):
                axes.plot([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r], label=name)
        axes.set(xlabel="step", ylabel=title)
        axes.legend()

    return _drawn(draw)


def confusion_picture(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> np.ndarray:
    """Counts with the truth in rows, shaded by the share of the row: uint8 (H, W, 3) in RGB."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: Any) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xticks=range(len(labels)), yticks=range(len(labels)), xlabel="called", ylabel="truth")
        axes.set_xticklabels(labels)
        axes.set_yticklabels(labels)
        for (row, column), n in np.ndenumerate(counts):
            axes.text(
                column, row, str(n), ha="center", va="center", color="white" if shares[row, column] > 0.5 else "k"
            )

    return _drawn(draw)


def _drawn(draw: Any) -> np.ndarray:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(4.4, 3.4), dpi=90)
    draw(axes)
    drawing.tight_layout()
    drawing.canvas.draw()
    picture = np.asarray(drawing.canvas.buffer_rgba())[..., :3].copy()
    pyplot.close(drawing)
    return picture
