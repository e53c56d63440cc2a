"""A chest for CT, drawn by formulas: what a head-CT pipeline must refuse."""

from __future__ import annotations

import cv2
import numpy as np
from pydicom.dataset import Dataset

from firstread.phantoms.ct import CtGrid, CtLabels, ct_series


def body_volume(slices: int = 24, size: int = 512, field_mm: float = 400.0, seed: int = 0) -> np.ndarray:
    """Hounsfield units of a trunk with lungs, heart, spine and ribs: float32 (n, H, W)."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(field_mm / size)
    x, y = axis[None, :], axis[:, None]
    hu = np.empty((slices, size, size), np.float32)
    for index in range(slices):
        image = np.full((size, size), -1000.0, np.float32)
        trunk = np.hypot(x / 175.0, y / 120.0)
        image[trunk <= 1.0] = -90.0
        image[trunk <= 0.90] = 50.0
        lung = np.hypot((np.abs(x) - 75.0) / 55.0, y / 80.0) < 1.0
        image[lung] = -850.0
        image[np.hypot((x - 15.0) / 50.0, (y + 15.0) / 45.0) < 1.0] = 40.0
        angle = np.arctan2(y / 120.0, x / 175.0)
        ribs = (np.abs(trunk - 0.84) < 0.02) & (np.sin(angle * 9.0 + 0.8 * index) > 0.55)
        image[ribs] = 500.0
        image[np.hypot(x / 20.0, (y - 78.0) / 18.0) < 1.0] = 350.0
        image[(np.abs(y - 130.0) < 2.0) & (np.abs(x) < 190.0)] = 150.0
        hu[index] = cv2.GaussianBlur(image, (0, 0), 0.7) + rng.normal(0.0, 8.0, image.shape).astype(np.float32)
    return np.clip(hu, -1024.0, 3071.0)


def body_study(slices: int = 24, size: int = 512, labels: CtLabels | None = None) -> list[Dataset]:
    """CT series of :func:`body_volume`, labelled as a chest unless ``labels`` lie."""
    field_mm = 400.0
    labels = labels or CtLabels(kind="BODY", body_part="CHEST", description="PHANTOM BODY 5MM")
    grid = CtGrid(round(field_mm / size, 6), 5.0, 5.0)
    return ct_series(body_volume(slices, size, field_mm, labels.seed), grid, labels)
