"""Synthetic pixels for a package's self-test: no patient's, and the same on every machine."""

from __future__ import annotations

import numpy as np

from worker.packages.card import InputSpec

SIZE = 256


def golden_pixels(spec: InputSpec) -> np.ndarray:
    """Raw pixels of the card's kind: int16 (3, 256, 256) HU, uint8 (2, 256, 256) or uint8 (2, 256, 256, 3).

    A ``hu`` series is a skull of 1,500 HU in air of -1,000 HU with a table below; a bright ellipse of 65 HU lies in the
    brain of the second slice.
    """
    if spec.kind == "hu":
        return np.stack([_head(0.0), _head(20.0), _head(8.0)])
    films = np.stack([_film(0.25), _film(0.45)])
    return films if spec.kind == "grey" else np.stack([films, films // 2 + 30, films // 3 + 20], axis=-1)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1.0, 1.0, SIZE)
    return np.meshgrid(axis, axis)


def _head(blood_radius: float) -> np.ndarray:
    x, y = _grid()
    hu = np.full((SIZE, SIZE), -1000.0)
    hu[(np.abs(y - 0.93) < 0.012) & (np.abs(x) < 0.8)] = 200.0
    distance = np.hypot(x / 0.58, y / 0.74)
    hu[distance < 1.0] = 40.0
    hu[distance < 0.96] = 1500.0
    brain = distance < 0.87
    hu[brain] = (33.0 + 6.0 * np.sin(9 * x) * np.cos(7 * y))[brain]
    hu[np.hypot(x / 0.1, y / 0.25) < 1.0] = 6.0
    if blood_radius:
        radius = blood_radius / SIZE * 2
        hu[np.hypot((x - 0.25) / radius, (y + 0.2) / (1.4 * radius)) < 1.0] = 65.0
    return np.round(hu).astype(np.int16)


def _film(density: float) -> np.ndarray:
    x, y = _grid()
    image = 0.75 - 0.15 * y**2
    for side in (-0.4, 0.4):
        lung = np.hypot((x - side) / 0.3, y / 0.6) < 1.0
        image[lung] = 0.2 + density * np.clip(1 - np.hypot((x - 0.4) / 0.2, (y - 0.2) / 0.2), 0, 1)[lung]
    return np.round(image * 255).astype(np.uint8)
