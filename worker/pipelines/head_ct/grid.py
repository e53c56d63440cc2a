"""From the pixels of a slice in display orientation to square ones, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

SQUARE_WITHIN: Final = 0.01
"""Pixels count as square where their sides differ by no more than this share."""

SOFT_HU: Final = (-20.0, 100.0)
"""A little more than the window that the models see."""

MAX_SIDE: Final = 1024
"""Pixels are made square without letting a side grow beyond this, unless it is as long already."""


@dataclass(frozen=True)
class Grid:
    """From the pixels of a slice in display orientation to square ones, and back.

    Attributes
    ----------
    displayed : tuple of int
        Rows and columns in display orientation, as they come.
    shape : tuple of int
        Rows and columns on square pixels: the same where they are square.
    pixel_mm : tuple of float or None
        Sides of a pixel of ``shape``; None where the header does not say.
    """

    displayed: tuple[int, int]
    shape: tuple[int, int]
    pixel_mm: tuple[float, float] | None

    def squared(self, plane: np.ndarray) -> np.ndarray:
        """Hounsfield units (H, W) on square pixels.

        Only soft tissue is interpolated, and what lies beside it counts as no more than its rim: a mean of bone and
        air would look like blood.
        """
        if self.shape == self.displayed:
            return plane
        nearest = _picked(plane, self.shape)
        soft = np.clip(plane, *SOFT_HU).astype(np.float32)
        between = cv2.resize(soft, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.where((nearest < SOFT_HU[0]) | (nearest > SOFT_HU[1]), nearest, between)

    def stored(self, mask: np.ndarray) -> np.ndarray:
        """A mask on square pixels (..., H, W) on the pixels as they come."""
        return _picked(mask, self.displayed)


def _picked(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if plane.shape[-2:] == shape:
        return plane
    rows, columns = (
        ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(shape, plane.shape[-2:], strict=True)
    )
    return plane[..., rows[:, None], columns[None, :]]


def grid_of(rows: int, columns: int, spacing_mm: Sequence[float] | None, aspect: Sequence[float] | None) -> Grid:
    """Grid of square pixels, as small as the smaller side, for slices in display orientation.

    Parameters
    ----------
    spacing_mm : sequence of 2 floats or None
        Between rows, between columns.
    aspect : sequence of 2 floats or None
        Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7), height and width, which counts where there is no spacing.
    """
    sides = spacing_mm or aspect
    known = None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]))
    if sides is None or abs(sides[0] / sides[1] - 1.0) <= SQUARE_WITHIN:
        return Grid((rows, columns), (rows, columns), known)
    length = rows * sides[0], columns * sides[1]
    side = max(min(sides), max(length) / max(MAX_SIDE, rows, columns))
    shape = max(1, round(length[0] / side)), max(1, round(length[1] / side))
    square = None if known is None else (length[0] / shape[0], length[1] / shape[1])
    return Grid((rows, columns), shape, square)
