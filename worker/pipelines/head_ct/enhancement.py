"""Do the vessels hold contrast agent? Sinuses and arteries, seen in Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from firstread.cores import each
from worker.pipelines.head_ct.cavity import Cavities
from worker.pipelines.head_ct.shapes import Blob, blobs_of, filled, tracks_of, widened

ENHANCED_HU: Final = (100.0, 350.0)
"""Blood without contrast agent has 50 to 70 HU in a vessel and seldom 90 HU outside; what is denser is bone."""

SINUS_MM: Final = 4
"""A sinus is at least this wide. The blurred rim of the skull is narrower."""

SINUS_LENGTH_MM: Final = 20.0
SINUS_REACH_MM: Final = 8.0

ARTERY_MOST_MM2: Final = 60
ARTERY_RISE_HU: Final = 40.0
"""An artery stands out from what surrounds it by this much."""

ARTERY_LENGTH_MM: Final = 20.0
ARTERY_REACH_MM: Final = 7.0
ARTERY_START_MM: Final = 10.0
"""Arteries come up from the base of the skull: so far above the lowest cavity they are met first."""

ARTERIES: Final = 2
"""Calcifications are short, or begin higher up, or are alone."""

_DEEP_MM: Final = 8.0
_FROM_BONE_MM: Final = 9
_LEAST_SLABS: Final = 3


@dataclass(frozen=True)
class Enhancement:
    """How far dense strands can be followed.

    Attributes
    ----------
    sinus_mm : float
        Length across the slabs of the longest broad strand at the wall of the skull.
    arteries : int
        Narrow strands away from bone that rise from the base over ``ARTERY_LENGTH_MM``.
    """

    sinus_mm: float
    arteries: int

    @property
    def suspected(self) -> bool:
        """Whether a contrast agent is likely."""
        return self.sinus_mm >= SINUS_LENGTH_MM or self.arteries >= ARTERIES


def enhancement_of(head: Cavities, step_mm: float) -> Enhancement:
    """Look for dense sinuses and arteries on the slabs that have a cavity.

    The superior sagittal sinus runs across axial slices along the wall of the skull, so that a dense patch stays at its
    place over many of them; where the wall is cut at an angle, its blurred rim makes such patches on one or two.

    Parameters
    ----------
    step_mm : float
        How far a slab stands for along the normal.
    """

    def dense_on(i: int) -> tuple[list[Blob], list[Blob]]:
        if not head.inside[i].any():
            return [], []
        return _at_wall(head.hu[i], head.inside[i]), _deep(head, i)

    dense = each(dense_on, head.used)
    at_wall, deep = [patches for patches, _ in dense], [spots for _, spots in dense]
    walls = [len(track) for track in tracks_of(at_wall, SINUS_REACH_MM) if len(track) >= _LEAST_SLABS]
    strands = [
        track
        for track in tracks_of(deep, ARTERY_REACH_MM)
        if len(track) >= max(_LEAST_SLABS, ARTERY_LENGTH_MM / step_mm) and track[0] * step_mm <= ARTERY_START_MM
    ]
    return Enhancement(sinus_mm=max(walls, default=0) * step_mm, arteries=len(strands))


def _at_wall(plane: np.ndarray, inside: np.ndarray) -> list[Blob]:
    """Dense patches as broad as a sinus, in the cavity or at its wall."""
    low, high = ENHANCED_HU
    dense = (plane >= low) & (plane <= high)
    if not dense.any():
        return []
    dense &= widened(inside, 2)
    broad = cv2.morphologyEx(dense.astype(np.uint8), cv2.MORPH_OPEN, np.ones((SINUS_MM, SINUS_MM), np.uint8))
    return blobs_of(broad, least=SINUS_MM**2)


def _deep(head: Cavities, i: int) -> list[Blob]:
    """Small dense spots away from the wall, and from bone on this slab and its neighbours."""
    plane = head.hu[i]
    inside = filled(head.inside[i])
    spots = (plane >= ENHANCED_HU[0]) & inside
    if spots.any():
        spots &= cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5) >= _DEEP_MM
    if not spots.any():
        return []
    near_bone = widened(np.asarray(head.bone[max(0, i - 1) : i + 2].any(axis=0)), _FROM_BONE_MM)
    rise = cv2.morphologyEx(plane, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8))
    spots &= (rise >= ARTERY_RISE_HU) & ~near_bone
    return blobs_of(spots, least=2, most=ARTERY_MOST_MM2)
