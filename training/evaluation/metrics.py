"""Figures with their uncertainty, in NumPy: each function takes labels in {0, 1} and scores, and says so if it cannot.

Intervals are 95 %: Wilson's for proportions, bootstrap by patient for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of units behind it."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return f"not defined (N {self.n})"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, N {self.n})"


def wilson(hits: int, n: int) -> Estimate:
    """Proportion with Wilson's score interval (Wilson 1927)."""
    if n == 0:
        return Estimate(None, None, None, 0)
    share = hits / n
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), n)


def auc(y: np.ndarray, p: np.ndarray) -> float:
    """Area under the ROC curve by ranks, ties counted half; NaN where one class is missing."""
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - counts + 1 + ends) / 2.0
    rank_sum = float(ranks[inverse][y == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def roc(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False-positive rate, true-positive rate and threshold of every distinct score, from the highest down."""
    order = np.argsort(-p, kind="stable")
    sorted_y, sorted_p = y[order], p[order]
    last = np.append(np.flatnonzero(np.diff(sorted_p)), len(p) - 1)
    true, false = np.cumsum(sorted_y)[last], np.cumsum(1 - sorted_y)[last]
    return (
        np.append(0.0, false / max(1, int((y == 0).sum()))),
        np.append(0.0, true / max(1, int((y == 1).sum()))),
        np.append(np.inf, sorted_p[last]),
    )


def precision_recall(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Recall, precision and average precision."""
    order = np.argsort(-p, kind="stable")
    sorted_y, sorted_p = y[order], p[order]
    last = np.append(np.flatnonzero(np.diff(sorted_p)), len(p) - 1)
    true = np.cumsum(sorted_y)[last]
    precision = true / (last + 1)
    recall = true / max(1, int(y.sum()))
    average = float(np.sum(np.diff(np.append(0.0, recall)) * precision))
    return recall, precision, average


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    """Mean negative log likelihood, probabilities kept 1e-7 from the ends."""
    p = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))) if len(y) else math.nan


def brier(y: np.ndarray, p: np.ndarray) -> float:
    """Mean squared difference."""
    return float(np.mean((p - y) ** 2)) if len(y) else math.nan


def calibration_bins(y: np.ndarray, p: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Mean score and observed share in equal-width bins; empty bins are left out."""
    index = np.clip((p * bins).astype(int), 0, bins - 1)
    rows = []
    for b in range(bins):
        inside = index == b
        if inside.any():
            rows.append({"p": float(p[inside].mean()), "share": float(y[inside].mean()), "n": int(inside.sum())})
    return rows


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017)."""
    rows = calibration_bins(y, p, bins)
    return float(sum(r["n"] * abs(r["p"] - r["share"]) for r in rows) / max(1, len(y)))


def confusion(y: np.ndarray, called: np.ndarray) -> dict[str, int]:
    """Counts of a decision ``called`` (bool) against the truth."""
    return {
        "true_positive": int((called & (y == 1)).sum()),
        "false_positive": int((called & (y == 0)).sum()),
        "false_negative": int((~called & (y == 1)).sum()),
        "true_negative": int((~called & (y == 0)).sum()),
    }


def proportions(y: np.ndarray, called: np.ndarray) -> dict[str, Estimate]:
    """Accuracy, sensitivity, specificity, precision and the false-negative share of positives, by Wilson."""
    c = confusion(y, called)
    true, positives, negatives = c["true_positive"], int((y == 1).sum()), int((y == 0).sum())
    return {
        "accuracy": wilson(true + c["true_negative"], len(y)),
        "sensitivity": wilson(true, positives),
        "specificity": wilson(c["true_negative"], negatives),
        "precision": wilson(true, true + c["false_positive"]),
        "false_negative_share_of_positives": wilson(c["false_negative"], positives),
    }


def f1(y: np.ndarray, called: np.ndarray) -> float:
    """Harmonic mean of precision and recall; NaN without positives, called or true."""
    c = confusion(y, called)
    total = 2 * c["true_positive"] + c["false_positive"] + c["false_negative"]
    return 2 * c["true_positive"] / total if total else math.nan


def bootstrap(
    statistic: Callable[..., float], patients: np.ndarray, *arrays: np.ndarray, repeats: int = 1000, seed: int = 0
) -> Estimate:
    """A statistic of per-row arrays with a percentile interval from resampling patients, not rows.

    Resamples in which the statistic is not defined are left out; with fewer than half defined there is no interval.
    """
    value = float(statistic(*arrays))
    names, inverse = np.unique(patients, return_inverse=True)
    if not math.isfinite(value):
        return Estimate(None, None, None, len(names))
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(repeats):
        rows = np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
        sample = float(statistic(*(a[rows] for a in arrays)))
        if math.isfinite(sample):
            found.append(sample)
    if len(found) < repeats / 2:
        return Estimate(value, None, None, len(names))
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(names))


def fit_platt(y: np.ndarray, logits: np.ndarray, ridge: float = 1e-2) -> tuple[float, float]:
    """Temperature and bias with ``p = sigmoid((logit - bias) / temperature)``, by maximum likelihood.

    Returns
    -------
    (temperature, bias); (1, 0) where one class is missing.
    """
    if not 0 < (y == 1).sum() < len(y):
        return 1.0, 0.0
    weights, intercept = fit_logistic(y, logits[:, None], np.array([1.0]), ridge)
    slope = max(float(weights[0]), 0.05)
    return 1 / slope, -intercept / slope


def fit_logistic(
    y: np.ndarray, features: np.ndarray, prior: np.ndarray, ridge: float = 1e-2
) -> tuple[np.ndarray, float]:
    """Weights and intercept of ``p = sigmoid(features @ weights + intercept)``, by Newton steps with a line search.

    Targets are smoothed as Platt (1999) proposes, and a ridge draws the weights to ``prior``, so that few positives
    cannot drive them away.
    """
    positives, negatives = float((y == 1).sum()), float((y == 0).sum())
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.column_stack([features.astype(np.float64), np.ones(len(y))])
    start = np.append(prior.astype(np.float64), 0.0)
    theta = start.copy()
    penalty = np.diag([*np.full(len(prior), ridge * len(y)), 0.0])

    def cost(at: np.ndarray) -> float:
        z = x @ at
        away = at - start
        return float(np.sum(np.logaddexp(0.0, z) - target * z) + 0.5 * away @ penalty @ away)

    for _ in range(200):
        p = 0.5 * (np.tanh(0.5 * (x @ theta)) + 1)
        slope = x.T @ (p - target) + penalty @ (theta - start)
        curve = (x * (p * (1 - p))[:, None]).T @ x + penalty + 1e-6 * np.eye(len(theta))
        step = np.linalg.solve(curve, slope)
        size, here = 1.0, cost(theta)
        while size > 1e-6 and cost(theta - size * step) > here:
            size /= 2
        theta = theta - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return theta[:-1], float(theta[-1])


def highest_threshold(y: np.ndarray, p: np.ndarray, sensitivity: float) -> float:
    """The highest threshold at which at least that share of the positives is called (``p >= threshold``)."""
    positives = np.sort(p[y == 1])[::-1]
    if not len(positives):
        raise ValueError("no positives to choose a threshold on")
    return float(positives[math.ceil(sensitivity * len(positives) - 1e-9) - 1])


def youden_threshold(y: np.ndarray, p: np.ndarray) -> float:
    """The threshold with the highest sensitivity + specificity - 1, halfway to the next lower score."""
    false, true, thresholds = roc(y, p)
    best = int(np.argmax(true - false))
    below = thresholds[best + 1] if best + 1 < len(thresholds) else thresholds[best]
    return float((thresholds[best] + below) / 2) if np.isfinite(thresholds[best]) else float(below)


def dice(truth: np.ndarray, found: np.ndarray) -> float:
    """Dice coefficient of two masks; NaN where both are empty."""
    total = int(truth.sum()) + int(found.sum())
    return 2.0 * int((truth & found).sum()) / total if total else math.nan
