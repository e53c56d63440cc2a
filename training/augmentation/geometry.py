"""Pictures and masks turned, scaled, shifted and mirrored together."""

from __future__ import annotations

import cv2
import numpy as np


def warp(
    image: np.ndarray,
    angle: float,
    zoom: float,
    shift: np.ndarray,
    mirror: bool,
    upside: bool,
    border: int,
) -> np.ndarray:
    """A picture (H, W, C) or mask (h, w) turned, scaled, shifted by shares of its size, and mirrored."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, zoom)
    matrix[:, 2] += shift * (width, height)
    out = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)
    out = out.reshape(image.shape)
    if mirror:
        out = out[:, ::-1]
    if upside:
        out = out[::-1]
    return np.ascontiguousarray(out)
