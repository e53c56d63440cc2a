"""The part of an image that a network sees: how it is found, cut out, resized, and put back on the image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from firstread.cores import each
from worker.packages.card import InputSpec
from worker.packages.preprocessing.collimation import bordered
from worker.packages.preprocessing.look import level_look
from worker.packages.preprocessing.lungs import lung_box
from worker.packages.preprocessing.parts import Part, largest_part
from worker.packages.preprocessing.windows import Window, windowed

Array = NDArray[np.float32]

HEAD_MARGIN = 0.04
HEAD_MIN_AREA = 0.01
TISSUE_FLOOR = 0.02
"""Fraction of the window above which a pixel counts as head and not as air."""


@dataclass(frozen=True)
class Box:
    """A square or rectangle in source pixels; it may reach beyond the image, where the window's floor is padded."""

    top: int
    left: int
    height: int
    width: int


def square_box(height: int, width: int) -> Box:
    """The centred square of the shorter side: what lies beyond it on the longer axis is cut off, nothing is padded."""
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def head_box(slices: Array, window: Window | None = None) -> Box:
    """One square around the head for a whole series.

    The largest connected component of tissue in each slice, after an opening that drops the thin arcs of the table
    and the head holder; then the union over the slices whose component has at least half the largest area.

    Parameters
    ----------
    slices : ndarray of float32, shape (n, H, W)
        In [0, 1], or of any unit with the window that maps them to it.
    """
    height, width = slices.shape[1:]
    width_px = max(3, round(height / 42)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width_px, width_px))

    def head_of(image: Array) -> Part | None:
        shown = image if window is None else windowed(image, window)
        opened = cv2.morphologyEx((shown > TISSUE_FLOOR).astype(np.uint8), cv2.MORPH_OPEN, kernel)
        part = largest_part(opened, connectivity=8)
        return part if part is not None and part.area >= HEAD_MIN_AREA * height * width else None

    heads = [head for head in each(head_of, slices) if head is not None]
    if not heads:
        return square_box(height, width)
    largest = max(head.area for head in heads)
    corners = [
        (left, top, left + across, top + down)
        for left, top, across, down in (head.rect for head in heads if head.area >= 0.5 * largest)
    ]
    left, top = min(corner[0] for corner in corners), min(corner[1] for corner in corners)
    right, bottom = max(corner[2] for corner in corners), max(corner[3] for corner in corners)
    side = round(max(right - left, bottom - top) * (1 + 2 * HEAD_MARGIN))
    return Box((top + bottom - side) // 2, (left + right - side) // 2, side, side)


def film_boxes(pixels: np.ndarray, spec: InputSpec) -> list[Box]:
    """The part of each film (n, H, W) that lies inside its border, and inside the rim that the spec's look cuts off."""
    boxes = [Box(*bordered(image)) for image in pixels.astype(np.float32, copy=False)]
    if spec.look is None or not spec.look.rim:
        return boxes
    return [_without_rim(box, spec.look.rim) for box in boxes]


def _without_rim(box: Box, share: float) -> Box:
    down, across = int(share * box.height), int(share * box.width)
    return Box(box.top + down, box.left + across, box.height - 2 * down, box.width - 2 * across)


def lungs_box(image: Array) -> Box:
    """Box around the lung field of a frontal film (H, W, c) in [0, 1]."""
    return Box(*lung_box(image[..., 0]))


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """The box of an image (H, W) or (H, W, c), padded with zeros where it reaches beyond."""
    height, width = image.shape[:2]
    top, left = max(0, box.top), max(0, box.left)
    bottom, right = min(height, box.top + box.height), min(width, box.left + box.width)
    inside = image[top:bottom, left:right]
    if inside.shape[:2] == (box.height, box.width):
        return np.ascontiguousarray(inside)
    out = np.zeros((box.height, box.width, *image.shape[2:]), dtype=image.dtype)
    out[top - box.top : bottom - box.top, left - box.left : right - box.left] = inside
    return out


def restore(image: np.ndarray, box: Box, shape: tuple[int, int]) -> Array:
    """Put a map of the network's output (h, w) back on the source image of ``shape`` (H, W): float32, 0 outside."""
    full = cv2.resize(image.astype(np.float32), (box.width, box.height), interpolation=cv2.INTER_LINEAR)
    height, width = shape
    back = cut(full, Box(-box.top, -box.left, height, width))
    return np.asarray(back, dtype=np.float32)


def resized(image: np.ndarray, spec: InputSpec) -> Array:
    """Area resize of one cropped image (h, w, c) to the spec's size, after its look is levelled: float32."""
    if spec.look is not None:
        film = np.ascontiguousarray(image[..., 0], dtype=np.float32)
        image = level_look(film, spec.look)[..., None]
    out: Array = cv2.resize(
        image.astype(np.float32, copy=False), (spec.width, spec.height), interpolation=cv2.INTER_AREA
    )
    out = out if out.ndim == 3 else out[..., None]
    return out if spec.equalise == "none" else equalised(out, spec.equalise)


def equalised(image: np.ndarray, kind: str) -> Array:
    """One grey picture (h, w, 1) in [0, 1] with its histogram made flat (``global``), or flatter in tiles (``local``).

    Local is contrast-limited adaptive equalisation (Zuiderveld 1994, Graphics Gems IV) with a clip limit of 2.
    """
    eight = np.round(np.clip(image[..., 0], 0.0, 1.0) * 255.0).astype(np.uint8)
    flat = cv2.equalizeHist(eight) if kind == "global" else cv2.createCLAHE(2.0, (4, 4)).apply(eight)
    return np.asarray(flat[..., None] / np.float32(255.0), dtype=np.float32)
