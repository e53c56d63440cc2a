"""Native colour whose chrominance is stored once for two pixels: YBR_FULL_422 and YBR_PARTIAL_422."""

from __future__ import annotations

from typing import Final

import numpy as np
from pydicom.pixels.processing import convert_color_space

SUBSAMPLED: Final = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})

_FROM_PARTIAL: Final = np.array(
    [[1.1644, 0.0, 1.5960], [1.1644, -0.3917, -0.8129], [1.1644, 2.0172, 0.0]], dtype=np.float32
)
"""Inverse of the equations for YBR_PARTIAL_422 (PS3.3 C.7.6.3.1.2 until 2017): Y from 16 to 235, chrominance to 240."""


def rgb_of_pairs(data: bytes, rows: int, columns: int, photometric: str) -> np.ndarray:
    """One frame as uint8 (rows, columns, 3) in RGB.

    Two pixels take four bytes, Y Y CB CR (PS3.3 C.7.6.3.1.2); both get the chrominance that is stored for them.

    Parameters
    ----------
    data : bytes
        Two for each pixel; ``columns`` is even.
    """
    pairs = np.frombuffer(data, np.uint8).reshape(rows, columns // 2, 4)
    ybr = np.empty((rows, columns, 3), np.uint8)
    ybr[:, 0::2, 0], ybr[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    for channel in (1, 2):
        ybr[..., channel] = np.repeat(pairs[..., channel + 1], 2, axis=1)
    if photometric == "YBR_FULL_422":
        return np.asarray(convert_color_space(ybr, "YBR_FULL", "RGB"))
    shifted = ybr.astype(np.float32) - np.array([16, 128, 128], np.float32)
    return np.clip(np.round(shifted @ _FROM_PARTIAL.T), 0, 255).astype(np.uint8)
