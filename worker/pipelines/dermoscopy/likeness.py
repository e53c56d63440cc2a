"""Do the pixels show what skin does not look like?

Signs that are sure (:func:`no_skin`) stand far from real lesions: of the 5,129 pictures of HAM10000 one is beyond any
of them. Signs of doubt (:func:`unlike_skin`) count against ten of those. A view into the body that is no redder than
skin cannot be distinguished from it: that is left to the header, and to the rule that it is only scored where somebody
asked.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

JUDGED_PX: Final = 200
"""Longer side of the picture that is judged."""

LIT: Final = 25
MIN_LIT_SHARE: Final = 0.4
"""Share of pixels that are not black. HAM10000: at least 0.79; a round field in a black frame has about 0.6."""

MAX_STRANGE_SHARE: Final = 0.15
"""Share of lit pixels that are green, cyan, vivid blue or yellow, as colour bars and screens are. HAM10000: at most
0.115, in 99.9 % below 0.03; ink and rulers are a few per cent."""

MAX_NEUTRAL_SHARE: Final = 0.55
"""Share of lit pixels that are grey, or strange: screens, printed pages, ultrasound and films with coloured marks.
HAM10000: at most 0.33, but for one picture of 0.88."""

DEEP_RED: Final = 0.45
MAX_RED_SHARE: Final = 0.85
"""Share of bright pixels in which green and blue are below so much of red: fundus and inflamed mucosa. HAM10000: at
most 0.60. Brown lesions come nearer where they fill a round field or the camera is warmer, so the limit lies far off:
of 700 pictures enlarged to twice their size in a round field, or with a fifth more red than blue, 3 % and 1 % are
beyond it."""

MAX_VIVID_SHARE: Final = 0.25
"""Share of lit pixels whose saturation is above 0.85. HAM10000: at most 0.154."""

MAX_EDGE: Final = 100.0
"""95th percentile of the slope of brightness, in grey levels a pixel: text and lines. HAM10000: at most 86."""

MIN_WARM_SHARE: Final = 0.1
"""Share of lit pixels in which red is not below green and blue: skin has it in nearly all (HAM10000: 0.83 at the 5th
percentile, 0.51 at the 1st). Four, taken under bluish light, have less than this."""

MAX_GRAIN: Final = 10.0
MAX_RIM_SPREAD: Final = 40.0
"""Median of the Laplacian of brightness, and of how far colours along the rim lie from their median: stained tissue,
faces and rooms are grainy and have no skin around the middle. Six of HAM10000, under hair, are beyond both."""


def no_skin(rgb: np.ndarray) -> bool:
    """Whether a picture surely shows no skin.

    Parameters
    ----------
    rgb : ndarray of float32, shape (h, w, 3)
        0 to 255, reduced to :data:`JUDGED_PX`.
    """
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    lit = high >= LIT
    if float(lit.mean()) < MIN_LIT_SHARE:
        return True
    strange = _strange(red, green, blue) & lit
    neutral = (high - low <= 6) & lit
    strange_share, grey_share = (float(kind.sum() / lit.sum()) for kind in (strange, neutral | strange))
    bright = high >= 60
    deep = (green < DEEP_RED * red) & (blue < DEEP_RED * red) & bright
    vivid = (high - low > 0.85 * high) & lit
    return (
        strange_share > MAX_STRANGE_SHARE
        or grey_share > MAX_NEUTRAL_SHARE
        or float(deep.sum() / max(1, int(bright.sum()))) > MAX_RED_SHARE
        or float(vivid.sum() / lit.sum()) > MAX_VIVID_SHARE
        or _edge(rgb.mean(axis=2)) > MAX_EDGE
    )


def unlike_skin(rgb: np.ndarray) -> bool:
    """Whether colours or grain speak against skin, as hair and bluish light rarely do too. Takes what no_skin takes."""
    lit = rgb.max(axis=2) >= LIT
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    warm = (red >= green - 5) & (red >= blue - 5) & lit
    if float(warm.sum()) < MIN_WARM_SHARE * float(lit.sum()):
        return True
    grain = float(np.median(np.abs(cv2.Laplacian(rgb.mean(axis=2), cv2.CV_32F))))
    return grain > MAX_GRAIN and _rim_spread(rgb) > MAX_RIM_SPREAD


def _rim_spread(rgb: np.ndarray) -> float:
    smooth = cv2.GaussianBlur(rgb, (0, 0), 4)
    rows, columns = (max(1, side // 6) for side in rgb.shape[:2])
    rim = np.ones(rgb.shape[:2], bool)
    rim[rows:-rows, columns:-columns] = False
    colours = smooth[rim & (smooth.max(axis=2) >= LIT)]
    return float(np.median(np.linalg.norm(colours - np.median(colours, axis=0), axis=1))) if len(colours) else 0.0


def _strange(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Green, cyan, vivid blue or yellow."""
    is_green = (green > red + 10) & (green > blue + 10)
    is_cyan = (blue > red + 30) & (green > red + 30)
    is_blue = (blue > red + 60) & (blue > green + 60)
    is_yellow = (green > blue + 90) & (green > 0.9 * red)
    return np.asarray(is_green | is_cyan | is_blue | is_yellow)


def _edge(grey: np.ndarray) -> float:
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 4
    return float(np.percentile(slope, 95))
