"""Scores of all folds in one table, each fold's by what was fitted on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.package.postprocess import Fit, Predictions, fit, nested


@dataclass(frozen=True)
class Nested:
    """Slices ``p`` (n, labels); studies ``p_study``, ``y``, ``patients``, ``flagged``, ``balanced`` (m,); choices.

    Studies stand in the order of :meth:`Predictions.study_rows`; ``chosen`` is what each fold was given by the others.
    """

    p: np.ndarray
    p_study: np.ndarray
    y: np.ndarray
    patients: np.ndarray
    flagged: np.ndarray
    balanced: np.ndarray
    chosen: dict[str, Any]

    @classmethod
    def of(
        cls,
        table: Predictions,
        p: np.ndarray,
        p_study: np.ndarray,
        flagged: np.ndarray,
        balanced: np.ndarray,
        chosen: dict[str, Any],
    ) -> Nested:
        """With truth and patients of the table's studies."""
        patients = np.asarray([table.patients[rows[0]] for rows in table.study_rows()])
        return cls(p, p_study, table.study_labels(), patients, flagged, balanced, chosen)

    def of_part(self, inside: np.ndarray, table: Predictions) -> Nested:
        """The part on whole studies whose rows are ``inside`` (bool, n)."""
        studies_inside = np.asarray([bool(inside[rows[0]]) for rows in table.study_rows()])
        return Nested(
            self.p[inside],
            self.p_study[studies_inside],
            self.y[studies_inside],
            self.patients[studies_inside],
            self.flagged[studies_inside],
            self.balanced[studies_inside],
            self.chosen,
        )


def measure(table: Predictions, folds: Sequence[str], fitter: Fit = fit) -> Nested:
    """Fit without each fold in turn and score it."""
    studies = table.study_rows()
    place = {str(table.studies[rows[0]]): i for i, rows in enumerate(studies)}
    p, p_study = np.zeros(table.logits.shape), np.zeros(len(studies))
    flagged, balanced = np.zeros(len(studies), bool), np.zeros(len(studies), bool)
    chosen = {}
    for fold, part, fitted in nested(table, folds, fitter):
        p[table.folds == fold] = fitted.p_slices(part)
        at = [place[str(part.studies[rows[0]])] for rows in part.study_rows()]
        scores = fitted.p_studies(part)
        p_study[at], flagged[at], balanced[at] = scores, scores >= fitted.flag, scores >= fitted.balanced
        chosen[fold] = {
            "aggregation": fitted.aggregation,
            "flag": fitted.flag,
            "balanced": fitted.balanced,
            "slices_by": "stacking" if fitted.sequence is None else "sequence",
        }
    return Nested.of(table, p, p_study, flagged, balanced, chosen)
