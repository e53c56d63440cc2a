"""What a head's slices and masks say together: the features of a study, and the score that a card makes of them.

``card.parameters["aggregation"]`` holds what was chosen on out-of-fold predictions. With ``weights`` the study's logit
is the sum of the weighed :data:`FEATURES` and the ``intercept``::

    {"smooth": [0.25, 0.5, 0.25], "top_k": 2, "finding": "any", "height": 0.3, "intercept": -1.2,
     "weights": {"slices": 0.6, "persistent": 0.0, "volume": 0.5, "overlap": 0.0}}

Without them it is the mean of the highest slices (:func:`worker.packages.probabilities.study_probability`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

HEIGHTS: Final = (0.2, 0.35, 0.5)
"""Probabilities of the mask above which a pixel counts for a volume."""
FEATURES: Final = ("slices", "persistent", "volume", "overlap")
"""Logit of the best slices; logit of the best two neighbours, the weaker of them; logarithm of the mask's volume, and
of what of it lies over one another in neighbouring slices."""
LEAST_AREA: Final = 1e-3
"""Area, as a share of a slice's crop, that is added before the logarithm: a dozen pixels of a mask of 96 x 96."""
EDGE: Final = 1e-6


def mask_areas(mask: np.ndarray) -> np.ndarray:
    """Areas of the mask of each slice, as shares of its crop: float64 (n, 2 * heights).

    Parameters
    ----------
    mask : ndarray, shape (n, h, w)
        Probabilities in [0, 1] of the slices of one study in spatial order.

    Returns
    -------
    ndarray
        For each of :data:`HEIGHTS` the area above it; then, for each, what of it is above it in the next slice too (0
        for the last one).
    """
    columns, overlaps = [], []
    for height in HEIGHTS:
        above = np.asarray(mask >= height)
        columns.append(_shares(above))
        overlaps.append(np.append(_shares(above[:-1] & above[1:]), 0.0))
    return np.stack([*columns, *overlaps], axis=1).astype(np.float64)


def _shares(masks: np.ndarray) -> np.ndarray:
    return np.array([np.count_nonzero(mask) / mask.size for mask in masks])


def study_features(p_slices: np.ndarray, areas: np.ndarray, best: float, height: float) -> np.ndarray:
    """The :data:`FEATURES` of one study: float64 (4,).

    Parameters
    ----------
    p_slices : ndarray, shape (n,)
        Probabilities of the slices in spatial order.
    areas : ndarray, shape (n, 2 * heights)
        Of :func:`mask_areas`.
    best : float
        The score of the best slices (:func:`worker.packages.probabilities.study_score`).
    height : float
        One of :data:`HEIGHTS`.
    """
    p = np.asarray(p_slices, dtype=np.float64)
    pairs = np.minimum(p[:-1], p[1:]) if len(p) > 1 else p
    column = HEIGHTS.index(height)
    volume, overlap = areas[:, column].sum(), areas[:, len(HEIGHTS) + column].sum()
    return np.asarray(
        [_logit(best), _logit(float(pairs.max())), np.log(LEAST_AREA + volume), np.log(LEAST_AREA + overlap)]
    )


def weighted_logit(features: np.ndarray, aggregation: Mapping[str, Any]) -> float:
    """The study's logit from its features by a card's aggregation that has weights."""
    weights = aggregation["weights"]
    return float(features @ np.asarray([weights[name] for name in FEATURES]) + aggregation["intercept"])


def _logit(p: float) -> float:
    edged = min(max(p, EDGE), 1.0 - EDGE) if p == p else p
    return float(np.log(edged) - np.log1p(-edged))
