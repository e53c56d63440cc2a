"""A slice as a scan of other thickness shows it: two slices averaged to one, or neighbours that lie nearer."""

from __future__ import annotations

import numpy as np

from training.augmentation.hounsfield import Plane, Windows
from training.datasets.arrays import MASK_UNKNOWN, Arrays
from worker.packages.preprocessing.windows import windowed

THICK = 0.5
"""Share of the changed slices that become thicker."""
NEAREST = 0.2
"""Least distance of the neighbours, in slices of the data."""

Restacked = tuple[Plane, np.ndarray | None, np.ndarray]
"""Image (H, W, C), mask (h, w) of shares or -1, labels (labels,)."""


def restack(arrays: Arrays, row: int, rng: np.random.Generator) -> Restacked:
    """One row of the arrays with thicker or thinner slices, averaged in Hounsfield units.

    Thick: the slice and the next are one, and so are the pairs before and behind. The label is that of either, the mask
    their mean. Thin: the slice stays, and its neighbours are interpolated at a part of the distance.
    """
    windows = Windows.of(arrays.spec)
    if rng.random() < THICK:
        first = row if rng.random() < 0.5 else _beside(arrays, row, -1)
        pairs = [(_beside(arrays, first, offset), _beside(arrays, first, offset + 1)) for offset in (-2, 0, 2)]
        hu = np.stack([0.5 * (_hu(arrays, a, windows) + _hu(arrays, b, windows)) for a, b in pairs], axis=-1)
        members = pairs[1]
    else:
        share = np.float32(rng.uniform(NEAREST, 0.9))
        own = _hu(arrays, row, windows)
        sides = [_hu(arrays, _beside(arrays, row, offset), windows) for offset in (-1, 1)]
        before, behind = (own * (1 - share) + side * share for side in sides)
        hu, members = np.stack([before, own, behind], axis=-1), (row, row)
    wide = arrays.planes[list(members)][..., 1:].astype(np.float32)
    known = all(windows.known(one) for one in wide)
    image = np.concatenate([windowed(hu, windows.brain), wide.mean(axis=0) * known], axis=-1, dtype=np.float32)
    return image, _mask(arrays, members), _labels(arrays, members)


def _beside(arrays: Arrays, row: int, offset: int) -> int:
    """The row so many slices further along its study; the first or last stands for what lies beyond."""
    for _ in range(abs(offset)):
        row = int(arrays.neighbours[row][0 if offset < 0 else -1])
    return row


def _hu(arrays: Arrays, row: int, windows: Windows) -> Plane:
    """Hounsfield units (H, W) of one row."""
    planes = arrays.planes[row].astype(np.float32)
    return windows.hu(planes[..., :1], planes[..., 1:])[..., 0]


def _mask(arrays: Arrays, members: tuple[int, int]) -> np.ndarray | None:
    if arrays.masks is None:
        return None
    pair = arrays.masks[list(members)]
    if (pair[:, 0, 0] == MASK_UNKNOWN).any() or not _teach(arrays, members):
        return np.full(pair.shape[1:], -1.0, dtype=np.float32)
    return np.asarray(pair.mean(axis=0) / 254.0, dtype=np.float32)


def _labels(arrays: Arrays, members: tuple[int, int]) -> np.ndarray:
    """1 where either slice has a finding, 0 where both are known to lack it, else -1."""
    pair = arrays.labels[list(members)]
    if not _teach(arrays, members):
        pair = np.where(pair == 1, pair, -1.0)
    return np.where((pair == 1).any(axis=0), 1.0, pair.min(axis=0)).astype(np.float32)


def _teach(arrays: Arrays, members: tuple[int, int]) -> bool:
    """Whether the labels of both slices are sure."""
    return all(arrays.items[member].usable for member in members)
