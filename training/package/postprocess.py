"""What turns a network's logits into the card's probabilities: calibration of slices, score and threshold of a study.

Everything here is fitted on predictions for patients that the network did not see. To measure it honestly it is fitted
without a fold and applied to that fold (:func:`nested`); what ships is fitted on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from training.evaluation import fitting, metrics
from training.package.study_scores import Studies, choose, fit_best_slices, fit_candidate
from worker.packages.card import Calibration
from worker.packages.probabilities import sequence_logits, sigmoid

FLAG_SENSITIVITY = 0.95
EVIDENCE: tuple[tuple[float, int], ...] = tuple((n, k) for n in (0.0, 0.25, 0.33) for k in (4, 12, 28))
"""Ways to hear the mask: share of either neighbour, and number of pixels."""


@dataclass(frozen=True)
class Predictions:
    """Slices in order of (study, position): logits and labels (n, labels; -1 unknown), study, patient, fold.

    Where the network has a mask, ``evidence`` (n, ways) is :func:`worker.packages.probabilities.mask_evidence` in each
    way of :data:`EVIDENCE`, and ``areas`` (n, 2 * heights) is :func:`worker.packages.patient_score.mask_areas`.
    """

    label_names: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    studies: np.ndarray
    patients: np.ndarray
    folds: np.ndarray
    evidence: np.ndarray | None = None
    areas: np.ndarray | None = None

    def rows(self, keep: np.ndarray) -> Predictions:
        """The part where ``keep`` (bool or index) holds."""
        return Predictions(
            self.label_names,
            self.logits[keep],
            self.labels[keep],
            self.studies[keep],
            self.patients[keep],
            self.folds[keep],
            None if self.evidence is None else self.evidence[keep],
            None if self.areas is None else self.areas[keep],
        )

    def study_rows(self) -> list[np.ndarray]:
        """Rows of each study, in order of first appearance."""
        names, first = np.unique(self.studies, return_index=True)
        return [np.flatnonzero(self.studies == name) for name in names[np.argsort(first)]]

    def study_labels(self, column: int = 0) -> np.ndarray:
        """Highest known label of each study; -1 where none is known."""
        return np.asarray([self.labels[rows, column].max() for rows in self.study_rows()])

    def scored(self, p: np.ndarray) -> Studies:
        """The studies for a score of the first label, whose slices have the probabilities ``p`` (n,)."""
        rows = self.study_rows()
        folds = np.asarray([self.folds[r[0]] for r in rows])
        return Studies(rows, folds, self.study_labels(), p, self.areas, self.label_names[0])


@dataclass(frozen=True)
class Postprocess:
    """The fitted numbers, as they go into the card."""

    calibration: Calibration
    aggregation: dict[str, Any]
    flag: float = 0.5
    balanced: float = 0.5
    tried: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, Any] | None = None
    """How the mask speaks in the slices' probabilities, as in the card; None for networks without a mask."""
    sequence: dict[str, Any] | None = None
    """The sequence stage as in the card, where it speaks for the first label's slices."""

    def p_slices(self, predictions: Predictions) -> np.ndarray:
        """Probabilities of the slices (n, labels)."""
        names = predictions.label_names
        bias = np.asarray([self.calibration.bias.get(name, 0.0) for name in names])
        temperature = np.asarray([self.calibration.temperature.get(name, 1.0) for name in names])
        p = sigmoid((predictions.logits - bias) / temperature).astype(np.float64)
        if self.evidence is not None and predictions.evidence is not None:
            mask = predictions.evidence[:, EVIDENCE.index((self.evidence["neighbour"], self.evidence["top"]))]
            for column, name in enumerate(names):
                weights = self.evidence["weights"][name]
                z = weights["own"] * predictions.logits[:, column] + weights["mask"] * mask + weights["bias"]
                p[:, column] = sigmoid(z)
        if self.sequence is not None:
            p[:, 0] = sigmoid(sequence_scores(self.sequence, predictions))
        return p

    def p_studies(self, predictions: Predictions, column: int = 0) -> np.ndarray:
        """Probability of each study, in the order of :meth:`Predictions.study_rows`."""
        studies = predictions.scored(self.p_slices(predictions)[:, column])
        return replace(studies, finding=predictions.label_names[column]).score(self.aggregation)


Fit = Callable[[Predictions], Postprocess]


def fit(predictions: Predictions, sensitivity: float = FLAG_SENSITIVITY) -> Postprocess:
    """Fit slice calibration (Platt), the score of a study, and the two thresholds.

    The flag's threshold is the highest whose sensitivity on these studies is at least ``sensitivity``; it is then
    lowered halfway to the next score below, so that it does not lie on a case.
    """
    return _fitted(predictions, _fit_evidence(predictions), sensitivity)


def fit_label_head(predictions: Predictions) -> Postprocess:
    """:func:`fit` as if there were no mask."""
    return _fitted(predictions, None, FLAG_SENSITIVITY)


def fit_mask(predictions: Predictions) -> Postprocess:
    """:func:`fit` on the mask alone, without the network's own logits."""
    return _fitted(predictions, _fit_evidence(predictions, own=False), FLAG_SENSITIVITY)


def _fitted(predictions: Predictions, evidence: dict[str, Any] | None, sensitivity: float) -> Postprocess:
    if evidence is None:  # a score without the mask hears nothing of its volume either
        predictions = replace(predictions, areas=None)
    first = Postprocess(_slice_calibration(predictions), {}, evidence=evidence)
    return with_studies(first, predictions, first.p_slices(predictions)[:, 0], sensitivity)


def with_studies(
    slices: Postprocess, predictions: Predictions, p: np.ndarray, sensitivity: float = FLAG_SENSITIVITY
) -> Postprocess:
    """Add the studies' score and thresholds, chosen on probabilities ``p`` (n,) of the slices."""
    studies = predictions.scored(p)
    best_slices, tried = fit_best_slices(studies)
    aggregation = fit_candidate(choose(studies), studies, best_slices)
    p_study = studies.score(aggregation)
    flag = between(p_study, fitting.highest_threshold(studies.y, p_study, sensitivity))
    balanced = fitting.youden_threshold(studies.y, p_study)
    return replace(slices, aggregation=aggregation, flag=flag, balanced=balanced, tried=tried)


def sequence_features(predictions: Predictions, ways: Sequence[Sequence[float]]) -> np.ndarray:
    """What the sequence stage hears of a slice: the first label's logit, then the mask in these ways: (n, 1 + ways).

    Raises
    ------
    ValueError
        Where the predictions have no mask.
    """
    if predictions.evidence is None:
        raise ValueError("the sequence stage needs a mask")
    columns = [predictions.evidence[:, EVIDENCE.index((float(way[0]), int(way[1])))] for way in ways]
    return np.column_stack([predictions.logits[:, 0].astype(np.float64), *columns])


def sequence_scores(chosen: dict[str, Any], predictions: Predictions) -> np.ndarray:
    """Logits (n,) of the sequence stage, study by study."""
    features = sequence_features(predictions, chosen["mask"])
    z = np.zeros(len(features))
    for rows in predictions.study_rows():
        z[rows] = sequence_logits(features[rows], chosen)
    return z


def nested(
    predictions: Predictions, folds: Sequence[str], fitter: Fit = fit
) -> list[tuple[str, Predictions, Postprocess]]:
    """Each fold with what was fitted on the others."""
    fits = []
    for fold in folds:
        inside = predictions.folds == fold
        fits.append((fold, predictions.rows(inside), fitter(predictions.rows(~inside))))
    return fits


def _fit_evidence(predictions: Predictions, own: bool = True) -> dict[str, Any] | None:
    """The way with the best slice AUC of the first label; for each label how much its own logit and the mask say."""
    if predictions.evidence is None:
        return None
    known = predictions.labels[:, 0] >= 0
    y = predictions.labels[known, 0]
    scores = [metrics.auc(y, predictions.evidence[known, way]) for way in range(len(EVIDENCE))]
    way = int(np.argmax(np.round(scores, 3)))
    weights = {}
    for column, name in enumerate(predictions.label_names):
        known = predictions.labels[:, column] >= 0
        y = predictions.labels[known, column]
        if not 0 < (y == 1).sum() < len(y):
            weights[name] = {"own": 1.0, "mask": 0.0, "bias": 0.0}
            continue
        features = np.column_stack([predictions.logits[known, column], predictions.evidence[known, way]])
        pair, intercept = fitting.fit_logistic(y, features, np.array([0.3, 0.5]), ridge=1e-3)
        if pair.min() < 0 or not own:
            better = int(np.argmax(pair)) if own else 1
            pair = np.zeros(2)
            part, intercept = fitting.fit_logistic(y, features[:, better : better + 1], np.array([0.5]), ridge=1e-3)
            pair[better] = max(0.0, float(part[0]))
        weights[name] = {"own": float(pair[0]), "mask": float(pair[1]), "bias": intercept}
    return {"neighbour": EVIDENCE[way][0], "top": EVIDENCE[way][1], "weights": weights}


def _slice_calibration(predictions: Predictions) -> Calibration:
    temperature, bias = {}, {}
    for column, name in enumerate(predictions.label_names):
        known = predictions.labels[:, column] >= 0
        temperature[name], bias[name] = fitting.fit_platt(
            predictions.labels[known, column], predictions.logits[known, column]
        )
    return Calibration(temperature=temperature, bias=bias)


def between(scores: np.ndarray, threshold: float) -> float:
    """Halfway between the threshold and the next lower score (or zero)."""
    lower = scores[scores < threshold]
    return float((threshold + (lower.max() if len(lower) else 0.0)) / 2)
