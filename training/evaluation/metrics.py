"""Figures with their uncertainty: scikit-learn's metrics, SciPy's intervals, and what neither of them has.

Labels are 0 or 1 and scores probabilities, both of shape (n,). Intervals are 95 %: Wilson's for proportions, and the
percentile bootstrap by patient for the rest. The functions here say what happens where one class or every row is
missing, on which scikit-learn warns or raises.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import special, stats
from sklearn import metrics as sklearn_metrics
from sklearn.exceptions import UndefinedMetricWarning

CONFIDENCE = 0.95
REPEATS = 1000
"""Resamples of a bootstrap whose caller names no number."""

BATCH = 100
"""Resamples that are drawn at a time: bounds the memory on data sets of many patients."""

P_FLOOR = 1e-7
"""Probabilities stay this far from 0 and 1 in a log loss."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of units behind it."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the card."""
        return asdict(self)

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return f"not defined (N {self.n})"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, N {self.n})"


def wilson(hits: int, n: int) -> Estimate:
    """Proportion with Wilson's score interval (Wilson 1927)."""
    if n == 0:
        return Estimate(None, None, None, 0)
    interval = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / n, float(interval.low), float(interval.high), n)


def auc(y: np.ndarray, p: np.ndarray) -> float:
    """Area under the ROC curve; NaN where one class is missing."""
    if not 0 < int((y == 1).sum()) < len(y):
        return math.nan
    false, true, _ = sklearn_metrics.roc_curve(y, p)
    return float(sklearn_metrics.auc(false, true))


def roc(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False-positive rate, true-positive rate and threshold of every distinct score, from the highest down.

    The first point is that of a threshold of infinity. The rate of a class that is missing is 0.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        false, true, thresholds = sklearn_metrics.roc_curve(y, p, pos_label=1, drop_intermediate=False)
    return np.nan_to_num(false), np.nan_to_num(true), thresholds


def precision_recall(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Recall and precision at every distinct score, from the highest down, and the average precision.

    Average precision is the sum over steps of recall, without interpolation. There must be a positive.
    """
    precision, recall, _ = sklearn_metrics.precision_recall_curve(y, p, pos_label=1)
    # scikit-learn begins at the lowest score, and ends with a point of no recall that belongs to no score
    return recall[-2::-1], precision[-2::-1], average_precision(y, p)


def average_precision(y: np.ndarray, p: np.ndarray) -> float:
    """Area under the precision-recall curve in steps; NaN without positives."""
    if not (y == 1).any():
        return math.nan
    return float(sklearn_metrics.average_precision_score(y, p, pos_label=1))


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    """Mean negative log likelihood, probabilities kept :data:`P_FLOOR` from the ends; NaN without rows."""
    if not len(y):
        return math.nan
    return float(sklearn_metrics.log_loss(y, _inside(p), labels=[0, 1]))


def class_log_loss(y: np.ndarray, p: np.ndarray) -> float:
    """Mean negative log likelihood of the true class; ``y`` holds columns of ``p`` (n, classes)."""
    if not len(y):
        return math.nan
    with warnings.catch_warnings():
        # rows need not sum to one to the last digit: a network's are float32, and the floor adds to them
        warnings.filterwarnings("ignore", "The y_prob values do not sum to one", UserWarning)
        return float(sklearn_metrics.log_loss(y, np.clip(p, P_FLOOR, 1), labels=range(p.shape[1])))


def brier(y: np.ndarray, p: np.ndarray) -> float:
    """Mean squared difference; NaN without rows."""
    return float(sklearn_metrics.brier_score_loss(y, p, pos_label=1)) if len(y) else math.nan


def calibration_bins(y: np.ndarray, p: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Mean score and observed share in equal-width bins; empty bins are left out.

    scikit-learn's ``calibration_curve`` does not count what is in a bin, which the page and the error need.
    """
    index = np.clip((p * bins).astype(int), 0, bins - 1)
    rows = []
    for b in range(bins):
        inside = index == b
        if inside.any():
            rows.append({"p": float(p[inside].mean()), "share": float(y[inside].mean()), "n": int(inside.sum())})
    return rows


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017), which scikit-learn lacks."""
    rows = calibration_bins(y, p, bins)
    return float(sum(r["n"] * abs(r["p"] - r["share"]) for r in rows) / max(1, len(y)))


def confusion(y: np.ndarray, called: np.ndarray) -> dict[str, int]:
    """Counts of a decision ``called`` (bool) against the truth."""
    (true_negative, false_positive), (false_negative, true_positive) = confusion_matrix(y, called, 2).tolist()
    return {
        "true_positive": true_positive,
        "false_positive": false_positive,
        "false_negative": false_negative,
        "true_negative": true_negative,
    }


def confusion_matrix(y: np.ndarray, called: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) with the truth in rows; ``y`` and ``called`` hold indices of classes."""
    if not len(y):
        return np.zeros((classes, classes), dtype=int)
    return np.asarray(
        sklearn_metrics.confusion_matrix(y.astype(int), called.astype(int), labels=np.arange(classes)), dtype=int
    )


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
    if not len(y):
        return math.nan
    return float(sklearn_metrics.f1_score(y == 1, called.astype(bool), zero_division=np.nan))


def balanced_accuracy(y: np.ndarray, called: np.ndarray) -> float:
    """Mean recall over the classes that occur in ``y``; NaN without rows."""
    if not len(y):
        return math.nan
    return float(sklearn_metrics.recall_score(y, called, labels=np.unique(y), average="macro"))


def macro_f1(y: np.ndarray, called: np.ndarray) -> float:
    """Mean F1 over the classes that occur in ``y``; NaN without rows."""
    if not len(y):
        return math.nan
    return float(sklearn_metrics.f1_score(y, called, labels=np.unique(y), average="macro"))


@dataclass(frozen=True)
class Resampled:
    """A statistic, its values on resamples of the patients (repeats,), and the number of patients."""

    value: float
    values: np.ndarray
    n: int

    def estimate(self) -> Estimate:
        """With the percentile interval of the resamples in which the statistic is defined.

        There is none where that is less than half of them.
        """
        if not math.isfinite(self.value):
            return Estimate(None, None, None, self.n)
        defined = self.values[np.isfinite(self.values)]
        if not len(defined) or len(defined) < len(self.values) / 2:
            return Estimate(self.value, None, None, self.n)
        return Estimate(self.value, *_percentiles(defined), self.n)

    def minus(self, other: Resampled) -> Estimate:
        """The difference to the statistic of another group, resampled by itself; ``n`` counts the patients of both."""
        gaps = self.values - other.values
        gaps = gaps[np.isfinite(gaps)]
        low, high = _percentiles(gaps) if len(gaps) else (None, None)
        value = self.value - other.value
        return Estimate(value if math.isfinite(value) else None, low, high, self.n + other.n)


def resampled(
    statistic: Callable[..., float],
    patients: np.ndarray,
    *arrays: np.ndarray,
    repeats: int | None = None,
    seed: int = 0,
) -> Resampled:
    """A statistic of per-row arrays on resamples of patients, not rows.

    SciPy has no bootstrap by groups: it resamples the patients' numbers here, and the statistic is that of all their
    rows. A statistic that is a mean or a ratio of sums is faster by :func:`ratio`.

    Parameters
    ----------
    statistic : callable
        Takes ``arrays`` and gives a float; NaN where it is not defined.
    patients : ndarray (n,)
        Name of the patient (or lesion) of each row.
    repeats : int, optional
        Number of resamples; :data:`REPEATS` where it is not given, and no interval where it is 0.
    """
    value = float(statistic(*arrays))
    names, inverse = np.unique(patients, return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])

    def of_patients(numbers: np.ndarray) -> float:
        rows = np.concatenate([members[i] for i in numbers])
        return float(statistic(*(a[rows] for a in arrays)))

    def draw(count: int) -> np.ndarray:
        numbers = (np.arange(len(names)),)
        return _distribution(numbers, of_patients, count, seed, vectorized=False)

    return _resampled(value, len(names), repeats, draw)


def bootstrap(
    statistic: Callable[..., float],
    patients: np.ndarray,
    *arrays: np.ndarray,
    repeats: int | None = None,
    seed: int = 0,
) -> Estimate:
    """A statistic with a percentile interval from :func:`resampled` patients."""
    return resampled(statistic, patients, *arrays, repeats=repeats, seed=seed).estimate()


def ratio(numerator: np.ndarray, denominator: np.ndarray, patients: np.ndarray, repeats: int | None = None) -> Estimate:
    """Ratio of two sums over rows with an interval by patient, as of :func:`bootstrap`.

    A mean is a ratio to as many ones, and F1 that of twice the true positives to all that are positive or called. The
    sums of each patient suffice, so SciPy draws all resamples at once.
    """
    names, inverse = np.unique(patients, return_inverse=True)
    above, below = (np.bincount(inverse, weights=rows, minlength=len(names)) for rows in (numerator, denominator))

    def of_sums(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        upper, lower = a.sum(axis=axis), b.sum(axis=axis)
        return np.asarray(np.divide(upper, lower, out=np.full(np.shape(lower), np.nan), where=lower != 0))

    def draw(count: int) -> np.ndarray:
        return _distribution((above, below), of_sums, count, 0, vectorized=True)

    return _resampled(float(of_sums(above, below)), len(names), repeats, draw).estimate()


def mean(values: np.ndarray, patients: np.ndarray, repeats: int | None = None, value: float | None = None) -> Estimate:
    """Mean over rows with an interval by patient; ``value`` is that mean where it is known."""
    estimate = ratio(np.asarray(values, dtype=np.float64), np.ones(len(values)), patients, repeats)
    return estimate if value is None or estimate.value is None else replace(estimate, value=value)


def log_loss_by_patient(y: np.ndarray, p: np.ndarray, patients: np.ndarray, repeats: int | None = None) -> Estimate:
    """:func:`log_loss` with an interval by patient."""
    p = _inside(p)
    losses = -special.xlogy(y, p) - special.xlog1py(1 - y, -p)
    return mean(losses, patients, repeats, log_loss(y, p))


def f1_by_patient(y: np.ndarray, called: np.ndarray, patients: np.ndarray, repeats: int | None = None) -> Estimate:
    """:func:`f1` with an interval by patient."""
    positive, called = y == 1, called.astype(bool)
    return ratio(2.0 * (positive & called), positive.astype(np.float64) + called, patients, repeats)


def _resampled(value: float, patients: int, repeats: int | None, draw: Callable[[int], np.ndarray]) -> Resampled:
    """Without a draw where the statistic is not defined, or where every resample is the one patient again."""
    count = REPEATS if repeats is None else repeats
    if not count or patients < 2 or not math.isfinite(value):
        return Resampled(value, np.full(count, value), patients)
    return Resampled(value, draw(count), patients)


def _distribution(
    data: tuple[np.ndarray, ...], statistic: Callable[..., Any], repeats: int, seed: int, vectorized: bool
) -> np.ndarray:
    """Values of a statistic on resamples of paired data (repeats,)."""
    with warnings.catch_warnings():
        # of resamples in which the statistic is not defined, and which Resampled leaves out
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            data,
            statistic,
            n_resamples=repeats,
            batch=BATCH,
            paired=len(data) > 1,
            vectorized=vectorized,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return np.asarray(drawn.bootstrap_distribution)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def _inside(p: np.ndarray) -> np.ndarray:
    return np.clip(p.astype(np.float64), P_FLOOR, 1 - P_FLOOR)


def dice(truth: np.ndarray, called: np.ndarray) -> float:
    """Dice coefficient of two masks; NaN where both are empty."""
    total = int(truth.sum()) + int(called.sum())
    return 2.0 * int((truth & called).sum()) / total if total else math.nan
