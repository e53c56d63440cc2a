"""Evidence pictures: a slice beside itself with a heat map, sides marked, labelled as an AI result."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from firstread.pipelines import PICTURE_NOTICE

ASSUMED: Final = "sides assumed"
PANEL: Final = 512
_HEADER: Final = 28
_FOOTER: Final = 28
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


def window(hu: np.ndarray, low: float = 0.0, high: float = 80.0) -> np.ndarray:
    """Grey levels of a window: uint8 of the same shape; ``low`` and below is black, ``high`` and above white."""
    scaled = (np.clip(hu, low, high) - low) * (255.0 / (high - low))
    return np.asarray(scaled.astype(np.uint8))


def picture(
    grey: np.ndarray,
    heat: np.ndarray | None,
    lines: tuple[str, ...],
    sides: bool = True,
    assumed: bool = False,
) -> np.ndarray:
    """Two panels, the plain image and the same with the heat map, between a title and ``PICTURE_NOTICE``.

    Parameters
    ----------
    grey : ndarray of uint8, shape (H, W)
        Image in display orientation: the patient's right at the left.
    heat : ndarray of float32, shape (H, W), or None
        0 to 1; below 0.05 nothing is painted. One panel without it.
    lines : tuple of str
        Short texts for the title; no patient data.
    sides : bool
        Mark R and L. False where the header does not say how the image is turned.
    assumed : bool
        The sides are those of the usual display and no header's: marked R? and L?, and said so below.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3), RGB
    """
    plain = cv2.cvtColor(_panel(grey, cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    panels = [plain]
    if heat is not None:
        panels.append(painted(plain, _panel(np.clip(heat, 0.0, 1.0).astype(np.float32), cv2.INTER_LINEAR)))
    if sides:
        for panel in panels:
            _write(panel, "R?" if assumed else "R", (8, PANEL // 2), 0.8)
            _write(panel, "L?" if assumed else "L", (PANEL - (42 if assumed else 26), PANEL // 2), 0.8)
    body = np.hstack(panels)
    out = np.zeros((_HEADER + PANEL + _FOOTER, body.shape[1], 3), np.uint8)
    out[_HEADER : _HEADER + PANEL] = body
    _write(out, "  ".join(lines), (8, 20), 0.5)
    _write(out, f"{PICTURE_NOTICE}; {ASSUMED}" if sides and assumed else PICTURE_NOTICE, (8, _HEADER + PANEL + 20), 0.5)
    return out


def painted(rgb: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heat map over a picture; both (H, W), RGB uint8 and float32 in [0, 1]."""
    colours = cv2.cvtColor(cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    weight = np.where(heat > 0.05, 0.25 + 0.35 * heat, 0.0).astype(np.float32)[..., None]
    return np.asarray((rgb * (1.0 - weight) + colours * weight).astype(np.uint8))


def _panel(image: np.ndarray, shrink: int) -> np.ndarray:
    """Fit an image into a square panel, keeping its shape."""
    height, width = image.shape[:2]
    factor = PANEL / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    fitted = cv2.resize(image, size, interpolation=shrink if factor < 1 else cv2.INTER_LINEAR)
    out = np.zeros((PANEL, PANEL), image.dtype)
    top, left = (PANEL - size[1]) // 2, (PANEL - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = fitted
    return out


def _write(image: np.ndarray, text: str, place: tuple[int, int], size: float) -> None:
    cv2.putText(image, text, place, _FONT, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, place, _FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
