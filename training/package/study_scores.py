"""From slices to a study: candidates for the score of a patient, fitted, and chosen between on folds left out in turn.

A score is an ``aggregation`` of the card: the mean of the best slices with its calibration, or weights of the features
of :mod:`worker.packages.patient_score` beside it. :func:`worker.packages.probabilities.study_probability` is both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation import fitting, metrics
from worker.packages.patient_score import FEATURES, HEIGHTS, study_features
from worker.packages.probabilities import logit, sigmoid, study_probability, study_score

SMOOTHINGS: tuple[tuple[float, ...], ...] = ((1.0,), (0.25, 0.5, 0.25), (1.0, 1.0, 1.0))
TOP_K = (1, 2, 3)
BEST_SLICES = "best slices"
CANDIDATES: dict[str, tuple[str, ...]] = {
    BEST_SLICES: (),
    "two neighbours": ("persistent",),
    "volume": ("volume",),
    "volume in two slices": ("overlap",),
    "best slices and volume": ("slices", "volume"),
    "two neighbours and volume in two slices": ("persistent", "overlap"),
    "all of them": FEATURES,
}
"""Name -> features that are weighed; the first is the mean of the best slices alone."""

RIDGE = 2e-2

RULE = (
    "weights of features serve where, on folds that their fit did not see, patient log loss is lowest and patient AUC "
    "not lower than with the best slices alone"
)


@dataclass(frozen=True)
class Studies:
    """Studies with what is known of their slices: rows, fold, and label (1, 0) of each; p and areas of all slices."""

    rows: list[np.ndarray]
    folds: np.ndarray
    y: np.ndarray
    p: np.ndarray
    """Probabilities (n,) of the slices."""
    areas: np.ndarray | None
    """Of :func:`worker.packages.patient_score.mask_areas` (n, 2 * heights); None without a mask."""
    finding: str

    def part(self, keep: np.ndarray) -> Studies:
        """The studies where ``keep`` (bool) holds; slices keep their rows."""
        rows = [r for r, kept in zip(self.rows, keep, strict=True) if kept]
        return Studies(rows, self.folds[keep], self.y[keep], self.p, self.areas, self.finding)

    def score(self, aggregation: dict[str, Any]) -> np.ndarray:
        """Probability of each study."""
        parameters, areas = {"aggregation": aggregation}, self.areas
        return np.asarray(
            [
                study_probability(self.p[r], parameters, self.finding, None if areas is None else areas[r])
                for r in self.rows
            ]
        )

    def can_cross(self) -> bool:
        """Whether every fold can be left out with both kinds of study left."""
        names = np.unique(self.folds)
        left = [self.y[self.folds != name] for name in names]
        return len(names) > 1 and all((y == 1).any() and (y == 0).any() for y in left)


def fit_best_slices(studies: Studies) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Smoothing and number of slices with the highest patient AUC, calibrated; and what was tried."""
    tried: list[dict[str, Any]] = []
    for smooth in SMOOTHINGS:
        for k in TOP_K:
            scores = np.asarray([study_score(studies.p[r], smooth, k) for r in studies.rows])
            temperature, bias = fitting.fit_platt(studies.y, logit(scores))
            tried.append(
                {
                    "smooth": list(smooth),
                    "top_k": k,
                    "auc": metrics.auc(studies.y, scores),
                    "log_loss": metrics.log_loss(studies.y, sigmoid((logit(scores) - bias) / temperature)),
                    "temperature": temperature,
                    "bias": bias,
                }
            )
    best = max(tried, key=lambda row: (round(float(row["auc"]), 3), -float(row["log_loss"])))
    aggregation = {
        "smooth": best["smooth"],
        "top_k": best["top_k"],
        "temperature": {studies.finding: best["temperature"]},
        "bias": {studies.finding: best["bias"]},
    }
    return aggregation, tried


def fit_candidate(name: str, studies: Studies, best_slices: dict[str, Any]) -> dict[str, Any]:
    """The aggregation of a candidate: weights that are not negative, at the height of the mask with the lowest loss.

    ``best_slices`` is what :func:`fit_best_slices` gave for these studies.
    """
    used = CANDIDATES[name]
    if not used or studies.areas is None:
        return best_slices
    fits = [_weighted(studies, best_slices, used, height) for height in HEIGHTS]
    return min(fits, key=lambda fitted: metrics.log_loss(studies.y, studies.score(fitted)))


def _weighted(studies: Studies, aggregation: dict[str, Any], used: Sequence[str], height: float) -> dict[str, Any]:
    assert studies.areas is not None
    smooth, top_k = tuple(aggregation["smooth"]), int(aggregation["top_k"])
    table = np.stack(
        [
            study_features(studies.p[r], studies.areas[r], study_score(studies.p[r], smooth, top_k), height)
            for r in studies.rows
        ]
    )
    left, weights, intercept = list(used), np.zeros(0), 0.0
    while left:
        columns = [FEATURES.index(name) for name in left]
        prior = np.full(len(left), 0.7 / len(left))
        weights, intercept = fitting.fit_logistic(studies.y, table[:, columns], prior, RIDGE)
        if weights.min() >= 0 or len(left) == 1:
            break
        del left[int(weights.argmin())]
    chosen = dict.fromkeys(FEATURES, 0.0) | {name: max(0.0, float(w)) for name, w in zip(left, weights, strict=True)}
    own = {"finding": studies.finding, "height": height, "weights": chosen, "intercept": float(intercept)}
    return {**aggregation, **own}


def crossed(studies: Studies) -> dict[str, np.ndarray]:
    """Probabilities of the studies by each candidate, fitted without their fold."""
    p = {name: np.zeros(len(studies.rows)) for name in CANDIDATES}
    for fold in np.unique(studies.folds):
        inside = studies.folds == fold
        rest, own = studies.part(~inside), studies.part(inside)
        best_slices, _ = fit_best_slices(rest)
        for name, scores in p.items():
            scores[inside] = own.score(fit_candidate(name, rest, best_slices))
    return p


def choose(studies: Studies) -> str:
    """The candidate that serves by :data:`RULE`."""
    if studies.areas is None or not studies.can_cross():
        return BEST_SLICES
    p = crossed(studies)
    auc = {name: metrics.auc(studies.y, scores) for name, scores in p.items()}
    able = [name for name in p if auc[name] >= auc[BEST_SLICES]]
    return min(able, key=lambda name: metrics.log_loss(studies.y, p[name]))
