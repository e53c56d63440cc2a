"""Evidence picture of a lesion: as it came, with its outline, and with the heat map, said to be an AI result."""

from __future__ import annotations

import textwrap
from typing import Final

import cv2
import numpy as np

from worker.pipelines.heatmap import WORDS, painted

PANEL_WIDTH: Final = 480
_LINE: Final = 24
_CHARACTERS: Final = 118
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
OUTLINE_RGB: Final = (0, 255, 120)


def lesion_picture(
    rgb: np.ndarray, mask: np.ndarray | None, heat: np.ndarray | None, title: str, words: str = ""
) -> np.ndarray:
    """Three panels side by side under a title, with the next step and :data:`WORDS` below.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (h, w, 3)
    mask : ndarray of bool, shape (H, W), or None
        Of the same picture in any size; its border is drawn.
    heat : ndarray of float32, shape (h, w), or None
        0 to 1.
    title, words : str
        No patient data. Characters that the font has not are replaced.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3), RGB
    """
    factor = min(PANEL_WIDTH / rgb.shape[1], PANEL_WIDTH / rgb.shape[0])
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    plain = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    panels = [plain]
    if mask is not None:
        panels.append(_outlined(plain, mask))
    if heat is not None:
        panels.append(painted(plain, cv2.resize(np.clip(heat, 0, 1).astype(np.float32), size)))
    panels = [_padded(panel) for panel in panels]
    body = np.hstack(panels)
    width = max(body.shape[1], 3 * PANEL_WIDTH)
    body = np.hstack([body, np.zeros((body.shape[0], width - body.shape[1], 3), np.uint8)])
    lines = textwrap.wrap(words, _CHARACTERS) if words else []
    head, foot = np.zeros((_LINE + 6, width, 3), np.uint8), np.zeros((_LINE * (len(lines) + 1) + 6, width, 3), np.uint8)
    _write(head, title, 20)
    for i, line in enumerate([*lines, WORDS]):
        _write(foot, line, 20 + _LINE * i)
    return np.vstack([head, body, foot])


def _outlined(plain: np.ndarray, mask: np.ndarray) -> np.ndarray:
    fitted = cv2.resize(mask.astype(np.uint8), (plain.shape[1], plain.shape[0]), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(fitted, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = plain.copy()
    cv2.drawContours(out, contours, -1, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.drawContours(out, contours, -1, OUTLINE_RGB, 2, cv2.LINE_AA)
    return out


def _padded(panel: np.ndarray) -> np.ndarray:
    rest = PANEL_WIDTH - panel.shape[1]
    return np.asarray(cv2.copyMakeBorder(panel, 0, 0, rest // 2, rest - rest // 2, cv2.BORDER_CONSTANT))


def _write(image: np.ndarray, text: str, baseline: int) -> None:
    known = text.encode("ascii", "replace").decode("ascii")
    cv2.putText(image, known, (8, baseline), _FONT, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
