"""Evidence of a suspicious lesion: its mask, and the picture with outline and heat map."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from firstread.pipelines import PICTURE_NOTICE
from worker.pipelines.base import Evidence
from worker.pipelines.dermoscopy.lesion import CLASSES, unframed
from worker.pipelines.dermoscopy.outline import Outline
from worker.pipelines.dermoscopy.photographs import Photograph
from worker.pipelines.ensemble import ModelScores
from worker.pipelines.heatmap import painted

PANEL_WIDTH: Final = 480
_LINE: Final = 24
_MARGIN: Final = 8
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_SIZE: Final = 0.55
OUTLINE_RGB: Final = (0, 255, 120)


def evidence_of(
    photograph: Photograph, outline: Outline | None, heat: np.ndarray, scores: ModelScores, next_step: str
) -> Evidence:
    """Overlay of outline and class-activation map, and the mask of the key picture at its own size.

    Parameters
    ----------
    heat : ndarray of float32, shape (h, w)
        Map of the picture as the network saw it, framed to 4:3.
    """
    evidence = Evidence(key_instance=photograph.instance.key, key_frame=photograph.frame.number)
    shape = (photograph.rgb.shape[0], photograph.rgb.shape[1])
    evidence.pictures["lesion"] = lesion_picture(
        photograph.rgb,
        None if outline is None else outline.mask,
        unframed(heat, photograph.framing, shape),
        "  ".join(f"{name} {scores.p_study[name]:.2f}" for name in CLASSES),
        next_step,
    )
    if outline is not None:
        evidence.mask = outline.mask[None]
        evidence.mask_keys = ((photograph.instance.key, photograph.frame.number),)
        evidence.mask_label = "lesion"
    return evidence


def lesion_picture(
    rgb: np.ndarray, mask: np.ndarray | None, heat: np.ndarray | None, title: str, words: str = ""
) -> np.ndarray:
    """Three panels side by side under a title, with the next step and ``PICTURE_NOTICE`` below.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (h, w, 3)
    mask : ndarray of bool, shape (H, W), or None
        Of the same picture in any size; its border is drawn.
    heat : ndarray of float32, shape (h, w), or None
        0 to 1.
    title, words : str
        No patient data. In any script that OpenCV's own font has: Latin, Greek, Cyrillic, Chinese and more.

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
    lines = wrapped(words, width - 2 * _MARGIN)
    head, foot = np.zeros((_LINE + 6, width, 3), np.uint8), np.zeros((_LINE * (len(lines) + 1) + 6, width, 3), np.uint8)
    _write(head, title, 20)
    for i, line in enumerate([*lines, PICTURE_NOTICE]):
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


def wrapped(words: str, width_px: int) -> list[str]:
    """Lines that are drawn no wider than ``width_px``, broken between words, or within one that is longer."""
    lines: list[str] = []
    for word in words.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _width_px(joined) <= width_px:
            lines[-1] = joined
            continue
        while _width_px(word) > width_px:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or _width_px(word[:n]) <= width_px)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines


def _width_px(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _SIZE, 1)[0][0])


def _write(image: np.ndarray, text: str, baseline: int) -> None:
    cv2.putText(image, text, (_MARGIN, baseline), _FONT, _SIZE, (255, 255, 255), 1, cv2.LINE_AA)
