"""What is fitted to scores with known labels: a calibration, weights of several scores, and thresholds.

scikit-learn's logistic regression draws weights to zero; here a ridge draws them to what they are without data.
"""

from __future__ import annotations

import math

import numpy as np

from training.evaluation import metrics


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
    false, true, thresholds = metrics.roc(y, p)
    best = int(np.argmax(true - false))
    below = thresholds[best + 1] if best + 1 < len(thresholds) else thresholds[best]
    return float((thresholds[best] + below) / 2) if np.isfinite(thresholds[best]) else float(below)
