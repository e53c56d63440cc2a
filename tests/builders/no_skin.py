"""The bad-input zoo: colour pictures that show no skin, uint8 (H, W, 3)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from firstread.phantoms.lesion import lesion_image
from tests.builders.skin import BROWN

BARS = (
    (255, 255, 255),
    (230, 230, 0),
    (0, 230, 230),
    (0, 230, 0),
    (230, 0, 230),
    (230, 0, 0),
    (0, 0, 230),
    (20, 20, 20),
)


def _screen() -> np.ndarray:
    """A blue screenshot with lighter boxes."""
    rgb = np.full((300, 400, 3), (20, 40, 160), np.uint8)
    rgb[50:120, 60:200] = (80, 200, 220)
    return rgb


def _bars() -> np.ndarray:
    """A test pattern: colour bars above a grey wedge."""
    rgb = np.full((300, 400, 3), 128, np.uint8)
    rgb[60:140] = np.repeat(np.array(BARS, np.uint8), 50, axis=0)[None]
    rgb[180:240] = np.linspace(0, 255, 400)[None, :, None]
    return rgb


def _page() -> np.ndarray:
    """A page of text with a red heading, in a window with a blue bar."""
    rgb = np.full((600, 800, 3), 250, np.uint8)
    rgb[:, :90] = (40, 90, 200)
    for line in range(12):
        colour = (200, 20, 20) if line == 0 else (20, 20, 20)
        cv2.putText(rgb, "Findings and impression of the day", (20, 45 + 46 * line), 0, 1.1, colour, 3)
    return rgb


def _fundus() -> np.ndarray:
    """A red disc in a black frame, darker in one spot."""
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    rgb = np.zeros((300, 400, 3), np.uint8)
    rgb[np.hypot(x * 4 / 3, y) < 0.97] = (200, 80, 55)
    rgb[np.hypot(x * 4 / 3 - 0.3, y) < 0.2] = (120, 40, 25)
    return rgb


def _black() -> np.ndarray:
    """A small picture in a large black frame."""
    rgb = np.zeros((600, 800, 3), np.uint8)
    rgb[225:375, 300:500] = lesion_image(BROWN)[0]
    return rgb


NO_SKIN: dict[str, Callable[[], np.ndarray]] = {
    "screen": _screen,
    "colour_bars": _bars,
    "page": _page,
    "fundus": _fundus,
    "black_frame": _black,
}
