"""Do these pixels show a frontal chest, upright and bright for dense? A small rule on a 24 x 24 picture of the film.

The rule is a network with one hidden layer on principal components of thousands of chest films (linear and squared, so
that it asks "is it like them?" as well as "is it unlike the others?"), on what the components leave unexplained, and on
the correlation with the mean child and the mean adult film. :mod:`training.chest.gate` makes its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.packages.preprocessing.collimation import bordered

SIDE: Final = 24
RULE_FILE: Final = "likeness.npz"
CERTAIN: Final = -0.8
"""Log odds from which a film passes without a question; about 1 in 400 films of the training collections lies below."""

POSSIBLE: Final = -1.4
"""Log odds below which a film is refused even where a person asked for the pipeline."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Rule:
    """Numbers of the rule: ``means`` (2, d), ``components`` (k, d), ``variances`` (k), and the two layers' weights."""

    means: Array
    components: Array
    variances: Array
    hidden: Array
    hidden_offset: Array
    weights: Array
    offset: float

    def log_odds(self, thumbs: Array) -> Array:
        """Log odds of chest for thumbs (n, SIDE * SIDE): float32 (n,)."""
        x = features(thumbs, self.means, self.components, self.variances)
        return np.asarray(np.maximum(x @ self.hidden + self.hidden_offset, 0.0) @ self.weights + self.offset)


@lru_cache(maxsize=1)
def rule() -> Rule:
    """The shipped rule."""
    with (files(__package__) / RULE_FILE).open("rb") as handle, np.load(handle) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in stored.files}
    offset = float(arrays.pop("offset"))
    return Rule(**arrays, offset=offset)


def likeness(film: np.ndarray) -> float:
    """Log odds that a film (H, W) of any unit shows an upright frontal chest, bright for dense; its border apart."""
    top, left, height, width = bordered(film)
    return float(rule().log_odds(thumb(film[top : top + height, left : left + width])[None])[0])


def thumb(film: np.ndarray) -> Array:
    """The film squeezed to SIDE x SIDE and each value replaced by its rank, so that no exposure or window matters.

    Returns
    -------
    ndarray of float32, shape (SIDE * SIDE,), of mean 0 and variance 1
    """
    small = cv2.resize(film.astype(np.float32, copy=False), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    ranks = np.argsort(np.argsort(small, kind="stable"), kind="stable")
    return np.asarray((ranks / (SIDE * SIDE - 1) - 0.5) * np.sqrt(12.0), dtype=np.float32)


def features(thumbs: Array, means: Array, components: Array, variances: Array) -> Array:
    """Features of thumbs (n, d): scores, their squares, the unexplained rest, correlations; (n, 2k + 4)."""
    centred = thumbs - means.mean(axis=0)
    scores = centred @ components.T
    rest = np.sqrt(((centred - scores @ components) ** 2).mean(axis=1, keepdims=True))
    z = scores / np.sqrt(variances)
    unit = means - means.mean(axis=1, keepdims=True)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    correlation = thumbs @ unit.T / np.linalg.norm(thumbs, axis=1, keepdims=True)
    return np.concatenate([z, z**2, rest, rest**2, correlation], axis=1).astype(np.float32)
