"""Vessels with contrast agent, and calcifications, painted into plain heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from worker.pipelines.head_ct.cavity import BONE_HU, Cavities

Point = tuple[float, float, float]
Tube = tuple[Point, Point, float]
"""From and to, in mm (to the right of the picture, down, towards the vertex), and the diameter in mm."""

SUBSLABS: Final = 5
"""Heights within a slab at which a tube is drawn, so that one that lies flat fills its slab in part."""


@dataclass(frozen=True)
class PlainHead:
    """A plain head and its cavity.

    ``hu`` is float32 (m, H, W), ``pixel_mm`` the side of a pixel, ``step_mm`` the distance of the slabs.
    """

    hu: np.ndarray
    pixel_mm: float
    step_mm: float
    cavities: Cavities

    @property
    def base(self) -> int:
        """The lowest slab with a cavity: the circle of Willis lies about there."""
        return self.cavities.shown[0]

    def centre_mm(self, slab: int) -> tuple[float, float]:
        """Centre of the cavity on a slab."""
        rows, columns = np.nonzero(self.cavities.inside[slab])
        return float(columns.mean()), float(rows.mean())


def _both(tubes: Sequence[Tube]) -> list[Tube]:
    """Tubes of both sides."""
    return [
        ((side * a[0], a[1], a[2]), (side * b[0], b[1], b[2]), width) for a, b, width in tubes for side in (-1.0, 1.0)
    ]


ARTERIES: Final[tuple[Tube, ...]] = (
    *_both(
        [
            ((8, 0, -12), (8, 0, 0), 4.0),  # internal carotid
            ((8, 0, 0), (20, -2, 1), 3.0),  # middle cerebral, horizontal
            ((20, -2, 1), (32, 2, 3), 3.0),
            ((32, 2, 3), (36, 6, 15), 2.2),  # its branches on the insula
            ((36, 6, 15), (38, 12, 28), 2.0),
            ((8, 0, 0), (1.5, -10, 2), 2.4),  # anterior cerebral
            ((1.5, -10, 2), (1.5, -22, 15), 2.4),
            ((1.5, -22, 15), (1.5, -15, 32), 2.2),
            ((0, 14, 0), (10, 16, 1), 2.4),  # posterior cerebral
            ((10, 16, 1), (18, 28, 3), 2.2),
        ]
    ),
    ((0, 12, -20), (0, 14, 0), 3.6),  # basilar
)
"""The circle of Willis and its branches, from its middle; diameters as anatomy gives them."""

CALCIFICATIONS: Final[tuple[Tube, ...]] = (
    ((0, 22, 10), (0, 23, 16), 6.0),  # pineal gland
    *_both([((20, 34, 18), (23, 38, 29), 5.0)]),  # choroid plexus
    *_both([((17, 2, 12), (17, 5, 17), 4.0)]),  # globus pallidus
    ((0, -48, 45), (0, -44, 70), 2.5),  # falx
)
"""What an old head without contrast agent holds, from the middle of the circle of Willis."""


def with_tubes(head: PlainHead, tubes: Sequence[Tube], value_hu: float) -> np.ndarray:
    """The head with tubes of one value, partial where they fill a voxel in part: float32 (m, H, W)."""
    out = head.hu.copy()
    x0, y0 = head.centre_mm(head.base)
    y0 -= 8.0
    for slab in range(len(out)):
        share = np.zeros(out.shape[1:], np.float32)
        for part in range(SUBSLABS):
            z = (slab - head.base + (part + 0.5) / SUBSLABS - 0.5) * head.step_mm
            level = np.zeros(share.shape, bool)
            for tube in tubes:
                _cut_of(tube, z, (x0, y0), head.pixel_mm, level)
            share += level.astype(np.float32) / SUBSLABS
        if share.any():
            out[slab] = _mixed(out[slab], share, value_hu, 0.5 / head.pixel_mm)
    return out


def _cut_of(tube: Tube, z: float, middle: tuple[float, float], pixel_mm: float, level: np.ndarray) -> None:
    """Set the pixels of a level that a tube meets."""
    a, b, width = np.asarray(tube[0], float), np.asarray(tube[1], float), tube[2]
    if not min(a[2], b[2]) - width / 2 < z < max(a[2], b[2]) + width / 2:
        return
    reach = width / 2 + pixel_mm
    low = np.minimum(a, b)[:2] + middle - reach
    high = np.maximum(a, b)[:2] + middle + reach
    left, top = (max(0, int(v / pixel_mm)) for v in low)
    right, bottom = (int(v / pixel_mm) + 2 for v in high)
    rows, columns = np.mgrid[top : min(bottom, level.shape[0]), left : min(right, level.shape[1])]
    points = np.stack([columns * pixel_mm - middle[0], rows * pixel_mm - middle[1], np.full(rows.shape, z)], -1) - a
    along = np.clip(points @ (b - a) / float((b - a) @ (b - a)), 0.0, 1.0)
    away = np.linalg.norm(points - along[..., None] * (b - a), axis=-1)
    level[top : top + rows.shape[0], left : left + rows.shape[1]] |= away < width / 2


def with_sinus(head: PlainHead, value_hu: float) -> np.ndarray:
    """The head with the superior sagittal sinus, 9 mm wide behind and 5 mm in front: float32 (m, H, W)."""
    out = head.hu.copy()
    for slab in head.cavities.shown:
        inside = head.cavities.inside[slab]
        middle = np.asarray(head.centre_mm(slab))
        axis = _long_axis(inside)
        for direction, width_mm, depth_mm in ((axis, 9.0, 8.0), (-axis, 5.0, 4.0)):
            wall = _wall(inside, middle, direction)
            rows, columns = np.mgrid[: out.shape[1], : out.shape[2]].astype(np.float32) * head.pixel_mm
            x, y = columns - wall[0], rows - wall[1]
            deep = -(x * direction[0] + y * direction[1])
            beside = np.abs(x * direction[1] - y * direction[0])
            wedge = (
                (deep > -1) & (deep < depth_mm) & (beside < width_mm / 2 * (1 - 0.7 * np.clip(deep / depth_mm, 0, 1)))
            )
            out[slab] = _mixed(out[slab], wedge.astype(np.float32), value_hu, 0.6 / head.pixel_mm)
    return out


def _long_axis(inside: np.ndarray) -> np.ndarray:
    """Unit vector from the middle of a cavity to the back of the head; straight down where it is not clear."""
    rows, columns = np.nonzero(inside)
    _, vectors = np.linalg.eigh(np.cov(np.stack([columns, rows]).astype(float)))
    axis = vectors[:, 1] * np.sign(vectors[1, 1] or 1.0)
    return axis if axis[1] > 0.7 else np.asarray([0.0, 1.0])


def _wall(inside: np.ndarray, middle: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Where a ray from the middle leaves the cavity."""
    place = middle.copy()
    while True:
        column, row = (round(float(v)) for v in place)
        in_picture = 0 <= row < inside.shape[0] and 0 <= column < inside.shape[1]
        if not in_picture or not inside[row, column]:
            return place
        place = place + 0.5 * direction


def _mixed(plane: np.ndarray, share: np.ndarray, value_hu: float, blur_px: float) -> np.ndarray:
    """A plane with a share of another value; bone stays."""
    soft = cv2.GaussianBlur(share, (0, 0), max(0.3, blur_px))
    return np.where(plane > BONE_HU, plane, plane * (1 - soft) + np.float32(value_hu) * soft).astype(np.float32)


PAINTED: Final[dict[str, Callable[[PlainHead, float], np.ndarray]]] = {
    "sagittal sinus": with_sinus,
    "circle of Willis": lambda head, hu: with_tubes(head, ARTERIES, hu),
    "both": lambda head, hu: with_tubes(
        PlainHead(with_sinus(head, hu), head.pixel_mm, head.step_mm, head.cavities), ARTERIES, hu
    ),
}
