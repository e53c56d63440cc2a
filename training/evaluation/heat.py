"""Beside the cases of a page: what the network looked at."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from worker.packages.card import PackageError
from worker.packages.preprocessing import crops
from worker.packages.preprocessing.compose import compose_boxed
from worker.packages.runtimes.base import Runtime
from worker.pipelines.heatmap import painted

HEAT = (
    "Beside a case stands the same with what speaks, in this network, for the finding that is asked for, or for the "
    "class that was called (Grad-CAM)."
)
"""What a page says of its maps."""

Heat = Callable[[int, str], np.ndarray | None]
"""Of a case, by its row, and a label: a map (h, w) in [0, 1] of what speaks for it; None where there is none."""


def without_heat(row: int, label: str) -> None:
    """For networks of which no map can be made."""


def heat_of(package: Runtime, x: np.ndarray, label: str) -> np.ndarray | None:
    """Grad-CAM of a label on composed input (1, H, W, C): float32 (h, w) in [0, 1].

    None where the network pools no feature maps, or the runtime gives no gradients.
    """
    try:
        return np.asarray(package.gradients(x, label)[0])
    except PackageError:
        return None


def heat_on(package: Runtime, pixels: np.ndarray, index: int, label: str) -> np.ndarray | None:
    """:func:`heat_of` one of the slices or pictures (n, H, W) or (n, H, W, 3), laid on the whole of it: (H, W)."""
    x, boxes = compose_boxed(pixels, package.card.input)
    heat = heat_of(package, x[index : index + 1], label)
    return None if heat is None else crops.restore(heat, boxes[index], pixels.shape[1:3])


def with_heat(picture: np.ndarray, heat: np.ndarray | None) -> np.ndarray:
    """A picture, uint8 (H, W) or (H, W, 3), and beside it the same below its map; alone without one."""
    if heat is None:
        return picture
    plain = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    full = cv2.resize(heat.astype(np.float32), (plain.shape[1], plain.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.hstack([plain, painted(plain, np.clip(full, 0.0, 1.0))])
