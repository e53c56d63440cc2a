"""From logits of validation films to what the card holds: temperature, biases, thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.evaluation import fitting, metrics
from worker.packages.card import Calibration, OperatingPoint
from worker.packages.probabilities import activate

SENSITIVE = 0.97


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
