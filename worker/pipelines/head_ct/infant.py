"""Does a slice show an infant's head: a thin shell of little density, with gaps, close below the skin?"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from worker.pipelines.head_ct.shapes import filled, hull, largest, shrunk

SHELL_HU: Final = 130.0
"""Of a skull of 1 to 2 mm with 300 to 500 HU, pixels of 1 mm keep more than this."""

AREA_CM2: Final = (30.0, 250.0)
SHELL_MM: Final = 14
"""The skull lies no deeper than this below the skin."""

AROUND: Final = 0.5
"""Share of the directions in which there is bone; sutures and fontanelles are open."""

SOLID: Final = 0.94
LONGEST: Final = 1.6
BRAIN_HU: Final = (-10.0, 75.0)
"""Fluid, brain and fresh blood."""

_SECTORS: Final = 48


def is_infant_slice(plane: np.ndarray, pixel_mm: float) -> bool:
    """Whether bone lies close below a round outline on most sides, and brain and nothing else deeper.

    Parts of a trunk have air, bowels or a spine in their depth, limbs a bone and nothing at the rim.

    Parameters
    ----------
    plane : ndarray of float32, shape (H, W)
        Hounsfield units.
    pixel_mm : float
        Side of a pixel.
    """
    size = (max(8, round(plane.shape[1] * pixel_mm)), max(8, round(plane.shape[0] * pixel_mm)))
    small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA if pixel_mm < 1.0 else cv2.INTER_LINEAR)
    if np.count_nonzero(small > SHELL_HU) < AROUND * _SECTORS:
        return False
    body = cv2.morphologyEx((small > -300.0).astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)) > 0
    outline = filled(largest(body))
    area = float(outline.sum())
    if not AREA_CM2[0] <= area / 100.0 <= AREA_CM2[1] or area < SOLID * float(hull(outline).sum()):
        return False
    points = cv2.findNonZero(outline.astype(np.uint8))
    (_, _), sides, _ = cv2.minAreaRect(points)
    if max(sides) > LONGEST * max(1.0, min(sides)):
        return False
    deep = shrunk(outline, 2 * SHELL_MM)
    if float(deep.sum()) < 0.25 * area:
        return False
    inner = cv2.GaussianBlur(small, (0, 0), 1.5)[deep]
    if float(np.mean((inner > BRAIN_HU[0]) & (inner < BRAIN_HU[1]))) < 0.97 or float(inner.mean()) > 50.0:
        return False
    rows, columns = np.nonzero(outline & ~deep & (small > SHELL_HU))
    middle = np.argwhere(outline).mean(axis=0)
    turns = np.arctan2(rows - middle[0], columns - middle[1]) / (2 * np.pi) % 1.0
    return len(np.unique((turns * _SECTORS).astype(int))) >= AROUND * _SECTORS
