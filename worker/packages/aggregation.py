"""From the probabilities of slices to the probability of a study: the same function in training and serving.

``card.parameters["aggregation"]`` holds what was chosen on out-of-fold predictions::

    {"smooth": [0.25, 0.5, 0.25], "top_k": 2, "temperature": {"any": 1.3}, "bias": {"any": 0.4}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

EDGE = 1e-6


def study_probability(p_slices: np.ndarray, parameters: Mapping[str, Any], finding: str = "any") -> float:
    """Probability that the study has the finding.

    The slices' probabilities are smoothed along the study, the mean of the ``top_k`` highest is taken, and that score
    is calibrated.

    Parameters
    ----------
    p_slices : ndarray, shape (n,)
        Calibrated probabilities of the slices in spatial order.
    parameters : mapping
        ``card.parameters``; without ``aggregation`` the highest slice speaks for the study.

    Returns
    -------
    float
        In [0, 1]; NaN where a slice's probability is NaN.

    Raises
    ------
    ValueError
        Without slices.
    """
    chosen = parameters.get("aggregation", {})
    score = study_score(p_slices, tuple(chosen.get("smooth", (1.0,))), int(chosen.get("top_k", 1)))
    temperature = float(chosen.get("temperature", {}).get(finding, 1.0))
    bias = float(chosen.get("bias", {}).get(finding, 0.0))
    edged = min(max(score, EDGE), 1.0 - EDGE) if score == score else score
    logit = float(np.log(edged) - np.log1p(-edged))
    return float(1.0 / (1.0 + np.exp(-(logit - bias) / temperature)))


def study_score(p_slices: np.ndarray, smooth: tuple[float, ...], top_k: int) -> float:
    """The score before calibration: smoothing (edges repeated), then the mean of the highest ``top_k``."""
    p = np.asarray(p_slices, dtype=np.float64).ravel()
    if not p.size:
        raise ValueError("a study without slices has no probability")
    if len(smooth) > 1:
        half = len(smooth) // 2
        kernel = np.asarray(smooth, dtype=np.float64)
        p = np.convolve(np.pad(p, half, mode="edge"), kernel[::-1] / kernel.sum(), mode="valid")
    k = min(max(1, top_k), p.size)
    return float(np.mean(np.sort(p)[-k:]))
