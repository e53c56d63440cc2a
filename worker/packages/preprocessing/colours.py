"""Pictures as under one light: the colour of the light is estimated from the picture itself and taken away."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.packages.card import ColourConstancy

DARKEST: Final = 0.2
"""A pixel whose brightest channel is below this says nothing of the light: the tube of a dermoscope, hair."""

BRIGHTEST: Final = 0.97
"""A pixel whose darkest channel reaches this is a reflection, and saturated."""

LEAST: Final = 0.05
"""Share of a picture's pixels that must be left to estimate the light from; else the picture stays as it is."""


def light_of(picture: NDArray[np.float32], norm: float) -> NDArray[np.float32] | None:
    """Colour of the light (3,), the Minkowski mean of each channel; None where nearly all is black or saturated.

    A norm of 1 is grey world (Buchsbaum 1980), 6 the shades of grey of Finlayson and Trezzi 2004, in which bright skin
    counts for more than the lesion.

    Parameters
    ----------
    picture : ndarray of float32, shape (H, W, 3)
        In [0, 1].
    """
    kept = (picture.max(axis=-1) >= DARKEST) & (picture.min(axis=-1) < BRIGHTEST)
    if float(kept.mean()) < LEAST:
        return None
    values = picture[kept].astype(np.float64)
    return np.asarray((values**norm).mean(axis=0) ** (1.0 / norm), dtype=np.float32)


def level_light(picture: NDArray[np.float32], constancy: ColourConstancy) -> NDArray[np.float32]:
    """The picture (H, W, 3) in [0, 1] with its light brought to the reference, each channel by a factor (von Kries)."""
    light = light_of(picture, constancy.norm)
    if light is None:
        return picture
    reference = np.asarray(constancy.reference, dtype=np.float32)
    if not constancy.exposure:
        reference = reference * (light.mean() / reference.mean())
    return np.asarray(np.clip(picture * (reference / light), 0.0, 1.0), dtype=np.float32)
