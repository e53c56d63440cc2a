"""Do the pixels show a head: bone around brain?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from worker.pipelines.head_ct.infant import is_infant_slice
from worker.pipelines.head_ct.shapes import filled, hull, largest

_SMALL: Final = 128
_WINDOWED_LOW_HU: Final = -200.0
_WINDOWED_HIGH_HU: Final = 250.0
"""Real heads hold air near -1000 and bone above 1000; values that end within these bounds passed a display window."""


@dataclass(frozen=True)
class Likeness:
    """How many slices show a closed skull around brain, one with a gap (``open``) or of an infant (``thin``).

    ``plausible`` are those that have at least a head's size.
    """

    rings: int
    open: int
    plausible: int
    n: int
    thin: int = 0

    @property
    def certain(self) -> bool:
        """Enough closed rings for a head: a fifth of the slices, and three where there are as many."""
        return self.rings >= max(1, min(3, self.n), round(0.2 * self.n))

    def possible(self, forced: bool) -> bool:
        """Worth a score with a warning.

        After a craniectomy no ring is closed, an infant's skull is thin and its sutures are open, and a single slice
        may be cut anywhere.
        """
        if self.rings + self.open + self.thin >= 0.3 * self.n:
            return True
        return forced and self.plausible >= 0.5 * self.n


def likeness_of(hu: np.ndarray, pixel_mm: float) -> Likeness:
    """Look for a skull with brain inside.

    A slice counts as a ring where bone encloses one space of 25 to 260 cm2 that is soft tissue for the most part and
    fills much of the body's outline, and the outline is no larger than a head; as open where that is true of the
    space within the bone's convex hull and the bone lies at its rim. It is plausible where it has at least the size
    and the tissue. Where rings are too few for a head, the slices that show neither are looked at for an infant's
    skull (:mod:`worker.pipelines.head_ct.infant`).

    Parameters
    ----------
    hu : ndarray of float32, shape (n, H, W)
    pixel_mm : float
        Side of a pixel.
    """
    scale = max(1.0, max(hu.shape[1:]) / _SMALL)
    size = (max(8, round(hu.shape[2] / scale)), max(8, round(hu.shape[1] / scale)))
    cm2 = (pixel_mm * hu.shape[1] / size[1] / 10.0) * (pixel_mm * hu.shape[2] / size[0] / 10.0)
    kinds = []
    window = display_window_of(hu)
    for plane in hu:
        full = np.clip(plane, -1000.0, 1500.0) if window is None else _widened(plane, *window)
        small = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
        kinds.append(_slice_likeness(small, cm2))
    rings, gaps, plausible = (sum(kind) for kind in zip(*kinds, strict=True))
    found = Likeness(rings, gaps, plausible, len(hu))
    if found.certain or window is not None:
        return found
    neither = [plane for plane, (ring, is_open, _) in zip(hu, kinds, strict=True) if not ring and not is_open]
    return replace(found, thin=sum(is_infant_slice(plane, pixel_mm) for plane in neither))


def display_window_of(hu: np.ndarray) -> tuple[float, float] | None:
    """Bounds of a display window that was burnt into the values (a series made from pictures), or None."""
    some = hu[:, ::16, ::16]
    if some.min() < _WINDOWED_LOW_HU or some.max() > _WINDOWED_HIGH_HU:
        return None
    low, high = float(hu.min()), float(hu.max())
    return (low, high) if low >= _WINDOWED_LOW_HU and high <= _WINDOWED_HIGH_HU and high > low else None


def _widened(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Windowed values with what saturates put back to where air and bone lie."""
    margin = 0.03 * (high - low)
    back = np.where(plane >= high - margin, np.float32(1000.0), plane)
    return np.where(plane <= low + margin, np.float32(-1000.0), back).astype(np.float32)


def _slice_likeness(small: np.ndarray, cm2: float) -> tuple[bool, bool, bool]:
    """Whether a slice is a ring, an open ring (and no ring), plausible."""
    body = cv2.morphologyEx((small > -300.0).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    outline = filled(largest(body))
    body_cm2 = float(np.count_nonzero(outline)) * cm2
    if not 20.0 <= body_cm2 <= 480.0:
        return False, False, False
    soft = (small > -20.0) & (small < 110.0)
    bone = (small > 250.0) & outline
    has_air = bool(np.mean(small < -300.0) > 0.02)
    plausible = has_air and float(np.mean(soft[outline])) > 0.3 and float(np.mean(bone[outline])) > 0.02
    closed = cv2.morphologyEx(bone.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    if _brain_fills(largest(filled(closed > 0) & (closed == 0)), soft, body_cm2, cm2):
        return True, False, True
    skull = largest(closed)
    around = hull(skull)
    inner = cv2.erode(around.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    rim = float(np.mean(bone[inner])) < 0.08 if inner.any() else False
    is_open = rim and plausible and _brain_fills(around & ~skull, soft, body_cm2, cm2)
    return False, is_open, plausible


def _brain_fills(inside: np.ndarray, soft: np.ndarray, body_cm2: float, cm2: float) -> bool:
    inside_cm2 = float(np.count_nonzero(inside)) * cm2
    if not 25.0 <= inside_cm2 <= 260.0:
        return False
    return float(np.mean(soft[inside])) > 0.7 and inside_cm2 > 0.3 * body_cm2
