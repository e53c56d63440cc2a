"""What is known about a skin lesion: its diagnoses and how they fold, its outline and what is measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

DIAGNOSES: Final = ("mel", "nv", "bkl", "bcc", "akiec", "vasc", "df")
"""HAM10000's seven (Tschandl et al. 2018): melanoma, nevus, benign keratosis, basal-cell carcinoma, actinic keratosis
and intraepithelial carcinoma, vascular lesion, dermatofibroma."""

DX: Final = tuple(f"dx_{name}" for name in DIAGNOSES)
CLASSES: Final = ("melanoma", "nevus", "other")
FOLD: Final = {"dx_mel": "melanoma", "dx_nv": "nevus"}
"""Diagnoses that are a class of their own; all the rest are ``other``."""

OTHER_MALIGNANT: Final = ("dx_bcc", "dx_akiec")

ASPECT: Final = 4 / 3
MIN_MASK_SHARE: Final = 0.002
"""A mask below this share of the picture is noise, not an outline: 5 pixels across in a picture of 100 x 75."""


def folded(p: dict[str, float]) -> dict[str, float]:
    """``melanoma``, ``nevus`` and ``other`` out of the seven diagnoses; three classes pass as they are."""
    if all(name in p for name in CLASSES):
        return {name: p[name] for name in CLASSES}
    sums = dict.fromkeys(CLASSES, 0.0)
    for name, value in p.items():
        if name.startswith("dx_"):
            sums[FOLD.get(name, "other")] += value
    return sums


@dataclass(frozen=True)
class Framing:
    """How a picture was brought to a landscape of 4:3: turned or not, then padded on every side (in pixels)."""

    turned: bool
    top: int
    bottom: int
    left: int
    right: int


def framing(height: int, width: int) -> Framing:
    """Framing of a picture of this size; a 4:3 landscape needs none."""
    turned = height > width
    rows, columns = (width, height) if turned else (height, width)
    add_rows, add_columns = 0, 0
    if columns > rows * ASPECT:
        add_rows = round(columns / ASPECT) - rows
    else:
        add_columns = round(rows * ASPECT) - columns
    return Framing(turned, add_rows // 2, add_rows - add_rows // 2, add_columns // 2, add_columns - add_columns // 2)


def framed(image: np.ndarray, frame: Framing) -> np.ndarray:
    """Turn a portrait on its side and pad by reflection to 4:3, so that no lesion is squeezed or cut off.

    Models learn on turned and mirrored 4:3 pictures with reflected rims; a square or a 16:9 picture then looks no
    different to them.

    Parameters
    ----------
    image : ndarray, shape (H, W) or (H, W, 3)
    """
    out = np.rot90(image) if frame.turned else image
    if frame.top or frame.bottom or frame.left or frame.right:
        margins = (frame.top, frame.bottom, frame.left, frame.right)
        out = cv2.copyMakeBorder(np.ascontiguousarray(out), *margins, cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(out)


def reduced(image: np.ndarray, width_px: int | None) -> np.ndarray:
    """A framed picture no wider than those that a network learnt from, reduced by area; a smaller one as it is.

    One step from 600 x 450 to the network's input leaves more fine structure than the two steps that a picture of
    200 x 150 has behind it; a flag that was chosen on the softer ones then misses melanomas.

    Parameters
    ----------
    image : ndarray, shape (h, w, 3)
    width_px : int or None
        ``picture_width_px`` of the card; None where it does not say.
    """
    if width_px is None or image.shape[1] <= width_px:
        return image
    size = (width_px, max(1, round(image.shape[0] * width_px / image.shape[1])))
    return np.asarray(cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def unframed(values: np.ndarray, frame: Framing, shape: tuple[int, int]) -> np.ndarray:
    """Bring a map (h, w) of the framed picture back onto the picture of ``shape`` (H, W): float32, bilinear."""
    height, width = shape
    rows, columns = (width, height) if frame.turned else (height, width)
    full_rows, full_columns = rows + frame.top + frame.bottom, columns + frame.left + frame.right
    # Only the part without the padding is enlarged: sample positions of pixel centres, as cv2.resize takes them.
    y = (np.arange(rows, dtype=np.float32) + frame.top + 0.5) * values.shape[0] / full_rows - 0.5
    x = (np.arange(columns, dtype=np.float32) + frame.left + 0.5) * values.shape[1] / full_columns - 0.5
    grid_x, grid_y = np.meshgrid(x, y)
    out = cv2.remap(values.astype(np.float32), grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(out, -1) if frame.turned else out)


def outlined(p_mask: np.ndarray, threshold: float, largest: bool = True, fill: bool = True) -> np.ndarray:
    """Binary mask of a probability map.

    Parameters
    ----------
    p_mask : ndarray of float32, shape (H, W)
    largest : bool
        Keep the largest connected component only.
    fill : bool
        Close holes inside it.

    Returns
    -------
    ndarray of bool, shape (H, W)
    """
    mask = (p_mask >= threshold).astype(np.uint8)
    if largest and mask.any():
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        mask = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    if fill and mask.any():
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, contours, -1, 1, cv2.FILLED)
    return mask.astype(bool)


@dataclass(frozen=True)
class Measures:
    """Numbers of an outline.

    Attributes
    ----------
    area_fraction : float
        Share of the picture.
    diameter : float
        Largest distance between two points of the outline, in ``unit``.
    unit : str
        ``mm`` where the pixel spacing is known, else ``px``.
    border_irregularity : float
        Perimeter squared over 4 pi times the area: 1 for a circle, more for a ragged border.
    """

    area_fraction: float
    diameter: float
    unit: str
    border_irregularity: float


def measured(mask: np.ndarray, spacing_mm: tuple[float, float] | None = None) -> Measures | None:
    """Measure an outline; None where there is none.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
    spacing_mm : (float, float) or None
        Between rows and between columns, as in Pixel Spacing.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    outline = max(contours, key=cv2.contourArea)[:, 0, :].astype(np.float64)
    scale = np.array([1.0, 1.0] if spacing_mm is None else [spacing_mm[1], spacing_mm[0]])
    points = outline * scale
    hull = cv2.convexHull(points.astype(np.float32))[:, 0, :].astype(np.float64)
    gaps = hull[:, None, :] - hull[None, :, :]
    # Contour points are pixel centres; the lesion reaches half a pixel further on either side.
    diameter = float(np.sqrt((gaps**2).sum(-1)).max() + scale.mean())
    smooth = _smoothed(points)
    x, y = smooth[:, 0], smooth[:, 1]
    area = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    perimeter = float(np.linalg.norm(smooth - np.roll(smooth, -1, axis=0), axis=1).sum())
    irregularity = max(1.0, perimeter**2 / (4 * np.pi * area)) if area > 0 else 1.0
    return Measures(float(mask.mean()), diameter, "px" if spacing_mm is None else "mm", irregularity)


def _smoothed(points: np.ndarray) -> np.ndarray:
    """Closed outline averaged over 1/60 of its length, so that the steps of the pixel grid do not count as border."""
    reach = max(1, round(len(points) / 120))
    index = np.arange(len(points))[:, None] + np.arange(-reach, reach + 1)[None, :]
    return np.asarray(points[index % len(points)].mean(axis=1))
