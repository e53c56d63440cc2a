"""From logits of validation films to what the card holds: temperature, biases, thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from training.chest.figures import BINARY, age_groups, patients_of, share_of
from training.chest.readers import class_of
from training.datasets.base import Item
from training.evaluation import fitting, metrics
from training.evaluation.figures import without_curves
from worker.packages.card import Calibration
from worker.packages.operating_points import (
    LEAST_PREDICTIVE_VALUE,
    AgeGroupPoint,
    OperatingPoint,
    OperatingPointByAge,
    Prevalence,
    Share,
    point_of_unknown_age,
    predictive_value,
)
from worker.packages.probabilities import activate

SENSITIVE = 0.97

SENSITIVITY = 0.95
"""Of the flag of an age group, as far as both specificities stay above these."""
SPECIFICITY_NORMALS = 0.92
SPECIFICITY = 0.80
BY_AGE = (
    f"sensitivity of {SENSITIVITY} for COVID-19 and for other pneumonia alike, as far as specificity stays above "
    f"{SPECIFICITY_NORMALS} on normals and {SPECIFICITY} on all without pneumonia; validation films of the age group"
)
FEWEST_OF_KIND = 10
"""Films of a kind of pneumonia below which it is not asked for by itself: one child is no rate."""
STEP = 1e-5
"""Thresholds are multiples of it."""


def fit_softmax(logits: np.ndarray, allowed: np.ndarray, weights: np.ndarray, labels: Sequence[str]) -> Calibration:
    """Common temperature and a bias a class by maximum likelihood.

    Parameters
    ----------
    logits : ndarray (n, classes)
    allowed : ndarray of 0 and 1 (n, classes)
        Classes that a film may be; several where its germ is not one of them.
    weights : ndarray (n,)
        A film's weight.
    """
    from scipy.optimize import minimize

    mask = np.where(allowed > 0, 0.0, -1e4)

    def loss(theta: np.ndarray) -> float:
        scaled = (logits - np.append(0.0, theta[1:])) * np.exp(-theta[0])
        peak = scaled.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(scaled - peak).sum(axis=1))
        log_allowed = np.log(np.exp(scaled - peak + mask).sum(axis=1) + 1e-30)
        ridge = 0.002 * float((theta**2).sum())
        return float(-np.average(log_allowed - log_total, weights=weights)) + ridge

    theta = minimize(loss, np.zeros(logits.shape[1]), method="L-BFGS-B").x
    bias = np.append(0.0, theta[1:])
    return Calibration(
        temperature={label: round(float(np.exp(theta[0])), 5) for label in labels},
        bias={label: round(float(value), 5) for label, value in zip(labels, bias, strict=True)},
    )


def softmax_p(logits: np.ndarray, calibration: Calibration, labels: Sequence[str]) -> np.ndarray:
    """Calibrated probabilities (n, classes), as ``label_probabilities`` gives them."""
    bias = np.asarray([calibration.bias.get(label, 0.0) for label in labels], dtype=np.float32)
    temperature = np.asarray([calibration.temperature.get(label, 1.0) for label in labels], dtype=np.float32)
    return activate((logits - bias) / temperature, [list(range(len(labels)))])


def binary_points(y: np.ndarray, p: np.ndarray) -> dict[str, OperatingPoint]:
    """``flag`` with the highest sensitivity + specificity, ``sensitive`` with 97 % of the positives called."""
    points = {}
    for name, threshold, why in (
        ("flag", fitting.youden_threshold(y, p), "highest sensitivity + specificity, validation films"),
        ("sensitive", fitting.highest_threshold(y, p, SENSITIVE), "sensitivity of 0.97, validation films"),
    ):
        threshold = float(np.floor(threshold * 1e5) / 1e5)
        row = metrics.proportions(y, p >= threshold)
        points[name] = OperatingPoint(
            finding="pneumonia",
            threshold=threshold,
            chosen_for=why,
            sensitivity=round(row["sensitivity"].value or 0.0, 4),
            specificity=round(row["specificity"].value or 0.0, 4),
            n=len(y),
        )
    return points


def flag_by_age(
    items: Sequence[Item], p: np.ndarray, prevalence: Prevalence | None = None, score: str = ""
) -> OperatingPointByAge | None:
    """The flag of each age group, chosen on the validation films of that group; None where no film's age is known.

    Parameters
    ----------
    p : ndarray (n,)
        Probability of pneumonia of each film; films of which it is not known whether they show it are left out.
    prevalence : Prevalence, optional
        A group in which fewer than :data:`worker.packages.operating_points.LEAST_PREDICTIVE_VALUE` of the flags would
        be right at it gets a hint in place of a flag.
    score : str
        Name of the score in ``chosen_for``, where it is not that of the package alone.
    """
    groups = age_groups(items)
    if not np.isin(groups, ("child", "adult")).any():
        return None
    child, adult = (
        _point_of(
            [item for item, keep in zip(items, groups == group, strict=True) if keep], p[groups == group], prevalence
        )
        for group in ("child", "adult")
    )
    return OperatingPointByAge(
        finding=BINARY,
        chosen_for=f"{score}: {BY_AGE}" if score else BY_AGE,
        groups={"child": child, "adult": adult, "unknown": point_of_unknown_age(child, adult)},
        prevalence=prevalence,
    )


def _point_of(items: Sequence[Item], p: np.ndarray, prevalence: Prevalence | None) -> AgeGroupPoint:
    y = np.asarray([item.labels.get(BINARY, -1.0) for item in items])
    ill, well = y == 1, y == 0
    if not ill.any():
        return AgeGroupPoint(threshold=None, no_flag="no_positives")
    if not well.any():
        return AgeGroupPoint(threshold=None, no_flag="no_negatives")
    normal = well & np.asarray([class_of(item) == "normal" for item in items])
    covid = np.asarray([class_of(item) == "covid19" for item in items])
    kinds = {"covid19": ill & covid, "other_pneumonia": ill & ~covid}
    asked = [p[of] for of in kinds.values() if of.sum() >= FEWEST_OF_KIND] or [p[ill]]
    threshold = _threshold(asked, p[well], p[normal])
    if threshold is None:
        return AgeGroupPoint(threshold=None, no_flag="no_threshold")
    called, patients = p >= threshold, patients_of(items)
    figures = {
        "sensitivity": _share(called, ill, patients),
        "specificity": _share(~called, well, patients),
        "specificity_normals": _share(~called, normal, patients) if normal.any() else None,
        "sensitivity_of": {kind: _share(called, of, patients) for kind, of in kinds.items() if of.any()},
    }
    found = AgeGroupPoint.model_validate({"threshold": threshold, **figures})
    if prevalence is None or found.sensitivity is None or found.specificity is None:
        return found
    value = predictive_value(found.sensitivity.value, found.specificity.value, prevalence.value)
    if value is None or value >= LEAST_PREDICTIVE_VALUE:
        return found.model_copy(update={"predictive_value": value})
    hint = {"threshold": None, "no_flag": "hint", "measured_at": threshold, "predictive_value": value}
    return found.model_copy(update=hint)


def _threshold(ill: Sequence[np.ndarray], well: np.ndarray, normal: np.ndarray) -> float | None:
    """The highest threshold with the sensitivity for every kind, or the lowest above it with both specificities.

    None where it would lie above every score.
    """
    limits = [min(_at_or_below(_reaching(kind, SENSITIVITY)) for kind in ill), _above(well, SPECIFICITY)]
    if len(normal):
        limits.append(_above(normal, SPECIFICITY_NORMALS))
    threshold = max(limits)
    return threshold if any((kind >= threshold).any() for kind in ill) else None


def _reaching(scores: np.ndarray, share: float) -> float:
    return fitting.highest_threshold(np.ones(len(scores)), scores, share)


def _at_or_below(score: float) -> float:
    threshold = round(math.floor(score / STEP) * STEP, 5)
    return threshold if threshold <= score else round(threshold - STEP, 5)


def _above(scores: np.ndarray, share: float) -> float:
    """The lowest threshold that leaves more than a share of the scores below it."""
    needed = math.floor(share * len(scores) + 1e-9) + 1
    score = float(np.sort(scores)[needed - 1])
    threshold = round(math.floor(score / STEP) * STEP, 5)
    while threshold <= score:
        threshold = round(threshold + STEP, 5)
    return threshold


def _share(hits: np.ndarray, of: np.ndarray, patients: np.ndarray) -> Share:
    return Share.model_validate(without_curves(share_of(hits[of], patients[of])))
