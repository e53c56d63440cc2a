"""What makes a picture harder to read: hair and dark corners, found by simple detectors as no collection labels them.

Other traits were tried on pictures of 200 x 150 and left out. Ink of a skin marker is in 7 of 866 test pictures of
HAM10000, too few for a figure. Without a learned detector, reflections and bubbles cannot be told from scales, milia
and gaps between hairs, nor the ticks of a ruler from short hairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

CORNER: Final = 0.04
"""Side of a corner, as a share of the picture's width."""

DARK_LEVEL: Final = 80
"""The brightest channel's median in a corner of the tube is below this. So it is in 77 of 866 test pictures of
HAM10000; of 48 that were looked at, four show hair or a dark background there instead of the tube."""

DARK_CORNERS: Final = 2


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
    dark = (np.max(gains, axis=0) >= DEPTH).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    line_px = 0
    for index in range(1, count):
        area = int(stats[index, cv2.CC_STAT_AREA])
        length = float(np.hypot(stats[index, cv2.CC_STAT_WIDTH], stats[index, cv2.CC_STAT_HEIGHT]))
        if length >= MIN_LINE_PX and area <= MAX_FILLING * length * length:
            line_px += area
    return float(line_px / dark.size)


def is_hairy(rgb: np.ndarray) -> bool:
    """Whether lines cover at least ``HAIRY_SHARE`` of the picture."""
    return hair_share(rgb) >= HAIRY_SHARE


def _lines() -> list[np.ndarray]:
    flat = np.zeros((LENGTH_PX, LENGTH_PX), np.uint8)
    flat[LENGTH_PX // 2] = 1
    return [flat, flat.T.copy(), np.eye(LENGTH_PX, dtype=np.uint8), np.eye(LENGTH_PX, dtype=np.uint8)[::-1].copy()]


def has_dark_corners(rgb: np.ndarray) -> bool:
    """Whether the round field of the dermoscope shows: at least two corners are black.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    """
    side = max(2, round(CORNER * rgb.shape[1]))
    bright = rgb.max(axis=2)
    parts = (bright[:side, :side], bright[:side, -side:], bright[-side:, :side], bright[-side:, -side:])
    return sum(float(np.median(part)) < DARK_LEVEL for part in parts) >= DARK_CORNERS


TRAITS: Final[Mapping[str, Callable[[np.ndarray], bool]]] = {"hair": is_hairy, "dark corners": has_dark_corners}


def traits_of(pictures: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Which pictures have each of :data:`TRAITS`: bool (n,) by its name.

    Parameters
    ----------
    pictures : iterable of ndarray (H, W, 3)
        0 to 255, of any type.
    """
    rows = [[detect(np.ascontiguousarray(p.astype(np.uint8))) for detect in TRAITS.values()] for p in pictures]
    table = np.asarray(rows, dtype=bool).reshape(len(rows), len(TRAITS))
    return {name: table[:, column] for column, name in enumerate(TRAITS)}
