"""Pictures of figures, for a report: learning curves, confusion matrices, thresholds; uint8 (H, W, 3) in RGB."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Miss:
    """A picture to show, uint8 (H, W) or (H, W, 3), and what to say below it."""

    picture: np.ndarray
    caption: str


LOG, INITIAL = "log.jsonl", "initial.json"
CURVES = {
    "loss": ("loss", "val_loss"),
    "accuracy": ("accuracy", "val_accuracy"),
    "precision and recall": ("val_precision", "val_recall"),
    "overlap of outlines (IoU)": ("iou", "val_iou"),
}
"""Curve -> what of the log is in it; ``val`` is of validation rows, the others of what is trained on."""


def run_curves(run: Path) -> dict[str, list[Miss]]:
    """By heading, the learning curves of the training below a folder, with what it showed before its first step.

    Of several trainings below the folder, such as folds, each has a curve of its loss, and the first has all of them.
    """
    logs = sorted(run.rglob(LOG))
    if not logs:
        return {}
    shown = [
        Miss(curve_picture(logs[0], names, title), f"{title} by step, {logs[0].parent.name}")
        for title, names in CURVES.items()
        if any(name in row for name in names for row in logged(logs[0]))
    ]
    shown += [Miss(curve_picture(log), f"loss by step, {log.parent.name}") for log in logs[1:]]
    return {"Learning curves": shown}


def logged(log: Path) -> list[dict[str, Any]]:
    """Rows of a run's log, what the untrained network showed as step 0 first."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    untrained = log.with_name(INITIAL)
    if untrained.is_file():
        rows.insert(0, {"step": 0, **json.loads(untrained.read_text(encoding="utf-8"))})
    return rows


def initial_figures(run: Path) -> dict[str, Any]:
    """Loss and accuracy before the first step of every training below a folder, by its folder's name."""
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.rglob(INITIAL))}


def last_figures(run: Path) -> dict[str, Any]:
    """Loss, accuracy and overlap of the last epoch of every training below a folder, trained beside validated."""
    names = [name for pair in CURVES.values() for name in pair]
    last = {}
    for log in sorted(run.rglob(LOG)):
        row = logged(log)[-1]
        last[log.parent.name] = {name: row[name] for name in ("step", *names) if name in row}
    return last


def curve_picture(log: Path, names: Sequence[str] = CURVES["loss"], title: str = "loss") -> np.ndarray:
    """Numbers by step from a run's log."""
    rows = logged(log)

    def draw(axes: Any) -> None:
        for name in names:
            if any(name in row for row in rows):
                of = [row for row in rows if name in row]
                axes.plot([row["step"] for row in of], [row[name] for row in of], label=name)
        axes.set(xlabel="step", ylabel=title)
        axes.legend()

    return drawn(draw)


def confusion_picture(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> np.ndarray:
    """Counts with the truth in rows, shaded by the share of the row."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: Any) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xticks=range(len(labels)), yticks=range(len(labels)), xlabel="called", ylabel="truth")
        axes.set_xticklabels(labels, rotation=0 if len(labels) < 5 else 45)
        axes.set_yticklabels(labels)
        for (row, column), n in np.ndenumerate(counts):
            axes.text(
                column, row, str(n), ha="center", va="center", color="white" if shares[row, column] > 0.5 else "k"
            )

    return drawn(draw)


def confusion_pictures(figures: Mapping[str, Any], prefix: str = "") -> list[Miss]:
    """A confusion matrix for everything in nested figures that has one: of one finding, or of exclusive labels."""
    shown: list[Miss] = []
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            continue
        words = f"{prefix}{str(name).replace('_', ' ')}"
        if "confusion_matrix" in value and "labels" in value:
            shown.append(Miss(confusion_picture(value["confusion_matrix"], value["labels"]), words))
        elif isinstance(value.get("confusion"), Mapping) and "true_positive" in value["confusion"]:
            c = value["confusion"]
            matrix = [[c["true_negative"], c["false_positive"]], [c["false_negative"], c["true_positive"]]]
            shown.append(Miss(confusion_picture(matrix, ("no", "yes")), words))
        else:
            shown += confusion_pictures(value, f"{words}: ")
    return shown


def drawn(draw: Callable[[Any], None]) -> np.ndarray:
    """What a function draws on axes."""
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
