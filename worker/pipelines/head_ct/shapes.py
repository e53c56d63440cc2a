"""Shapes on one slice: filled outlines, largest parts, hulls, and blobs followed from slice to slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from worker.packages.preprocessing.parts import label_type, largest_part, without_small_parts


@dataclass(frozen=True)
class Blob:
    """A connected part of a mask: its centre and area, in pixels."""

    x: float
    y: float
    area: int


def disc(diameter: int) -> np.ndarray:
    """A disc as a kernel of OpenCV's morphology."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter)))


def filled(mask: np.ndarray) -> np.ndarray:
    """A bool mask with its holes."""
    padded = _bordered(mask, 1)
    cv2.floodFill(padded, None, (0, 0), 2)
    return np.asarray(padded[1:-1, 1:-1] != 2)


def largest(mask: np.ndarray) -> np.ndarray:
    """Largest connected component of a mask, as bool; all false where there is none."""
    part = largest_part(mask.astype(np.uint8), connectivity=4)
    return np.zeros(mask.shape, bool) if part is None else part.mask.view(bool)


def hull(mask: np.ndarray) -> np.ndarray:
    """Convex hull of a bool mask."""
    out = np.zeros(mask.shape, np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if outlines:
        cv2.fillConvexPoly(out, cv2.convexHull(np.concatenate(outlines)), 1)
    return out > 0


def closed(mask: np.ndarray, diameter: int) -> np.ndarray:
    """A bool mask whose gaps up to a diameter are closed, also where they lie at the border of the picture."""
    grown = widened(_bordered(mask, diameter).view(bool), diameter)
    return shrunk(grown, diameter)[diameter:-diameter, diameter:-diameter]


def _bordered(mask: np.ndarray, width: int) -> np.ndarray:
    """A mask as uint8 with a border of zeros."""
    return np.asarray(cv2.copyMakeBorder(mask.astype(np.uint8), width, width, width, width, cv2.BORDER_CONSTANT))


def widened(mask: np.ndarray, diameter: int) -> np.ndarray:
    """A bool mask grown by half a diameter."""
    return ~shrunk(~mask, diameter)


SMALL: Final = {2: disc(3), 3: np.ones((3, 3), np.uint8)}
"""Neighbours within half of a small diameter: an erosion by them gives what the distances do, many times faster."""


def shrunk(mask: np.ndarray, diameter: int) -> np.ndarray:
    """A bool mask without what lies within half a diameter of its rim."""
    if diameter in SMALL:
        return np.asarray(cv2.erode(mask.astype(np.uint8), SMALL[diameter])).view(bool)
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(depth > diameter / 2.0)


def larger_parts(mask: np.ndarray, area: int) -> np.ndarray:
    """The connected parts of a mask that have at least an area."""
    return without_small_parts(mask.astype(np.uint8), area).view(bool)


def blobs_of(mask: np.ndarray, least: int, most: int | None = None) -> list[Blob]:
    """Connected parts of a mask whose area lies between two bounds."""
    if not mask.any():
        return []
    whole = mask.astype(np.uint8)
    _, _, stats, centres = cv2.connectedComponentsWithStats(whole, connectivity=8, ltype=label_type(whole))
    found = [Blob(float(c[0]), float(c[1]), int(s[cv2.CC_STAT_AREA])) for s, c in zip(stats, centres, strict=True)]
    return [blob for blob in found[1:] if blob.area >= least and (most is None or blob.area <= most)]


def tracks_of(slices: Sequence[Sequence[Blob]], reach: float) -> list[range]:
    """In which slices in a row each blob is met again, no further away than ``reach`` from slice to slice."""
    ended: list[range] = []
    live: list[tuple[Blob, int]] = []
    for place, blobs in enumerate(slices):
        followed: set[int] = set()
        grown: list[tuple[Blob, int]] = []
        for blob in blobs:
            near = [(float(np.hypot(old.x - blob.x, old.y - blob.y)), k) for k, (old, _) in enumerate(live)]
            distance, k = min(near, default=(float("inf"), -1))
            if distance <= reach:
                followed.add(k)
            grown.append((blob, live[k][1] if distance <= reach else place))
        ended += [range(first, place) for k, (_, first) in enumerate(live) if k not in followed]
        live = grown
    return ended + [range(first, len(slices)) for _, first in live]
