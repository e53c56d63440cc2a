"""Figures of a dermoscopy model on rows that it never saw, with their intervals, overall and by subgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training import metrics
from training.datasets.base import Item
from training.dermoscopy.operating import iou, three
from worker.packages.card import OperatingPoint
from worker.pipelines.lesion import CLASSES

LOW_IOU = 0.65
"""Below this an outline does not say where the lesion is."""


@dataclass(frozen=True)
class Rows:
    """Test rows: probabilities (n, labels), the truth's column, lesion of each row, IoU of each outline, hair.

    ``prior`` holds the shares of the three classes that the probabilities were calibrated to.
    """

    labels: tuple[str, ...]
    p: np.ndarray
    truth: np.ndarray
    lesions: np.ndarray
    iou: np.ndarray | None = None
    hairy: np.ndarray | None = None
    prior: tuple[float, ...] = (1.0, 1.0, 1.0)

    def part(self, keep: np.ndarray) -> Rows:
        return Rows(
            self.labels, self.p[keep], self.truth[keep], self.lesions[keep],
            None if self.iou is None else self.iou[keep], None if self.hairy is None else self.hairy[keep], self.prior,
        )  # fmt: skip


def figures(rows: Rows, points: Mapping[str, OperatingPoint], repeats: int = 1000) -> dict[str, Any]:
    """All figures; intervals are 95 %, by Wilson for shares and by a bootstrap over lesions for the rest."""
    p3 = three(rows.labels, rows.p)
    y3 = truth_of_three(rows.labels, rows.truth)
    called = p3.argmax(axis=1)
    melanoma = (y3 == 0).astype(int)
    found: dict[str, Any] = {
        "n": len(y3),
        "lesions": len(np.unique(rows.lesions)),
        "shares": {name: int((y3 == i).sum()) for i, name in enumerate(CLASSES)},
        "accuracy": metrics.wilson(int((called == y3).sum()), len(y3)).as_dict(),
        "balanced_accuracy": metrics.bootstrap(balanced_accuracy, rows.lesions, y3, called, repeats=repeats).as_dict(),
        "recall": {name: metrics.wilson(int(((called == i) & (y3 == i)).sum()), int((y3 == i).sum())).as_dict()
                   for i, name in enumerate(CLASSES)},
        "melanoma_auc": metrics.bootstrap(metrics.auc, rows.lesions, melanoma, p3[:, 0], repeats=repeats).as_dict(),
    }  # fmt: skip
    # The class whose probability is highest above its share: what a reader gets who wants every class alike.
    lifted = (p3 / np.asarray(rows.prior)).argmax(axis=1)
    found["balanced_accuracy_even_prior"] = metrics.bootstrap(
        balanced_accuracy, rows.lesions, y3, lifted, repeats=repeats
    ).as_dict()
    for name, point in points.items():
        found[name] = at_point(rows, p3, y3, point, repeats)
    if rows.iou is not None:
        found["outline"] = {
            "mean_iou": metrics.bootstrap(_mean, rows.lesions, rows.iou, repeats=repeats).as_dict(),
            "share_below_065": metrics.wilson(int((rows.iou < LOW_IOU).sum()), len(rows.iou)).as_dict(),
        }
    return found


def at_point(rows: Rows, p3: np.ndarray, y3: np.ndarray, point: OperatingPoint, repeats: int) -> dict[str, Any]:
    """Recall, precision, specificity and F1 of one operating point."""
    if point.finding in CLASSES:
        index = CLASSES.index(point.finding)
        y, p = (y3 == index).astype(int), p3[:, index]
    else:
        index = rows.labels.index(point.finding)
        y, p = (rows.truth == index).astype(int), rows.p[:, index]
    called = p >= point.threshold
    shares = metrics.proportions(y, called)
    return {
        "threshold": point.threshold,
        "positives": int(y.sum()),
        "prevalence": float(y.mean()),
        "recall": shares["sensitivity"].as_dict(),
        "specificity": shares["specificity"].as_dict(),
        "precision": shares["precision"].as_dict(),
        "f1": metrics.bootstrap(metrics.f1, rows.lesions, y, called, repeats=repeats).as_dict(),
    }


def subgroups(rows: Rows, items: Sequence[Item], repeats: int = 300) -> dict[str, Any]:
    """Melanoma AUC, accuracy and IoU by hair, age and sex; groups of fewer than 20 rows are left out."""
    groups: dict[str, np.ndarray] = {}
    if rows.hairy is not None:
        groups |= {"hair": rows.hairy, "no hair": ~rows.hairy}
    ages = np.asarray([float(item.attributes.get("age") or "nan") for item in items])
    groups |= {"age under 50": ages < 50, "age 50 and over": ages >= 50}
    for sex in ("female", "male"):
        groups[sex] = np.asarray([item.attributes.get("sex") == sex for item in items])
    found = {}
    for name, keep in groups.items():
        if int(keep.sum()) >= 20:
            whole = figures(rows.part(keep), {}, repeats)
            found[name] = {key: whole[key] for key in ("n", "accuracy", "melanoma_auc", "outline") if key in whole}
    return found


def truth_of_three(labels: Sequence[str], truth: np.ndarray) -> np.ndarray:
    """Column of :data:`CLASSES` of each row."""
    return np.asarray(three(labels, np.eye(len(labels))[truth]).argmax(axis=1))


def balanced_accuracy(truth: np.ndarray, called: np.ndarray) -> float:
    """Mean recall over the classes that occur."""
    return float(np.mean([(called[truth == i] == i).mean() for i in np.unique(truth)]))


def outlines_iou(truths: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> np.ndarray:
    """IoU of each picture."""
    return np.asarray([iou(t, f) for t, f in zip(truths, found, strict=True)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
