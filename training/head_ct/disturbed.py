"""Heads with what disturbs a scan: streaks of metal, and contours doubled by movement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from training.head_ct.vessels import PlainHead

METAL_HU: Final = 3000.0
STREAKS: Final = 12
REACH_MM: Final = 70.0
"""After this way a streak has faded to a third."""


def with_streaks(head: PlainHead, height_hu: float, slabs: int = 3) -> np.ndarray:
    """A clip of metal in the cavity with bright and dark streaks by turns, on a few slabs: float32 (m, H, W).

    Parameters
    ----------
    height_hu : float
        Of a streak where it begins.
    """
    out = head.hu.copy()
    shown = head.cavities.shown
    first = shown[len(shown) // 3]
    rng = np.random.default_rng(first)
    x0, y0 = head.centre_mm(first)
    x0, y0 = x0 + 25.0, y0 - 10.0
    rows, columns = np.mgrid[: out.shape[1], : out.shape[2]].astype(np.float32) * head.pixel_mm
    x, y = columns - x0, rows - y0
    distance = np.hypot(x, y)
    for slab in range(first, min(first + slabs, len(out))):
        streaks = np.zeros_like(distance)
        for number in range(STREAKS):
            angle = np.pi * (2 * number + rng.uniform(-0.5, 0.5)) / STREAKS
            along, across = x * np.cos(angle) + y * np.sin(angle), x * np.sin(angle) - y * np.cos(angle)
            width = 1.0 + 0.05 * np.maximum(along, 0.0)
            sign = 1.0 if number % 2 else -1.0
            streaks += sign * (along > 0) * np.exp(-0.5 * (across / width) ** 2) * np.exp(-distance / REACH_MM)
        out[slab] = np.where(distance < 2.5, METAL_HU, out[slab] + np.float32(height_hu) * streaks)
    return np.asarray(np.clip(out, -1024.0, 3071.0), np.float32)


def with_movement(head: PlainHead, move_mm: float) -> np.ndarray:
    """Every slab half where it was and half moved to the side and turned a little: float32 (m, H, W)."""
    height, width = head.hu.shape[1:]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 1.0, 1.0)
    turn[:, 2] += np.asarray([0.8, 0.6]) * move_mm / head.pixel_mm
    moved = np.stack(
        [cv2.warpAffine(plane, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=-1000.0) for plane in head.hu]
    )
    return np.asarray((head.hu + moved) / 2, np.float32)


DISTURBED: Final[dict[str, Callable[[PlainHead], np.ndarray]]] = {
    **{f"streaks of metal, {hu:g} HU": (lambda head, hu=hu: with_streaks(head, hu)) for hu in (100.0, 200.0, 400.0)},  # type: ignore[misc]
    **{f"contours doubled by {mm:g} mm": (lambda head, mm=mm: with_movement(head, mm)) for mm in (3.0, 5.0, 8.0)},  # type: ignore[misc]
}
