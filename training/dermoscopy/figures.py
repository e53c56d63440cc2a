"""Figures of a dermoscopy model on rows that it never saw, with their intervals, overall and by subgroup.

Pictures of one lesion are alike, so every interval comes from drawing lesions, and never pictures, again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.datasets.base import Item, label_matrix
from training.dermoscopy.operating import fold_to_three, truth_columns
from training.evaluation import fitting, metrics
from worker.packages.operating_points import OperatingPoint
from worker.pipelines.dermoscopy.lesion import CLASSES

LOW_IOU = 0.65
"""Below this an outline does not say where the lesion is."""

SMALLEST_GROUP = 20

HISTOLOGY = "histo"
"""``dx_type`` of a lesion that was cut out and looked at."""

RECALL = 0.88
"""Recall of melanoma at which the published figures stand."""

RULES = {
    "accuracy, balanced_accuracy, recall": "the likeliest class at the calibrated shares, as the pipeline names it",
    "accuracy_even_prior, balanced_accuracy_even_prior": "the class whose probability is highest above its share: for "
    "a reader who wants every class alike; the pipeline does not use this rule",
}


@dataclass(frozen=True)
class MeasuredRows:
    """Test rows.

    Attributes
    ----------
    labels : tuple of str
        Of the package; none where it only outlines.
    p : float (n, labels)
    truth : int (n,)
        Column of :data:`CLASSES`.
    lesions : str (n,)
    diagnoses : int (n,)
        Column of ``labels``; -1 where the picture's own diagnosis is none of them.
    iou : float (n,) or None
        Of each outline; NaN where no mask was drawn to compare with.
    traits : mapping
        Name -> bool (n,), as of :func:`training.dermoscopy.traits.traits_of`.
    prior : tuple of float
        Shares of the three classes that the probabilities were calibrated to.
    area_off : float (n,) or None
        Error of each outline's area as a share of the drawn area; NaN where nothing is drawn.
    """

    labels: tuple[str, ...]
    p: np.ndarray
    truth: np.ndarray
    lesions: np.ndarray
    diagnoses: np.ndarray
    iou: np.ndarray | None = None
    traits: Mapping[str, np.ndarray] = field(default_factory=dict)
    prior: tuple[float, ...] = (1.0, 1.0, 1.0)
    area_off: np.ndarray | None = None

    def part(self, keep: np.ndarray) -> MeasuredRows:
        """The rows of a mask (bool, n)."""
        return MeasuredRows(
            self.labels,
            self.p[keep],
            self.truth[keep],
            self.lesions[keep],
            self.diagnoses[keep],
            None if self.iou is None else self.iou[keep],
            {name: has[keep] for name, has in self.traits.items()},
            self.prior,
            None if self.area_off is None else self.area_off[keep],
        )


def figures(rows: MeasuredRows, points: Mapping[str, OperatingPoint], repeats: int | None = None) -> dict[str, Any]:
    """All figures; intervals are 95 %, by a bootstrap over lesions."""
    result: dict[str, Any] = {
        "n": len(rows.truth),
        "lesions": len(np.unique(rows.lesions)),
        "shares": {name: int((rows.truth == i).sum()) for i, name in enumerate(CLASSES)},
    }
    if rows.labels:
        result |= _named(rows, points, repeats)
    if rows.iou is not None:
        result["outline"] = _outlined(rows, repeats)
    return result


def _named(rows: MeasuredRows, points: Mapping[str, OperatingPoint], repeats: int | None) -> dict[str, Any]:
    p3, truth = fold_to_three(rows.labels, rows.p), rows.truth
    result: dict[str, Any] = {"rules": RULES}
    likeliest, lifted = p3.argmax(axis=1), (p3 / np.asarray(rows.prior)).argmax(axis=1)
    for suffix, called in (("", likeliest), ("_even_prior", lifted)):
        result[f"accuracy{suffix}"] = share(called == truth, rows.lesions, repeats)
        result[f"balanced_accuracy{suffix}"] = metrics.bootstrap(
            metrics.balanced_accuracy, rows.lesions, truth, called, repeats=repeats
        ).as_dict()
    result["recall"] = {
        name: share((likeliest == i)[truth == i], rows.lesions[truth == i], repeats) for i, name in enumerate(CLASSES)
    }
    result["melanoma_auc"] = metrics.bootstrap(
        metrics.auc, rows.lesions, (truth == 0).astype(int), p3[:, 0], repeats=repeats
    ).as_dict()
    moles = truth < CLASSES.index("other")
    result["melanoma_or_nevus_auc"] = metrics.bootstrap(
        metrics.auc, rows.lesions[moles], (truth[moles] == 0).astype(int), p3[moles, 0], repeats=repeats
    ).as_dict()
    for name, point in points.items():
        if point.finding in (*CLASSES, *rows.labels):
            result[name] = at_point(rows, p3, point, repeats)
    result["melanoma_by_rule"] = melanoma_by_rule(rows, p3, points, repeats)
    return result


def melanoma_by_rule(
    rows: MeasuredRows, p3: np.ndarray, points: Mapping[str, OperatingPoint], repeats: int | None
) -> dict[str, Any]:
    """Recall, precision, specificity and F1 of melanoma under each rule that calls one; the pipeline serves the flag.

    The threshold for a recall of :data:`RECALL` is chosen on the very rows that it is measured on, as for the published
    figure: it flatters, and nothing is served by it.
    """
    y, prior = rows.truth == CLASSES.index("melanoma"), np.asarray(rows.prior)
    rules = {f"flag, at {point.threshold:.4f}": p3[:, 0] >= point.threshold for point in _flags(points)}
    rules["the likeliest class"] = p3.argmax(axis=1) == 0
    rules["the class highest above its share"] = (p3 / prior).argmax(axis=1) == 0
    if y.any():
        rules[f"recall {RECALL} on these pictures"] = p3[:, 0] >= fitting.highest_threshold(
            y.astype(int), p3[:, 0], RECALL
        )
    return {name: _decision(y, called, rows.lesions, repeats) for name, called in rules.items()}


def _flags(points: Mapping[str, OperatingPoint]) -> list[OperatingPoint]:
    return [point for name, point in points.items() if point.finding == "melanoma" and name.startswith("flag")]


def _outlined(rows: MeasuredRows, repeats: int | None) -> dict[str, Any]:
    """Figures of the outlines that can be compared with a drawn mask, and how many cannot.

    Dice of a picture is 2 IoU / (1 + IoU).
    """
    assert rows.iou is not None
    known = np.isfinite(rows.iou)
    lesions, iou = rows.lesions[known], rows.iou[known]
    counts = {"pictures": int(known.sum()), "without_drawn_mask": int((~known).sum())}
    if not known.any():
        return counts
    outline = counts | {
        "mean_iou": metrics.mean(iou, lesions, repeats).as_dict(),
        "mean_dice": metrics.mean(2 * iou / (1 + iou), lesions, repeats).as_dict(),
        "share_below_065": share(iou < LOW_IOU, lesions, repeats),
    }
    if rows.area_off is not None and (sized := np.isfinite(rows.area_off)).any():
        columns = rows.lesions[sized], rows.area_off[sized]
        outline["median_area_off"] = metrics.bootstrap(_median, *columns, repeats=repeats).as_dict()
    return outline


def mean_iou(iou: np.ndarray, lesions: np.ndarray, repeats: int | None = None) -> dict[str, Any]:
    """Mean IoU of the outlines that can be compared with a drawn mask, with an interval by lesion."""
    known = np.isfinite(iou)
    return metrics.mean(iou[known], lesions[known], repeats).as_dict()


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def at_point(rows: MeasuredRows, p3: np.ndarray, point: OperatingPoint, repeats: int | None) -> dict[str, Any]:
    """Recall, precision, specificity and F1 of one operating point.

    A diagnosis is judged on the pictures whose own diagnosis is known among the package's labels.
    """
    if point.finding in CLASSES:
        index = CLASSES.index(point.finding)
        keep, y, p = np.ones(len(p3), dtype=bool), rows.truth == index, p3[:, index]
    else:
        index = rows.labels.index(point.finding)
        keep, y, p = rows.diagnoses >= 0, rows.diagnoses == index, rows.p[:, index]
    y, called, lesions = y[keep], p[keep] >= point.threshold, rows.lesions[keep]
    return {
        "threshold": point.threshold,
        "positives": int(y.sum()),
        "prevalence": float(y.mean()) if len(y) else None,
        **_decision(y, called, lesions, repeats),
    }


def _decision(y: np.ndarray, called: np.ndarray, lesions: np.ndarray, repeats: int | None) -> dict[str, Any]:
    """Recall, specificity, precision and F1 of what is called (bool, n) against the truth (bool, n)."""
    return {
        "recall": share(called[y], lesions[y], repeats),
        "specificity": share(~called[~y], lesions[~y], repeats),
        "precision": share(y[called], lesions[called], repeats),
        "f1": metrics.f1_by_patient(y, called, lesions, repeats).as_dict(),
    }


def subgroups(rows: MeasuredRows, items: Sequence[Item], repeats: int = 300) -> dict[str, Any]:
    """Melanoma AUC, accuracy and outline by trait, age, sex and proof; groups of fewer than 20 rows are left out.

    In HAM10000 many nevi are proved by not having changed (``dx_type`` ``follow_up``), and no melanoma is: a network
    can tell these nevi by the look of their pictures. What histology proved is harder.
    """
    groups: dict[str, np.ndarray] = {}
    for name, has in rows.traits.items():
        groups |= {name: has, f"no {name}": ~has}
    ages = np.asarray([age_of(item.attributes.get("age", "")) for item in items])
    groups |= {"age under 50": ages < 50, "age 50 and over": ages >= 50}
    for sex in ("female", "male"):
        groups[sex] = np.asarray([item.attributes.get("sex") == sex for item in items])
    proofs = np.asarray([item.attributes.get("dx_type", "") for item in items])
    if (proofs == HISTOLOGY).any():
        groups |= {"proved by histology": proofs == HISTOLOGY, "otherwise": proofs != HISTOLOGY}
    result = {}
    for name, keep in groups.items():
        if int(keep.sum()) >= SMALLEST_GROUP:
            whole = figures(rows.part(keep), {}, repeats)
            names = ("n", "lesions", "accuracy", "melanoma_auc", "melanoma_or_nevus_auc", "outline")
            result[name] = {key: whole[key] for key in names if key in whole}
    return result


def age_of(text: str) -> float:
    """Years that a table gives, ``85+`` and ``85.0`` alike; NaN where it gives none."""
    number = re.match(r"\s*(\d+(?:\.\d+)?)", text)
    return float(number[1]) if number else float("nan")


def share(hits: np.ndarray, lesions: np.ndarray, repeats: int | None = None) -> dict[str, Any]:
    """Share of the rows that are hit, with an interval by lesion; N counts lesions.

    Where all rows are hit, or none, drawing again shows no spread: then Wilson's interval of so many lesions stands.
    """
    n = len(np.unique(lesions))
    if not n:
        return metrics.wilson(0, 0).as_dict()
    if bool(hits.all()) or not hits.any():
        return metrics.wilson(n if hits.all() else 0, n).as_dict()
    return metrics.mean(hits, lesions, repeats).as_dict()


def truth_of_three(items: Sequence[Item]) -> np.ndarray:
    """Column of :data:`CLASSES` of each item."""
    return truth_columns(CLASSES, label_matrix(items, CLASSES))
