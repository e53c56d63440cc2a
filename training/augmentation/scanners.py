"""What differs between scanners of heads: kernel, noise, calibration, resolution, tilt, and storage."""

from __future__ import annotations

import cv2
import numpy as np

from training.augmentation.hounsfield import Plane, Windows
from worker.packages.preprocessing.look import through_jpeg

BONE_CAP_HU = (150.0, 600.0)
"""Where bone is cut off before a filter: how much of it a kernel spreads differs between scanners."""
TISSUE_HU = (5.0, 75.0)
SHRUNK = (0.5, 0.9)
QUALITY = (55, 96)


def as_scanned(image: Plane, windows: Windows, rng: np.random.Generator) -> Plane:
    """A slice with its neighbours (H, W, C) as another scanner would have shown it; each change by its own chance."""
    narrow, wide = windows.split(image)
    before = hu = windows.hu(narrow, wide)
    if rng.random() < 0.3:
        hu = _coarser(hu, rng)
    if rng.random() < 0.6:
        hu = _filtered(hu, rng)
    if rng.random() < 0.4:
        hu = _cupped(hu, rng)
    if rng.random() < 0.5:
        hu = _calibrated(hu, rng)
    if rng.random() < 0.5:
        hu = hu + _noise(hu.shape, rng)
    if rng.random() < 0.2:
        hu = _tilted(hu, rng)
    scanned = windows.changed(image, before, hu)
    if rng.random() < 0.2:
        quality = int(rng.integers(*QUALITY))
        for channel in range(narrow.shape[-1]):
            scanned[..., channel] = through_jpeg(np.ascontiguousarray(scanned[..., channel]), quality)
    return scanned


def _coarser(hu: Plane, rng: np.random.Generator) -> Plane:
    """Fewer pixels across the head, as in a wider field of view."""
    height, width = hu.shape[:2]
    share = rng.uniform(*SHRUNK)
    small = cv2.resize(hu, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)).reshape(hu.shape)


def _filtered(hu: Plane, rng: np.random.Generator) -> Plane:
    """A smoother or a sharper kernel; bone counts as far as a random cap, and stays where it was above it."""
    cap = np.float32(rng.uniform(*BONE_CAP_HU))
    capped = np.minimum(hu, cap)
    if rng.random() < 0.5:
        smooth = cv2.GaussianBlur(capped, (0, 0), float(rng.uniform(0.4, 1.1))).reshape(hu.shape)
        changed = smooth
    else:
        smooth = cv2.GaussianBlur(capped, (0, 0), float(rng.uniform(0.7, 1.5))).reshape(hu.shape)
        changed = capped + np.float32(rng.uniform(0.2, 0.9)) * (capped - smooth)
    return np.where(hu > cap, hu, changed).astype(np.float32)


def _cupped(hu: Plane, rng: np.random.Generator) -> Plane:
    """Beam hardening: brain near bone is some Hounsfield units brighter (or overcorrected, darker)."""
    bone = (hu[..., hu.shape[-1] // 2] > 100).astype(np.uint8)
    if not bone.any():
        return hu
    far = cv2.distanceTransform(1 - bone, cv2.DIST_L2, 3)
    reach = rng.uniform(0.02, 0.08) * hu.shape[0]
    rim = np.float32(rng.uniform(-3.0, 8.0)) * np.exp(-far / np.float32(reach))
    tissue = (hu > TISSUE_HU[0]) & (hu < TISSUE_HU[1])
    return np.asarray(hu + rim[..., None].astype(np.float32) * tissue, dtype=np.float32)


def _calibrated(hu: Plane, rng: np.random.Generator) -> Plane:
    """Another zero and another slope of the scale, about that of brain."""
    gain, offset = np.float32(rng.uniform(0.92, 1.08)), np.float32(rng.uniform(-4.0, 4.0))
    return np.asarray((hu - 35) * gain + 35 + offset, dtype=np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Plane:
    """Noise of 1 to 7 HU in each slice, as fine as the kernel lets through."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = float(rng.uniform(0.0, 1.0))
    if sigma > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), sigma).reshape(shape)
        noise = noise / max(float(noise.std()), 1e-3)
    return np.asarray(noise * np.float32(rng.uniform(1.0, 7.0)), dtype=np.float32)


def _tilted(hu: Plane, rng: np.random.Generator) -> Plane:
    """Neighbours shifted against each other from front to back, as where slices do not lie square to the stack."""
    middle = hu.shape[-1] // 2
    step = rng.uniform(-0.03, 0.03) * hu.shape[0]
    planes = []
    for channel in range(hu.shape[-1]):
        matrix = np.asarray([[1, 0, 0], [0, 1, step * (channel - middle)]], dtype=np.float32)
        plane = np.ascontiguousarray(hu[..., channel])
        planes.append(cv2.warpAffine(plane, matrix, plane.shape[::-1], borderMode=cv2.BORDER_REPLICATE))
    return np.stack(planes, axis=-1).astype(np.float32)
