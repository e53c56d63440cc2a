"""From pixels to the network's input: the one function that training, serving and self-tests share.

The order is fixed: windows (or clip) on the stored values first, in float32, then crop, then area resize, then scaling.
Resizing first would mix bone and air into the rim of the brain. One crop alone is found before the windows: the border
of a film (``film``), whose darkness would else be a part of the film's own levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.packages.card import InputSpec
from worker.packages.preprocessing.collimation import bordered

Array = NDArray[np.float32]

HEAD_MARGIN = 0.04
HEAD_MIN_AREA = 0.01
TISSUE_FLOOR = 0.02
"""Fraction of the window above which a pixel counts as head and not as air."""


class PreprocessingError(ValueError):
    """The pixels do not fit the input spec (rank, channels, empty, not finite)."""


@dataclass(frozen=True)
class Box:
    """A square or rectangle in source pixels; it may reach beyond the image, where the window's floor is padded."""

    top: int
    left: int
    height: int
    width: int


def compose(pixels: np.ndarray, spec: InputSpec) -> Array:
    """Turn the pixels of one series (or of single pictures) into network input.

    Parameters
    ----------
    pixels : ndarray
        ``hu``: (n, H, W) Hounsfield units in spatial order, one series. ``grey``: (n, H, W) stored units, bright is
        dense (MONOCHROME1 already inverted). ``rgb``: (n, H, W, 3), 0 to 255.
    spec : InputSpec
        The card's input.

    Returns
    -------
    ndarray of float32, shape (n, spec.height, spec.width, spec.channels)

    Raises
    ------
    PreprocessingError
        If the array's rank or channels do not fit ``spec.kind``.
    """
    return compose_boxed(pixels, spec)[0]


def compose_boxed(pixels: np.ndarray, spec: InputSpec) -> tuple[Array, list[Box]]:
    """:func:`compose`, with the crop of each image, by which :func:`restore` puts a map back on it."""
    layers, boxes = _boxed_planes(pixels, spec)
    return scale(stack(layers, spec), spec), boxes


def planes(pixels: np.ndarray, spec: InputSpec) -> Array:
    """Window, crop and resize: float32 (n, height, width, c) in [0, 1], c windows or three colours.

    This is what training caches and augments; :func:`stack` and :func:`scale` finish it.
    """
    return _boxed_planes(pixels, spec)[0]


def _boxed_planes(pixels: np.ndarray, spec: InputSpec) -> tuple[Array, list[Box]]:
    unit, boxes = located(pixels, spec)
    layers: Array = np.stack([resized(cut(image, box), spec) for image, box in zip(unit, boxes, strict=True)])
    return layers, boxes


def located(pixels: np.ndarray, spec: InputSpec) -> tuple[Array, list[Box]]:
    """:func:`to_unit`'s result and the crop of each image in it."""
    unit = to_unit(pixels, spec)
    return unit, film_boxes(pixels) if spec.crop == "film" else locate(unit, spec)


def to_unit(pixels: np.ndarray, spec: InputSpec) -> Array:
    """Clip each window and map it to [0, 1]: float32 (n, H, W, c)."""
    if pixels.ndim not in (3, 4) or pixels.shape[0] == 0:
        raise PreprocessingError(f"expected (n, H, W) or (n, H, W, 3) with n > 0, got {pixels.shape}")
    values = pixels.astype(np.float32, copy=False)
    if spec.kind == "rgb":
        if values.ndim != 4 or values.shape[-1] != 3:
            raise PreprocessingError(f"rgb input needs three channels, got {pixels.shape}")
        return np.asarray(np.clip(values / np.float32(255.0), 0.0, 1.0), dtype=np.float32)
    if values.ndim != 3:
        raise PreprocessingError(f"{spec.kind} input has one channel, got {pixels.shape}")
    if spec.levels is not None:
        boxes = film_boxes(values) if spec.crop == "film" else [Box(0, 0, *values.shape[1:])] * len(values)
        return np.stack([_levelled(image, spec.levels, box) for image, box in zip(values, boxes, strict=True)])
    windows = spec.windows or (_full_range(values),)
    layers = [(np.clip(values, low, high) - np.float32(low)) / np.float32(high - low) for low, high in windows]
    return np.stack(layers, axis=-1)


def locate(unit: Array, spec: InputSpec) -> list[Box]:
    """Crop of each image of :func:`to_unit`'s result; one common box for the slices of a head.

    The border of a film is found on its stored values: :func:`located`.
    """
    n, height, width = unit.shape[:3]
    if spec.crop == "none":
        return [Box(0, 0, height, width)] * n
    if spec.crop == "square":
        return [square_box(height, width)] * n
    if spec.crop == "head":
        return [head_box(unit[..., 0])] * n
    return [CROPS[spec.crop](image) for image in unit]


def square_box(height: int, width: int) -> Box:
    """The centred square of the shorter side: what lies beyond it on the longer axis is cut off, nothing is padded."""
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def head_box(window: Array) -> Box:
    """One square around the head for a whole series.

    The largest connected component of tissue in each slice, after an opening that drops the thin arcs of the table
    and the head holder; then the union over the slices whose component has at least half the largest area.

    Parameters
    ----------
    window : ndarray of float32, shape (n, H, W)
        First window of the series, in [0, 1].
    """
    height, width = window.shape[1:]
    width_px = max(3, round(height / 42)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width_px, width_px))
    found: list[tuple[int, int, int, int, int]] = []
    for image in window:
        tissue = (image > TISSUE_FLOOR).astype(np.uint8)
        opened = cv2.morphologyEx(tissue, cv2.MORPH_OPEN, kernel)
        count, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
        if count > 1:
            best = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
            found.append(tuple(int(v) for v in best))  # type: ignore[arg-type]
    found = [row for row in found if row[4] >= HEAD_MIN_AREA * height * width]
    if not found:
        return square_box(height, width)
    largest = max(row[4] for row in found)
    kept = [row for row in found if row[4] >= 0.5 * largest]
    left, top = min(r[0] for r in kept), min(r[1] for r in kept)
    right, bottom = max(r[0] + r[2] for r in kept), max(r[1] + r[3] for r in kept)
    side = round(max(right - left, bottom - top) * (1 + 2 * HEAD_MARGIN))
    return Box((top + bottom - side) // 2, (left + right - side) // 2, side, side)


def film_boxes(pixels: np.ndarray) -> list[Box]:
    """What the border of each film (n, H, W) leaves of it."""
    return [Box(*bordered(image)) for image in pixels.astype(np.float32, copy=False)]


def lungs_box(image: Array) -> Box:
    """Box around the lung field of a frontal film (H, W, c) in [0, 1]."""
    from worker.packages.preprocessing.lungs import lung_box

    return Box(*lung_box(image[..., 0]))


CROPS: dict[str, Callable[[Array], Box]] = {"lungs": lungs_box}
"""Further crops by their name in the card: a function of one image (H, W, c) in [0, 1]."""


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


def stack(layers: Array, spec: InputSpec) -> Array:
    """Neighbouring slices as channels (edges repeated) where the spec asks for them, else the layers as they are."""
    if not spec.neighbours:
        return layers
    n = layers.shape[0]
    offsets = np.arange(-spec.neighbours, spec.neighbours + 1)
    index = np.clip(np.arange(n)[:, None] + offsets[None, :], 0, n - 1)
    return np.ascontiguousarray(np.moveaxis(layers[..., 0][index], 1, -1))


def scale(x: Array, spec: InputSpec) -> Array:
    """Map [0, 1] to the range that the network was trained with."""
    if spec.scale == "minus_one_one":
        return x * np.float32(2.0) - np.float32(1.0)
    if spec.scale == "imagenet_lite":
        return (x * np.float32(255.0) - np.float32(127.0)) / np.float32(128.0)
    return x


def _levelled(image: Array, levels: tuple[float, float], box: Box) -> Array:
    """One picture (H, W) between two percentiles of its box, taken on a grid of at most about 250,000 pixels."""
    inside = image[box.top : box.top + box.height, box.left : box.left + box.width]
    step = max(1, round((inside.size / 250_000) ** 0.5))
    low, high = (float(v) for v in np.percentile(inside[::step, ::step], levels))
    if high <= low:
        low, high = _full_range(inside)
    return ((np.clip(image, low, high) - np.float32(low)) / np.float32(high - low))[..., None]


def _full_range(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def resized(image: np.ndarray, spec: InputSpec) -> Array:
    """Area resize of one cropped image (h, w, c) to the spec's size: float32."""
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
