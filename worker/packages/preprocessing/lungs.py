"""A simple lung mask of a frontal film: dark regions on both sides, closed over, mirrored where one side is white.

It is made without training: a threshold between the film's dark and bright tissue, the two best dark regions left and
right that do not touch the film's background, their convex hulls, and where a lung is hidden by consolidation or
effusion the mirror image of the other one. Where neither is found, an average lung field stands in (``measured`` is
false). It says roughly where the lungs are; it is no segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.packages.preprocessing.collimation import bordered

SIDE: Final = 192
MIN_LUNG: Final = 0.02
MAX_LUNG: Final = 0.22
"""Share of the film that one lung can have."""

MARGIN_PX: Final = 5
_AVERAGE: Final = ((0.31, 0.46, 0.14, 0.30), (0.69, 0.46, 0.14, 0.30))
"""Centre x, y and half axes of an average right and left lung field, as shares of the film."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LungField:
    """Lung mask of one film.

    Attributes
    ----------
    mask : ndarray of bool, shape (SIDE, SIDE)
        Both lungs on the film squeezed to a square.
    middle : float
        Column of the spine as a share of the width.
    top, bottom : float
        First and last row of the field as shares of the height.
    measured : bool
        False where no lung was found and the average field stands in.
    """

    mask: Mask
    middle: float
    top: float
    bottom: float
    measured: bool


def lung_field(film: np.ndarray) -> LungField:
    """Lung mask of a film (H, W) of any unit, bright for dense; it is looked for inside the film's border."""
    shape = film.shape[:2]
    top, left, height, width = bordered(film)
    inner = _field(film[top : top + height, left : left + width])
    if (height, width) == shape:
        return inner
    down, across = height / shape[0], width / shape[1]
    y, x = ((np.arange(SIDE) + 0.5) / SIDE * n for n in shape)
    rows, columns = ((y - top) / height * SIDE).astype(int), ((x - left) / width * SIDE).astype(int)
    inside = ((y >= top) & (y < top + height))[:, None] & ((x >= left) & (x < left + width))[None, :]
    mask = inner.mask[np.clip(rows, 0, SIDE - 1)][:, np.clip(columns, 0, SIDE - 1)] & inside
    first = top / shape[0]
    return LungField(
        mask,
        left / shape[1] + inner.middle * across,
        first + inner.top * down,
        first + inner.bottom * down,
        inner.measured,
    )


def _field(film: np.ndarray) -> LungField:
    small = _levelled(cv2.resize(film.astype(np.float32, copy=False), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    middle = _middle(small)
    right, left = (_lung(small, middle, side) for side in (0, 1))
    measured = right is not None or left is not None
    if not measured:
        mask = _average()
    else:
        right, left = _balanced(right, left, middle)
        mask = (right | left) & _reach(middle)
    rows = np.flatnonzero(mask.any(axis=1))
    return LungField(mask, middle / SIDE, float(rows[0] / SIDE), float((rows[-1] + 1) / SIDE), measured)


def _levelled(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (1.0, 99.0))
    unit = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    eight = cv2.createCLAHE(2.0, (4, 4)).apply((unit * 255).astype(np.uint8))
    return np.asarray(cv2.GaussianBlur(eight, (0, 0), 2.0), dtype=np.float32)


def _middle(small: np.ndarray) -> int:
    """Column of the spine: the brightest one near the middle in the film's upper two thirds."""
    profile = cv2.GaussianBlur(small[SIDE // 6 : 2 * SIDE // 3].mean(axis=0)[None], (0, 0), SIDE / 24)[0]
    low, high = round(0.36 * SIDE), round(0.64 * SIDE)
    weight = 1.0 - 0.25 * np.abs(np.linspace(-1, 1, high - low))
    return low + int(np.argmax(profile[low:high] * weight))


def _lung(small: np.ndarray, middle: int, side: int) -> Mask | None:
    """The largest dark region of one half (0: left in the picture) that looks like a lung, closed over."""
    half = slice(0, middle) if side == 0 else slice(middle, SIDE)
    rows = slice(round(0.06 * SIDE), round(0.90 * SIDE))
    inner = small[rows, half]
    body = inner[inner > 12]
    if body.size < 500:
        return None
    best: tuple[float, Mask] | None = None
    background = _background(small)
    for level in np.percentile(body, (20, 28, 36, 44, 52, 60)):
        dark = np.zeros((SIDE, SIDE), dtype=np.uint8)
        dark[rows, half] = inner < level
        dark[background > 0] = 0
        opened = cv2.morphologyEx(dark, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
        count, labels, stats, centres = cv2.connectedComponentsWithStats(opened, connectivity=4)
        for index in range(1, count):
            region = labels == index
            score = _plausible(stats[index], centres[index], middle) * _solidity(region) ** 3
            if score > 0 and (best is None or score > best[0]):
                best = (score, region)
    return None if best is None else _hull(best[1])


def _background(small: np.ndarray) -> NDArray[np.uint8]:
    """Air beside the body and collimated borders: nearly black and connected to the film's edge."""
    black = np.pad((small < 45).astype(np.uint8), 1, constant_values=1)
    _, labels = cv2.connectedComponents(black, connectivity=4)
    return np.asarray(cv2.dilate((labels == labels[0, 0]).astype(np.uint8)[1:-1, 1:-1], np.ones((3, 3), np.uint8)))


def _plausible(stats: np.ndarray, centre: np.ndarray, middle: int) -> float:
    """Area of a region that lies and is shaped like a lung, less for what touches the film's sides; else 0."""
    left, _, width, height, area = (int(v) for v in stats[:5])
    share = area / SIDE**2
    if not MIN_LUNG <= share <= MAX_LUNG or height < 0.7 * width or height < 0.2 * SIDE:
        return 0.0
    distance = abs(float(centre[0]) - middle) / SIDE
    if not 0.06 <= distance <= 0.36 or not 0.2 <= float(centre[1]) / SIDE <= 0.72:
        return 0.0
    touching = left <= 1 or left + width >= SIDE - 1
    return share * (0.15 if touching else 1.0)


def _solidity(region: Mask) -> float:
    """Share of its convex hull that a region fills: little where lung and background have run together."""
    points = np.argwhere(region)[:, ::-1].astype(np.int32)
    hull = float(cv2.contourArea(cv2.convexHull(points)))
    return min(1.0, len(points) / hull) if hull > 0 else 0.0


def _hull(region: Mask) -> Mask:
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(contours))
    out = np.zeros((SIDE, SIDE), dtype=np.uint8)
    cv2.drawContours(out, [hull], -1, 1, cv2.FILLED)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1))
    return np.asarray(cv2.dilate(out, kernel), dtype=bool)


def _balanced(right: Mask | None, left: Mask | None, middle: int) -> tuple[Mask, Mask]:
    """Both lungs, each at least as large as the mirrored part of the other that a white lung hides."""
    if right is None or left is None:
        one = left if right is None else right
        assert one is not None
        other = _mirrored(one, middle)
        return (other, one) if right is None else (one, other)
    if right.sum() < 0.6 * left.sum():
        right = right | _mirrored(left, middle)
    elif left.sum() < 0.6 * right.sum():
        left = left | _mirrored(right, middle)
    return right, left


def _mirrored(mask: Mask, middle: int) -> Mask:
    out = np.zeros_like(mask)
    columns = np.flatnonzero(mask.any(axis=0))
    mirror = 2 * middle - columns
    inside = (mirror >= 0) & (mirror < SIDE)
    out[:, mirror[inside]] = mask[:, columns[inside]]
    return out


def _reach(middle: int) -> Mask:
    """Where lungs can be at all: within 42 % of the width on either side of the spine, away from the film's rim."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return np.asarray((np.abs(x - middle / SIDE) < 0.42) & (y > 0.03) & (y < 0.93) & (x > 0.02) & (x < 0.98))


def _average() -> Mask:
    y, x = (np.mgrid[0:SIDE, 0:SIDE] + 0.5) / SIDE
    halves = [((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1.0 for cx, cy, a, b in _AVERAGE]
    return np.asarray(halves[0] | halves[1])


def lung_box(film: np.ndarray) -> tuple[int, int, int, int]:
    """Box around the lung field of a film (H, W) with a small margin: top, left, height, width in pixels."""
    rows, columns = np.nonzero(lung_field(film).mask)
    height, width = film.shape[:2]
    top, bottom = max(0.0, rows.min() / SIDE - 0.03), min(1.0, (rows.max() + 1) / SIDE + 0.05)
    left, right = max(0.0, columns.min() / SIDE - 0.03), min(1.0, (columns.max() + 1) / SIDE + 0.03)
    y, x = int(top * height), int(left * width)
    return y, x, max(1, round(bottom * height) - y), max(1, round(right * width) - x)
