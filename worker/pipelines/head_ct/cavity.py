"""The space inside the skull, on the slices where the skull is nothing but a wall around the brain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from firstread.cores import each
from worker.pipelines.head_ct.shapes import closed, disc, filled, hull, larger_parts, largest, shrunk

BONE_HU: Final = 350.0
HIGH_HU: Final = 300.0
HIGH_SHARE: Final = 0.001
"""Of the voxels of a head at least this share lies above ``HIGH_HU``; where not, the values were clipped below."""

_GAP_MM: Final = 15
"""Gaps of a skull up to this width are closed."""

_BONE_PART_MM2: Final = 30
"""Smaller specks above ``BONE_HU`` are calcifications or vessels."""

_WALL_MM: Final = 31
"""Where the skull has a larger gap, no bone lies deeper than half of this below its hull."""

_LEAST_MM2: Final = 2500
_SOLID: Final = 0.95
"""Share of its convex hull that the cavity fills; petrous bones and orbits dent it."""


@dataclass(frozen=True)
class Cavities:
    """Slabs of a head on pixels of 1 mm.

    Attributes
    ----------
    hu : ndarray of float32, shape (m, h, w)
    bone : ndarray of bool, shape (m, h, w)
        Bone, without specks.
    inside : ndarray of bool, shape (m, h, w)
        The cavity; empty on slabs of the base of the skull, and where no cavity was found.
    used : range
        Slabs from the first to the last whose cavity is at least half as large as the largest; empty without any.
    """

    hu: np.ndarray
    bone: np.ndarray
    inside: np.ndarray
    used: range

    @property
    def shown(self) -> list[int]:
        """The used slabs that have a cavity."""
        return [i for i in self.used if self.inside[i].any()]


def has_bone_values(hu: np.ndarray) -> bool:
    """Whether Hounsfield units reach up to bone, and no display window took them away."""
    sample = hu[:, ::4, ::4]
    return bool(np.mean(sample > HIGH_HU) > HIGH_SHARE)


def cavities_of(hu: np.ndarray, pixel_mm: float) -> Cavities:
    """Find the cavity on every slab.

    Parameters
    ----------
    hu : ndarray of float32, shape (m, H, W)
    pixel_mm : float
        Side of a pixel.
    """
    size = (max(8, round(hu.shape[2] * pixel_mm)), max(8, round(hu.shape[1] * pixel_mm)))
    way = cv2.INTER_AREA if pixel_mm < 1.0 else cv2.INTER_LINEAR

    def found(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shown = cv2.resize(plane, size, interpolation=way)
        part = larger_parts(shown > BONE_HU, _BONE_PART_MM2)
        return shown, part, _cavity(shown, part)

    small, bone, inside = (np.stack(planes) for planes in zip(*each(found, hu), strict=True))
    areas = inside.sum(axis=(1, 2))
    large = np.flatnonzero(areas >= 0.5 * max(1, int(areas.max())))
    used = range(int(large[0]), int(large[-1]) + 1) if len(large) else range(0)
    return Cavities(small, bone, inside, used)


def _cavity(plane: np.ndarray, bone: np.ndarray) -> np.ndarray:
    none = np.zeros(plane.shape, bool)
    skull = largest(closed(bone, _GAP_MM))
    around = hull(skull)
    if around.sum() < _LEAST_MM2:
        return none
    inside = largest(filled(skull) & ~bone)
    if inside.sum() < max(_LEAST_MM2, 0.4 * float(around.sum())):
        deep = shrunk(around, _WALL_MM)
        if not deep.any() or float(np.mean(bone[deep])) > 0.004:
            return none
        inside = largest(around & ~bone)
    else:
        inside = largest(cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_OPEN, disc(5)))
        if inside.sum() < _SOLID * max(1, int(hull(inside).sum())):
            return none
    soft = (plane > -20.0) & (plane < 110.0)
    return inside if inside.any() and float(np.mean(soft[inside])) > 0.85 else none
