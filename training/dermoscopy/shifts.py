"""Fixed shifts of light, camera, rim, scale and resolution: what stands in for another dermoscope.

Some kinds of shift are also drawn by the augmentation ``dermoscope``, and flatter a recipe that draws them;
:data:`NEVER_DRAWN` names the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import cv2
import numpy as np

from training.augmentation import skin

Shift = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Picture float32 (H, W, 3) in [0, 1] and outline float32 (H, W), and what they become."""

UNCHANGED: Final = "as they are"
CROSSTALK: Final = np.asarray([[0.85, 0.12, 0.03], [0.08, 0.84, 0.08], [0.02, 0.14, 0.84]], dtype=np.float32)
"""Shares of red, green and blue that filters of another sensor put into each channel."""

JPEG_QUALITY: Final = 35


def of_colours(change: Callable[[np.ndarray], np.ndarray]) -> Shift:
    """A shift that leaves every pixel where it is."""
    return lambda picture, mask: (change(picture), mask)


def crosstalk(picture: np.ndarray) -> np.ndarray:
    """Another sensor's colours: each channel with a share of the others."""
    return np.asarray(cv2.transform(picture, CROSSTALK), dtype=np.float32)


def through_jpeg(picture: np.ndarray) -> np.ndarray:
    """Strong compression, and back."""
    eight = np.round(picture[..., ::-1] * 255).astype(np.uint8)
    _, stored = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    back = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), dtype=np.float32)
    return back[..., ::-1] / np.float32(255)


def rim(radius: float, softness: float = 0.01) -> Shift:
    """The round field of a dermoscope, everything outside nearly black; the outline ends where the field ends."""

    def shift(picture: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = skin.inside_rim(picture.shape, radius, (0.0, 0.0), softness)
        return skin.put_rim(picture, inside, 0.03), mask * (inside > 0.5)

    return shift


def in_turn(*shifts: Shift) -> Shift:
    """One shift after the other."""

    def shift(picture: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for each in shifts:
            picture, mask = each(picture, mask)
        return picture, mask

    return shift


def scaled(factor: float) -> Shift:
    """The lesion so many times larger, or smaller in more of the same skin."""
    return partial(skin.enlarge if factor > 1 else skin.surround, factor=factor)


SHIFTS: Final[Mapping[str, Shift]] = {
    UNCHANGED: of_colours(lambda picture: picture),
    "warmer light": of_colours(partial(skin.balance, gains=(1.15, 1.0, 0.8))),
    "colder light": of_colours(partial(skin.balance, gains=(0.82, 1.0, 1.15))),
    "pink": of_colours(partial(skin.balance, gains=(1.08, 0.88, 1.0))),
    "green": of_colours(partial(skin.balance, gains=(0.88, 1.06, 0.9))),
    "crosstalk of the channels": of_colours(crosstalk),
    "pale colours": of_colours(partial(skin.turn_hue, saturation=0.55)),
    "lighter, gamma 0.7": of_colours(partial(skin.bend, gamma=0.7)),
    "darker, gamma 1.45": of_colours(partial(skin.bend, gamma=1.45)),
    "dark corners": rim(0.56),
    "black rim all around": rim(0.47),
    "light falls off to the corners": of_colours(partial(skin.vignette, strength=0.7)),
    "scale 0.5": scaled(0.5),
    "scale 0.7": scaled(0.7),
    "scale 1.4": scaled(1.4),
    "scale 2": scaled(2.0),
    "soft lens": of_colours(partial(skin.blur, sigma=1.5)),
    "sharpened": of_colours(partial(skin.sharpen, amount=1.0, sigma=1.5)),
    "100 pixels wide": of_colours(partial(skin.coarsen, factor=2.0)),
    "JPEG of quality 35": of_colours(through_jpeg),
    "dermoscope A: closer, green, darker, dark corners, soft": in_turn(
        scaled(1.4),
        of_colours(partial(skin.balance, gains=(0.88, 1.06, 0.9))),
        of_colours(partial(skin.bend, gamma=1.3)),
        rim(0.56),
        of_colours(partial(skin.blur, sigma=0.8)),
    ),
    "dermoscope B: wider, warm, lighter, sharpened": in_turn(
        scaled(0.7),
        of_colours(partial(skin.balance, gains=(1.1, 0.95, 0.75))),
        of_colours(partial(skin.bend, gamma=0.8)),
        of_colours(partial(skin.sharpen, amount=1.0, sigma=1.5)),
    ),
}
"""Name -> shift. Strengths are fixed, so that every package is asked the same."""

NEVER_DRAWN: Final = ("crosstalk of the channels", "JPEG of quality 35")
"""Kinds of shift that no augmentation draws."""
