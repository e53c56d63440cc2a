"""What makes a picture harder to read, told by stated detectors, because no collection labels it.

Hair (:mod:`training.dermoscopy.hair`) and dark corners. Looked for and left out, on pictures of 200 x 150: ink of a
skin marker is in 7 of 866 test pictures of HAM10000, too few for a figure; reflections and bubbles could not be told
from scales, milia and gaps between hairs, nor the ticks of a ruler from short hairs, without a learned detector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from training.dermoscopy.hair import is_hairy

CORNER: Final = 0.04
"""Side of a corner, as a share of the picture's width."""

DARK_LEVEL: Final = 80
"""The brightest channel's median in a corner of the tube is below this. So it is in 77 of 866 test pictures of
HAM10000; of 48 that were looked at, four show hair or a dark background there instead of the tube."""

DARK_CORNERS: Final = 2


def has_dark_corners(rgb: np.ndarray) -> bool:
    """Whether the round field of the dermoscope shows: at least two corners are black.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    """
    side = max(2, round(CORNER * rgb.shape[1]))
    bright = rgb.max(axis=2)
    parts = (bright[:side, :side], bright[:side, -side:], bright[-side:, :side], bright[-side:, -side:])
    return sum(float(np.median(part)) < DARK_LEVEL for part in parts) >= DARK_CORNERS


TRAITS: Final[Mapping[str, Callable[[np.ndarray], bool]]] = {"hair": is_hairy, "dark corners": has_dark_corners}


def traits_of(pictures: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Which pictures have each of :data:`TRAITS`: bool (n,) by its name.

    Parameters
    ----------
    pictures : iterable of ndarray (H, W, 3)
        0 to 255, of any type.
    """
    rows = [[detect(np.ascontiguousarray(p.astype(np.uint8))) for detect in TRAITS.values()] for p in pictures]
    table = np.asarray(rows, dtype=bool).reshape(len(rows), len(TRAITS))
    return {name: table[:, column] for column, name in enumerate(TRAITS)}
