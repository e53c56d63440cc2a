"""A stated detector of hair, because no collection labels it: thin dark lines that a closing fills."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

WIDTH_PX: Final = 200
"""The detector looks at pictures of this width, where a hair is one to two pixels wide."""

LENGTH_PX: Final = 7
DEPTH: Final = 18
"""Levels of red by which a hair is darker than what lies beside it."""

MIN_LINE_PX: Final = 20
MAX_FILLING: Final = 0.15
"""Area of a line over its squared length; a disc has 0.4."""

HAIRY_SHARE: Final = 0.02


def hair_share(rgb: np.ndarray) -> float:
    """Share of the picture that thin dark lines cover (after DullRazor, Lee et al. 1997).

    Black-hat: closings by short lines in four directions fill what is narrower than ``LENGTH_PX``; the largest gain
    must reach ``DEPTH``. Only red is looked at: vessels and most pigment are bright there, hair is not. Pieces
    shorter than ``MIN_LINE_PX``, or too full for a line (dots, globules, network), do not count.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    """
    height = max(1, round(rgb.shape[0] * WIDTH_PX / rgb.shape[1]))
    small = cv2.resize(rgb, (WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    red = np.ascontiguousarray(small[..., 0])
    gains = [cv2.morphologyEx(red, cv2.MORPH_BLACKHAT, line) for line in _lines()]
    found = (np.max(gains, axis=0) >= DEPTH).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    kept = 0
    for index in range(1, count):
        area = int(stats[index, cv2.CC_STAT_AREA])
        length = float(np.hypot(stats[index, cv2.CC_STAT_WIDTH], stats[index, cv2.CC_STAT_HEIGHT]))
        if length >= MIN_LINE_PX and area <= MAX_FILLING * length * length:
            kept += area
    return float(kept / found.size)


def is_hairy(rgb: np.ndarray) -> bool:
    """Whether lines cover at least ``HAIRY_SHARE`` of the picture."""
    return hair_share(rgb) >= HAIRY_SHARE


def _lines() -> list[np.ndarray]:
    flat = np.zeros((LENGTH_PX, LENGTH_PX), np.uint8)
    flat[LENGTH_PX // 2] = 1
    return [flat, flat.T.copy(), np.eye(LENGTH_PX, dtype=np.uint8), np.eye(LENGTH_PX, dtype=np.uint8)[::-1].copy()]
