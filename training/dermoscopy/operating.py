"""What is chosen on validation rows: calibration, operating points, and how an outline is cut out of probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.dermoscopy.scores import ViewLogits
from training.evaluation import fitting, metrics
from worker.packages.card import Calibration
from worker.packages.operating_points import OperatingPoint, Prevalence
from worker.pipelines.dermoscopy.lesion import CLASSES, FOLD, OTHER_MALIGNANT, framing, outlined, unframed

TEMPERATURES = np.geomspace(0.4, 2.5, 43)
MASK_THRESHOLDS = tuple(round(0.30 + 0.05 * i, 2) for i in range(9))


@dataclass(frozen=True)
class ValidationChoices:
    """What was chosen on the validation rows: calibration, operating points, and how outlines are cut."""

    labels: tuple[str, ...]
    bias: np.ndarray
    temperature: float
    points: dict[str, OperatingPoint]
    mask: dict[str, Any]
    prior: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Shares of the three classes among the validation rows."""

    def p(self, scores: ViewLogits) -> np.ndarray:
        """Calibrated probabilities (n, labels)."""
        return scores.p(self.bias, self.temperature)

    @property
    def calibration(self) -> Calibration:
        """As it goes into the card."""
        return Calibration(
            temperature=dict.fromkeys(self.labels, float(self.temperature)),
            bias={name: float(value) for name, value in zip(self.labels, self.bias, strict=True)},
        )


def prior_bias(labels: Sequence[str], trained: Mapping[str, float], truth: np.ndarray) -> np.ndarray:
    """Bias that turns the posterior under the training shares into the one under the shares of ``truth``.

    ``log(trained share / true share)`` is taken off each logit (Saerens et al. 2002); true shares are counted with one
    added to each class. Rows of which only ``other`` is known count for its diagnoses by their training shares.

    Parameters
    ----------
    trained : mapping
        Share of each label in a training batch.
    truth : ndarray of int, shape (n,)
        Column of the true label of each validation row, -1 where only ``other`` is known.
    """
    counts = np.bincount(truth[truth >= 0], minlength=len(labels)) + 1.0
    shares = np.asarray([trained[name] for name in labels], dtype=np.float64)
    if (truth < 0).any():
        others = np.asarray([FOLD.get(name, "other") == "other" for name in labels]) * shares
        counts += (truth < 0).sum() * others / others.sum()
    return np.asarray(np.log(shares / shares.sum()) - np.log(counts / counts.sum()))


def fit_temperature(scores: ViewLogits, bias: np.ndarray, truth: np.ndarray) -> float:
    """The temperature with the least negative log likelihood of the mean over views (Guo et al. 2017).

    Rows whose truth is -1 have no say; without any row it is 1.
    """
    rows = np.flatnonzero(truth >= 0)
    if not len(rows):
        return 1.0

    def loss(temperature: float) -> float:
        p = scores.p(bias, temperature)[rows, truth[rows]]
        return float(-np.log(np.maximum(p, 1e-7)).mean())

    return float(min(TEMPERATURES, key=loss))


def operating_points(
    labels: Sequence[str],
    p: np.ndarray,
    truth: np.ndarray,
    melanoma_recall: float,
    warning_recall: float,
    prevalence: Prevalence | None = None,
) -> dict[str, OperatingPoint]:
    """Flag for melanoma, and where the labels hold them, warnings for the other malignant diagnoses.

    Each is the highest threshold with the wanted recall on the validation rows. A diagnosis that none of them has gets
    no point, and rows of which only ``other`` is known (-1) have no say in a warning. At a ``prevalence`` of melanoma
    at which too few flags would be right the flag is a hint.
    """
    points = {}
    column = labels.index("dx_mel") if "dx_mel" in labels else labels.index("melanoma")
    wanted = [("flag_melanoma", "melanoma", column, melanoma_recall)]
    wanted += [(f"warn_{n}", n, labels.index(n), warning_recall) for n in OTHER_MALIGNANT if n in labels]
    for name, finding, index, recall in wanted:
        known = truth >= (-1 if finding == "melanoma" else 0)
        y, p_one = (truth[known] == index).astype(int), p[known, index]
        if not y.any():
            continue
        # Half a unit of the sixth digit below, so that writing and reading it loses no positive.
        threshold = float(np.floor(fitting.highest_threshold(y, p_one, recall) * 1e6) / 1e6)
        counts = metrics.confusion(y, p_one >= threshold)
        points[name] = OperatingPoint(
            finding=finding,
            threshold=threshold,
            chosen_for=f"recall of at least {recall:.2f} on the validation rows",
            sensitivity=counts["true_positive"] / max(1, int(y.sum())),
            specificity=counts["true_negative"] / max(1, int((1 - y).sum())),
            n=len(y),
            prevalence=prevalence if finding == "melanoma" else None,
        )
    return points


def iou(truth: np.ndarray, outline: np.ndarray) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((truth | outline).sum())
    return int((truth & outline).sum()) / union if union else 1.0


def overlap(drawn: np.ndarray, p_mask: np.ndarray, chosen: Mapping[str, Any]) -> tuple[float, float]:
    """IoU of an outline, cut as in service, with the drawn one, and how far its area is off as a share of the drawn.

    The second is NaN where nothing is drawn in the picture.
    """
    outline = cut(at_source(p_mask, drawn), chosen)
    area = int(drawn.sum())
    return iou(drawn, outline), abs(int(outline.sum()) - area) / area if area else float("nan")


def cut(p_mask: np.ndarray, chosen: Mapping[str, Any]) -> np.ndarray:
    """As the pipeline cuts it; ``chosen`` holds a card's ``mask_threshold``, ``mask_largest``, ``mask_fill``."""
    return outlined(
        p_mask, chosen.get("mask_threshold", 0.5), chosen.get("mask_largest", True), chosen.get("mask_fill", True)
    )


def at_source(p_mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mask probabilities of the network's output at the size of a drawn mask (H, W), brought there as in service."""
    height, width = truth.shape
    return unframed(p_mask, framing(height, width), (height, width))


def choose_mask(maps: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, Any]:
    """Threshold with the best mean IoU, then whether the largest component and hole filling help.

    Parameters
    ----------
    maps : sequence of float32 (H, W)
        Mask probabilities at the pictures' own size.

    Returns
    -------
    dict
        ``mask_threshold``, ``mask_largest``, ``mask_fill``, and ``tried``: mean IoU of each that was tried.
    """

    def mean_iou(threshold: float, largest: bool, fill: bool) -> float:
        return float(
            np.mean([iou(t, outlined(p, threshold, largest, fill)) for p, t in zip(maps, truths, strict=True)])
        )

    by_threshold = {t: mean_iou(t, False, False) for t in MASK_THRESHOLDS}
    threshold = max(by_threshold, key=lambda t: by_threshold[t])
    cleaning = {(a, b): mean_iou(threshold, a, b) for a in (False, True) for b in (False, True)}
    largest, fill = max(cleaning, key=lambda key: cleaning[key])
    tried = {
        "threshold": {str(t): round(v, 4) for t, v in by_threshold.items()},
        "cleaning": {f"largest={a} fill={b}": round(v, 4) for (a, b), v in cleaning.items()},
    }
    return {"mask_threshold": threshold, "mask_largest": largest, "mask_fill": fill, "tried": tried}


def truth_columns(labels: Sequence[str], matrix: np.ndarray) -> np.ndarray:
    """Column of the true label of each row of a label matrix (n, labels); -1 where the row's labels are unknown.

    Raises
    ------
    ValueError
        If a row has other labels than exactly one, or all unknown.
    """
    known = (matrix >= 0).all(axis=1)
    if not ((matrix[known] == 1).sum(axis=1) == 1).all() or (matrix[~known] > 0).any():
        raise ValueError(f"rows without exactly one of {', '.join(labels)}")
    return np.where(known, matrix.argmax(axis=1), -1)


def fold_to_three(labels: Sequence[str], p: np.ndarray) -> np.ndarray:
    """Probabilities (n, 3) of :data:`CLASSES` out of those of seven diagnoses, or as they are."""
    if tuple(labels) == CLASSES:
        return p
    out = np.zeros((len(p), 3))
    for column, name in enumerate(labels):
        out[:, CLASSES.index(FOLD.get(name, "other"))] += p[:, column]
    return out
