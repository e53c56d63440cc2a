"""Figures of one binary finding, and of labels that exclude each other, each with N, prevalence and interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.evaluation import metrics

MAX_POINTS = 200


def binary(
    y: np.ndarray, p: np.ndarray, patients: np.ndarray, called: np.ndarray, repeats: int | None = None
) -> dict[str, Any]:
    """Everything about one finding.

    Parameters
    ----------
    y : ndarray (n,)
        1, 0, or -1 for unknown; unknown rows are left out.
    p : ndarray (n,)
        Probabilities.
    patients : ndarray (n,)
        For the bootstrap.
    called : ndarray of bool (n,)
        The decision; its threshold may differ from row to row where it was chosen without the row's fold.
    """
    known = y >= 0
    y, p, patients, called = y[known], p[known], patients[known], called[known]
    row: dict[str, Any] = {
        "n": len(y),
        "patients": len(np.unique(patients)),
        "positive": int(y.sum()),
        "patients_positive": len(np.unique(patients[y == 1])),
        "prevalence": float(y.mean()) if len(y) else None,
    }
    if not len(y):
        return row
    row |= {name: value.as_dict() for name, value in metrics.proportions(y, called).items()}
    row["confusion"] = metrics.confusion(y, called)
    row["auc"] = metrics.bootstrap(metrics.auc, patients, y, p, repeats=repeats).as_dict()
    row["average_precision"] = metrics.bootstrap(metrics.average_precision, patients, y, p, repeats=repeats).as_dict()
    row["f1"] = metrics.f1_by_patient(y, called, patients, repeats).as_dict()
    row["log_loss"] = metrics.log_loss_by_patient(y, p, patients, repeats).as_dict()
    row["brier"] = metrics.mean((p - y) ** 2, patients, repeats, metrics.brier(y, p)).as_dict()
    # no interval: a resample's bins are emptier and its error is larger than that of the whole
    error = metrics.Estimate(metrics.calibration_error(y, p), None, None, row["patients"])
    row["calibration_error"] = error.as_dict()
    row["calibration"] = metrics.calibration_bins(y, p)
    row["curves"] = curves(y, p)
    return row


def decisions(true: np.ndarray, called: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The proportions of :func:`training.evaluation.metrics.proportions`, each as its hits and the rows that it is of.

    For intervals by patient, or by lesion, where one of them has several rows; both arguments are bool (n,).
    """
    return {
        "accuracy": (called == true, np.ones(len(true), dtype=bool)),
        "sensitivity": (called, true),
        "specificity": (~called, ~true),
        "precision": (true, called),
        "false_negative_share_of_positives": (~called, true),
    }


def curves(y: np.ndarray, p: np.ndarray) -> dict[str, list[float]]:
    """ROC and precision-recall points, and sensitivity and specificity by threshold, thinned for the page."""
    if not 0 < y.sum() < len(y):
        return {}
    false, true, thresholds = metrics.roc(y, p)
    recall, precision, _ = metrics.precision_recall(y, p)
    return {
        "false_positive_rate": _thin(false),
        "true_positive_rate": _thin(true),
        "recall": _thin(recall),
        "precision": _thin(precision),
        "threshold": _thin(thresholds[1:]),  # the first one is infinite
        "sensitivity": _thin(true[1:]),
        "specificity": _thin(1 - false[1:]),
    }


def multiclass(
    y: np.ndarray, p: np.ndarray, names: tuple[str, ...], patients: np.ndarray, repeats: int | None = None
) -> dict[str, Any]:
    """Accuracy, balanced accuracy, macro-F1, per-class figures and the confusion matrix of labels that exclude others.

    ``y`` is the index of the true label (n,), -1 for unknown; ``p`` is (n, labels).
    """
    known = y >= 0
    y, p, patients = y[known].astype(int), p[known], patients[known]
    guess = p.argmax(axis=1)
    row: dict[str, Any] = {
        "n": len(y),
        "patients": len(np.unique(patients)),
        "labels": list(names),
        "accuracy": metrics.wilson(int((y == guess).sum()), len(y)).as_dict(),
        "confusion_matrix": metrics.confusion_matrix(y, guess, len(names)).tolist(),
        "prevalence": {name: float(np.mean(y == i)) for i, name in enumerate(names)} if len(y) else {},
    }
    for name, statistic in (("balanced_accuracy", metrics.balanced_accuracy), ("macro_f1", metrics.macro_f1)):
        row[name] = metrics.bootstrap(statistic, patients, y, guess, repeats=repeats).as_dict()
    losses = -np.log(np.clip(p[np.arange(len(y)), y], metrics.P_FLOOR, 1))
    row["log_loss"] = metrics.mean(losses, patients, repeats, metrics.class_log_loss(y, p)).as_dict()
    return row


def always_negative(y: np.ndarray) -> dict[str, Any]:
    """The baseline that calls nothing: accuracy is the share of negatives, log loss the prevalence's entropy."""
    y = y[y >= 0]
    share = float(y.mean()) if len(y) else 0.0
    return {
        "n": len(y),
        "accuracy": metrics.wilson(int((y == 0).sum()), len(y)).as_dict(),
        "sensitivity": metrics.wilson(0, int(y.sum())).as_dict(),
        "log_loss_at_prevalence": metrics.log_loss(y, np.full(len(y), share)),
        "auc": 0.5,
    }


def without_curves(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures as they go into a card: no curves, no bins, floats to four digits."""
    card_figures: dict[str, Any] = {}
    for name, value in figures.items():
        if name in ("curves", "calibration", "calibration_bins"):
            continue
        if isinstance(value, Mapping):
            card_figures[name] = without_curves(value)
        else:
            card_figures[name] = round(value, 4) if isinstance(value, float) else value
    return card_figures


def _thin(values: np.ndarray) -> list[float]:
    index = np.unique(np.linspace(0, len(values) - 1, min(len(values), MAX_POINTS)).round().astype(int))
    return [round(float(v), 5) for v in values[index]]
