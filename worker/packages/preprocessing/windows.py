"""Windows on Hounsfield units, and whether a series has any beyond one that was burnt in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Window = tuple[float, float]

BONE_HU: Final = 250.0
"""Above what display windows of the brain reach, and below the bone of any head."""
LEAST_BONE: Final = 0.001
"""Share of a series' pixels that must be bone for its values to count as unclipped."""


def windowed(values: Array, window: Window) -> Array:
    """Values clipped to a window and mapped to [0, 1]: float32 of the same shape."""
    low, high = window
    out = np.clip(values, np.float32(low), np.float32(high), dtype=np.float32)
    out -= np.float32(low)
    out /= np.float32(high - low)
    return np.asarray(out)


def has_bone(hu: Array) -> bool:
    """Whether a series (n, H, W) has bone in its values, and not only what a display window left of it."""
    return bool((hu > BONE_HU).mean() >= LEAST_BONE)


def wide_layers(hu: Array, windows: Sequence[Window]) -> list[Array]:
    """Each wide window of a series (n, H, W).

    A series that was clipped to a display window shows no bone: its wide windows are zero everywhere, which says that
    nothing is known. A network learns both (``drop_wide`` of a recipe's ``augment``).
    """
    if not has_bone(hu):
        return [np.zeros(hu.shape, dtype=np.float32) for _ in windows]
    return [windowed(hu, window) for window in windows]
