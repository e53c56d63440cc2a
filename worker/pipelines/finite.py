"""The one check that a model's outputs are finite: NaN or Inf is a failure, never a score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from worker.errors import NonFiniteScore
from worker.pipelines.base import Outcome


def check_finite(name: str, values: ArrayLike) -> None:
    """Raise :class:`NonFiniteScore` with this name if any value is NaN or Inf."""
    if not np.isfinite(values).all():
        raise NonFiniteScore(name)


def check_outputs(outputs: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Raise :class:`NonFiniteScore` with the name of the package that gave NaN or Inf."""
    for package, arrays in outputs.items():
        for array in arrays.values():
            check_finite(package, array)


def check_outcome(outcome: Outcome) -> None:
    """Raise :class:`NonFiniteScore` if a number of the outcome is none.

    That is NaN or Inf, a probability that is not in [0, 1], or a flag without the threshold that it was raised at.
    """
    for finding in outcome.findings:
        if (finding.probability is None) == (finding.value is None):
            raise NonFiniteScore(f"{finding.name}: either a probability or a value")
        if finding.probability is not None:
            _check_probability(finding.name, finding.probability)
        if finding.flagged and finding.threshold is None:
            raise NonFiniteScore(f"{finding.name}: flagged without a threshold")
        if finding.value is not None:
            check_finite(finding.name, finding.value)
    for score in outcome.slice_scores:
        _check_probability(score.finding, score.probability)


def _check_probability(name: str, probability: float) -> None:
    if not 0.0 <= probability <= 1.0:  # NaN lies in no interval
        raise NonFiniteScore(name)
