"""Bleeds of other patients put into a slice: CarveMix (Zhang et al. 2021, arXiv 2108.06883) with a soft rim.

A few hundred slices with a mask teach a network those bleeds by heart. Here a bleed is cut along its own mask, bent,
and set at its own place in the head of another slice, in the neighbouring slices too; bone and air stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.augmentation.geometry import warp
from training.augmentation.planes import BORDERS
from training.datasets.arrays import MASK_UNKNOWN, Arrays

LEAST_SHARE = 0.001
"""Share of the mask's pixels that a bleed must have to count."""
TISSUE = (0.04, 0.96)
"""Values between air (or water) and bone, as shares of the window."""
RIM_SIGMA = 1.2
SMALL = 16
LIKENESS = 0.85
"""Least correlation of two tiny slices that are taken to be of one level."""
HALF = 0.5


@dataclass(frozen=True)
class Donors:
    """Rows with a known bleed mask among the rows that a run may train on, and which slices look like theirs."""

    rows: np.ndarray
    patients: np.ndarray
    small: np.ndarray
    """Every slice of the arrays at :data:`SMALL` pixels, without its mean and of length one (n, SMALL * SMALL)."""

    @classmethod
    def among(cls, arrays: Arrays, rows: np.ndarray) -> Donors:
        """Usable rows whose mask is known and not empty."""
        if arrays.masks is None:
            return cls(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0))
        good = [row for row in rows if arrays.items[row].usable and _has_bleed(arrays.masks[row])]
        rows_with_bleed = np.asarray(good, dtype=np.int64)
        return cls(rows_with_bleed, arrays.patients[rows_with_bleed], _small(arrays))

    def draw(self, target: int, rng: np.random.Generator) -> int | None:
        """A donor at about the level of row ``target``, every patient with the same chance; None where there is none.

        Heads are cropped alike, so slices of one level look alike even when they are tiny.
        """
        near = np.flatnonzero(self.small[self.rows] @ self.small[target] >= LIKENESS)
        if not len(near):
            return None
        patients = np.unique(self.patients[near])
        pool = near[self.patients[near] == patients[rng.integers(len(patients))]]
        return int(self.rows[pool[rng.integers(len(pool))]])


def _small(arrays: Arrays) -> np.ndarray:
    tiny = [
        cv2.resize(plane[..., 0].astype(np.float32), (SMALL, SMALL), interpolation=cv2.INTER_AREA).ravel()
        for plane in arrays.planes
    ]
    centred = np.asarray(tiny) - np.mean(tiny, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def put_bleed(
    image: np.ndarray, mask: np.ndarray, arrays: Arrays, donor: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Set the bleed of row ``donor`` into a slice.

    Parameters
    ----------
    image : ndarray, shape (H, W, C)
        Planes in [0, 1] with the neighbouring slices as channels, without wide windows.
    mask : ndarray, shape (h, w)
        Share of each pixel that is bleed; known.

    Returns
    -------
    (image, mask) or None
        None where bone and air leave a smaller bleed than :data:`LEAST_SHARE`.
    """
    height, width, channels = image.shape
    around = arrays.neighbours[donor]
    assert arrays.masks is not None
    stack = arrays.masks[around]
    bleeds = np.where(stack == MASK_UNKNOWN, 0.0, stack / np.float32(254.0)).astype(np.float32)
    alpha = cv2.resize(np.moveaxis(bleeds, 0, -1), (width, height), interpolation=cv2.INTER_LINEAR)
    theirs = arrays.stacked(np.asarray([donor]))[0][..., :channels]
    both = np.concatenate([theirs, alpha.reshape(height, width, channels)], axis=-1)
    draws = rng.uniform(-1, 1, 4)
    both = warp(
        both,
        draws[0] * 12.0,
        1.0 + 0.2 * draws[1],
        draws[2:] * 0.04,
        bool(rng.random() < HALF),
        False,
        BORDERS["constant"],
    )
    blood, alpha = both[..., :channels], cv2.GaussianBlur(both[..., channels:], (0, 0), RIM_SIGMA)
    alpha = alpha * ((image > TISSUE[0]) & (image < TISSUE[1]))
    middle = cv2.resize(alpha[..., channels // 2], mask.shape[::-1], interpolation=cv2.INTER_AREA)
    if float((middle >= HALF).mean()) < LEAST_SHARE:
        return None
    toned = np.clip(blood * np.float32(1.0 + 0.08 * rng.uniform(-1, 1)), 0.0, 1.0)
    return image * (1 - alpha) + toned * alpha, np.maximum(mask, middle)


def _has_bleed(mask: np.ndarray) -> bool:
    return bool(mask[0, 0] != MASK_UNKNOWN and (mask >= int(HALF * 254)).mean() >= LEAST_SHARE)
