"""From pixels to the network's input: the one function that training, serving and self-tests share.

The order is fixed: windows (or clip) on the stored values first, in float32, then crop, then area resize, then scaling.
Resizing first would mix bone and air into the rim of the brain. Colours are brought to one light (``colours``) before
anything else. One crop alone is found before the windows: the border
of a film (``film``), which would otherwise count for the film's own levels.
"""

from __future__ import annotations

import numpy as np

from firstread.cores import each
from worker.packages.card import InputSpec
from worker.packages.preprocessing.colours import level_light
from worker.packages.preprocessing.crops import (
    Array,
    Box,
    cut,
    film_boxes,
    head_box,
    lungs_box,
    resized,
    square_box,
)
from worker.packages.preprocessing.windows import has_bone, wide_layers, windowed


class PreprocessingError(ValueError):
    """The pixels do not fit the input spec (rank, channels, empty, not finite)."""


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
    """Window, crop and resize: float32 (n, height, width, c) in [0, 1], c windows, wide ones last, or three colours.

    This is what training caches and augments; :func:`stack` and :func:`scale` finish it.
    """
    return _boxed_planes(pixels, spec)[0]


def _boxed_planes(pixels: np.ndarray, spec: InputSpec) -> tuple[Array, list[Box]]:
    if spec.levels is None and spec.kind != "rgb" and spec.crop in ("none", "square", "head"):
        return _windowed_planes(pixels, spec)
    unit, boxes = located(pixels, spec)
    layers: Array = np.stack([resized(cut(image, box), spec) for image, box in zip(unit, boxes, strict=True)])
    return layers, boxes


def _windowed_planes(pixels: np.ndarray, spec: InputSpec) -> tuple[Array, list[Box]]:
    """What :func:`located`, :func:`cut` and :func:`resized` make of a series, image by image.

    A window changes each pixel by itself, so it may as well come behind the cut; then no copy of the whole series is
    made, and an image stays in the processor's cache on its way.
    """
    values = _one_channel(pixels, spec)
    n, height, width = values.shape
    windows = spec.windows or (_full_range(values),)
    if spec.crop == "head":
        boxes = [head_box(values, windows[0])] * n
    else:
        boxes = [square_box(height, width) if spec.crop == "square" else Box(0, 0, height, width)] * n
    known = not spec.wide_windows or has_bone(values)

    def plane_of(image: Array, box: Box) -> Array:
        top, left = max(0, box.top), max(0, box.left)
        inside = image[top : max(top, box.top + box.height), left : max(left, box.left + box.width)]
        layers = [windowed(inside, window) for window in windows]
        layers += [windowed(inside, window) if known else np.zeros_like(layers[0]) for window in spec.wide_windows]
        unit = layers[0][..., None] if len(layers) == 1 else np.stack(layers, axis=-1)
        return resized(cut(unit, Box(box.top - top, box.left - left, box.height, box.width)), spec)

    return np.stack(each(plane_of, values, boxes)), boxes


def located(pixels: np.ndarray, spec: InputSpec) -> tuple[Array, list[Box]]:
    """:func:`to_unit`'s result and the crop of each image in it."""
    unit = to_unit(pixels, spec)
    return unit, film_boxes(pixels, spec) if spec.crop == "film" else locate(unit, spec)


def to_unit(pixels: np.ndarray, spec: InputSpec) -> Array:
    """Clip each window and map it to [0, 1]: float32 (n, H, W, c)."""
    if spec.kind == "rgb":
        values = _numbers(pixels)
        if values.ndim != 4 or values.shape[-1] != 3:
            raise PreprocessingError(f"rgb input needs three channels, got {pixels.shape}")
        unit: Array = np.asarray(np.clip(values / np.float32(255.0), 0.0, 1.0), dtype=np.float32)
        return unit if spec.colours is None else np.stack([level_light(image, spec.colours) for image in unit])
    values = _one_channel(pixels, spec)
    if spec.levels is not None:
        boxes = film_boxes(values, spec) if spec.crop == "film" else [Box(0, 0, *values.shape[1:])] * len(values)
        return np.stack([_levelled(image, spec.levels, box) for image, box in zip(values, boxes, strict=True)])
    windows = spec.windows or (_full_range(values),)
    layers = [windowed(values, window) for window in windows] + wide_layers(values, spec.wide_windows)
    return np.stack(layers, axis=-1)


def _numbers(pixels: np.ndarray) -> Array:
    if pixels.ndim not in (3, 4) or pixels.shape[0] == 0:
        raise PreprocessingError(f"expected (n, H, W) or (n, H, W, 3) with n > 0, got {pixels.shape}")
    return pixels.astype(np.float32, copy=False)


def _one_channel(pixels: np.ndarray, spec: InputSpec) -> Array:
    values = _numbers(pixels)
    if values.ndim != 3:
        raise PreprocessingError(f"{spec.kind} input has one channel, got {pixels.shape}")
    return values


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
    if spec.crop == "lungs":
        return [lungs_box(image) for image in unit]
    raise PreprocessingError(f"the crop {spec.crop} is not found on windowed values")


def stack(layers: Array, spec: InputSpec) -> Array:
    """Neighbouring slices as channels (edges repeated) where the spec asks for them, else the layers as they are.

    Wide windows are of the slice itself, behind its neighbours.
    """
    if not spec.neighbours:
        return layers
    n = layers.shape[0]
    offsets = np.arange(-spec.neighbours, spec.neighbours + 1)
    index = np.clip(np.arange(n)[:, None] + offsets[None, :], 0, n - 1)
    return with_neighbours(layers[..., 0][index], layers, spec)


def with_neighbours(narrow: Array, layers: Array, spec: InputSpec) -> Array:
    """Slices with their neighbours (n, 2k+1, H, W) as channels, and the wide windows of ``layers`` (n, H, W, c)."""
    channels = np.moveaxis(narrow, 1, -1)
    if spec.wide_windows:
        channels = np.concatenate([channels, layers[..., len(spec.windows) :]], axis=-1)
    return np.ascontiguousarray(channels)


def scale(x: Array, spec: InputSpec) -> Array:
    """Map [0, 1] to the range that the network was trained with."""
    if spec.scale == "minus_one_one":
        out = x * np.float32(2.0)
        out -= np.float32(1.0)
        return out
    if spec.scale == "imagenet_lite":
        out = x * np.float32(255.0)
        out -= np.float32(127.0)
        out /= np.float32(128.0)
        return out
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
