"""The slices of a head in the order in which they lie, and how many of them make one slab."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Final

import cv2
import numpy as np

from firstread.dicom.datasets import number
from firstread.dicom.frames import Frame
from firstread.dicom.geometry import Stack, Turn
from firstread.dicom.numbers import integer
from worker.packages.preprocessing.compose import Box
from worker.pipelines.base import Instance

MIN_SLICES: Final = 8
"""Fewer are no examination of a head."""

SLAB_MM: Final = 5.5
"""Thin neighbours are averaged as long as a slab stays within this."""

MAX_SLABS: Final = 160
ALIKE: Final = 0.2
"""Neighbours whose lengths differ by less than this share are of one kind."""

SQUARE_WITHIN: Final = 0.01
"""Pixels count as square where their sides differ by no more than this share."""

SOFT_HU: Final = (-20.0, 100.0)
"""A little more than the window that the models see."""

MAX_SIDE: Final = 1024
"""Pixels are made square without letting a side grow beyond this, unless it is as long already."""


@dataclass(frozen=True)
class Grid:
    """From the pixels of a slice in display orientation to square ones, and back.

    Attributes
    ----------
    displayed : tuple of int
        Rows and columns in display orientation, as they come.
    shape : tuple of int
        Rows and columns on square pixels: the same where they are square.
    pixel_mm : tuple of float or None
        Sides of a pixel of ``shape``; None where the header does not tell.
    """

    displayed: tuple[int, int]
    shape: tuple[int, int]
    pixel_mm: tuple[float, float] | None

    def squared(self, plane: np.ndarray) -> np.ndarray:
        """Hounsfield units (H, W) on square pixels.

        Only soft tissue is interpolated, and what lies beside it counts as no more than its rim: a mean of bone and
        air would look like blood.
        """
        if self.shape == self.displayed:
            return plane
        nearest = _picked(plane, self.shape)
        soft = np.clip(plane, *SOFT_HU).astype(np.float32)
        between = cv2.resize(soft, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.where((nearest < SOFT_HU[0]) | (nearest > SOFT_HU[1]), nearest, between)

    def stored(self, mask: np.ndarray) -> np.ndarray:
        """A mask on square pixels (..., H, W) on the pixels as they come."""
        return _picked(mask, self.displayed)


def _picked(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if plane.shape[-2:] == shape:
        return plane
    rows, columns = (
        ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(shape, plane.shape[-2:], strict=True)
    )
    return plane[..., rows[:, None], columns[None, :]]


def grid_of(rows: int, columns: int, spacing_mm: Sequence[float] | None, aspect: Sequence[float] | None) -> Grid:
    """Grid of square pixels, as small as the smaller side, for slices in display orientation.

    Parameters
    ----------
    spacing_mm : sequence of 2 floats or None
        Between rows, between columns.
    aspect : sequence of 2 floats or None
        Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7), height and width, which counts where there is no spacing.
    """
    sides = spacing_mm or aspect
    known = None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]))
    if sides is None or abs(sides[0] / sides[1] - 1.0) <= SQUARE_WITHIN:
        return Grid((rows, columns), (rows, columns), known)
    length = rows * sides[0], columns * sides[1]
    side = max(min(sides), max(length) / max(MAX_SIDE, rows, columns))
    shape = max(1, round(length[0] / side)), max(1, round(length[1] / side))
    square = None if known is None else (length[0] / shape[0], length[1] / shape[1])
    return Grid((rows, columns), shape, square)


@dataclass(frozen=True)
class Slice:
    """One frame of one instance."""

    instance: Instance
    frame: Frame
    contrast: bool = False

    @property
    def number(self) -> int | None:
        """Number of the instance, or of the frame in its object."""
        return self.frame.number or integer(self.instance.ds, "InstanceNumber")

    @property
    def size(self) -> tuple[float | None, float | None]:
        """Rows and columns."""
        return number(self.instance.ds, "Rows"), number(self.instance.ds, "Columns")

    @property
    def kind(self) -> tuple[str, ...]:
        """``ORIGINAL`` or ``DERIVED``; empty where the header does not say."""
        return self.frame.FrameType[:1]


@dataclass(frozen=True)
class Unread:
    """A slice of the series of which nothing could be read.

    Attributes
    ----------
    cause : str
        In words, free of patient data.
    place : float or None
        Where it lies, in the coordinate of the stack: mm along the normal, else rank in the order of numbers.
    """

    cause: str
    place: float | None


@dataclass(frozen=True)
class Ruler:
    """From the numbers of slices to their places, where these rise or fall together."""

    numbers: tuple[int, ...]
    places: tuple[float, ...]

    @classmethod
    def of(cls, pairs: Sequence[tuple[int | None, float]]) -> Ruler:
        """A ruler of known slices; one without marks where numbers and places have nothing to do with each other."""
        known = sorted({number: place for number, place in pairs if number is not None}.items())
        steps = np.sign(np.diff([place for _, place in known]))
        if len(known) < 2 or max(np.count_nonzero(steps >= 0), np.count_nonzero(steps <= 0)) < 0.9 * len(steps):
            return cls((), ())
        return cls(tuple(number for number, _ in known), tuple(float(place) for _, place in known))

    def place(self, number: int | None) -> float | None:
        """Place of a further number, on the line through those beside it; None where it cannot be told."""
        if number is None or not self.numbers or number in self.numbers:
            return None
        after = min(max(bisect_left(self.numbers, number), 1), len(self.numbers) - 1)
        low, high = self.numbers[after - 1], self.numbers[after]
        share = (number - low) / (high - low)
        return self.places[after - 1] + share * (self.places[after] - self.places[after - 1])


@dataclass
class HeadStack:
    """A candidate with its slices from foot to head; ``gate`` adds the pixels.

    Attributes
    ----------
    hu : ndarray of float32, shape (m, H, W), or None
        Hounsfield units in display orientation on square pixels, thin slices averaged to slabs.
    slab_of : ndarray of int, shape (n,)
        Slab of each slice; -1 where a slice could not be decoded.
    boxes : dict
        Crop of each slab, by package; set by ``preprocess``.
    extent_mm : ndarray of float64, shape (n,), or None
        How far each slice stands for along the normal.
    twins : dict of lists of Slice
        Further slices at the place of a slice, by its index.
    unread : list of Unread
        Slices of the series that could not be read, in no order.
    too_much_unread : bool
        Whether so much is unread that what is left can only flag, and never be a negative.
    grid : Grid or None
        From the pixels as they come to those of ``hu``.
    """

    slices: tuple[Slice, ...]
    stack: Stack
    turn: Turn
    PixelSpacing: tuple[float, ...] | None
    contrast: bool
    cautions: list[str] = field(default_factory=list)
    hu: np.ndarray | None = None
    slab_of: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    grid: Grid | None = None
    twins: dict[int, list[Slice]] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)
    too_much_unread: bool = False

    @property
    def extent_mm(self) -> np.ndarray | None:
        return self.stack.extent_mm()

    @property
    def thickness_mm(self) -> float | None:
        """Median thickness of the slices."""
        return None if self.stack.thickness_mm is None else float(np.median(self.stack.thickness_mm))


def slabs_of(stack: Stack) -> np.ndarray:
    """Slab of each slice of a stack, counted from 0: neighbours of one kind are averaged up to ``SLAB_MM``.

    Slices of another thickness or spacing, as sequential protocols have them above the skull base, begin a slab of
    their own.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    runs = _runs(stack)
    sizes = [_slab_size(stack, first, last) for first, last in runs]
    if sum(ceil((last - first) / size) for (first, last), size in zip(runs, sizes, strict=True)) > MAX_SLABS:
        sizes = [max(size, ceil(len(stack.order) / MAX_SLABS)) for size in sizes]
    slabs: list[int] = []
    for (first, last), size in zip(runs, sizes, strict=True):
        begin = slabs[-1] + 1 if slabs else 0
        slabs += [begin + k // size for k in range(last - first)]
    return np.asarray(slabs, int)


def _runs(stack: Stack) -> list[tuple[int, int]]:
    """First and one past the last slice of each run of neighbours that are equally long."""
    extent = stack.extent_mm()
    if extent is None:
        return [(0, len(stack.order))]
    length = extent if stack.thickness_mm is None else np.maximum(extent, stack.thickness_mm)
    starts = [0]
    for i, mm in enumerate(length):
        if abs(float(mm) - float(length[starts[-1]])) > max(ALIKE * float(length[starts[-1]]), ALIKE):
            starts.append(i)
    return list(pairwise([*starts, len(length)]))


def _slab_size(stack: Stack, first: int, last: int) -> int:
    """Slices of a run to average into one: thin ones only, so that overlapping thick slices stay as they are."""
    extent = stack.extent_mm()
    if stack.position_mm is None or extent is None:
        return 1
    steps = np.diff(stack.position_mm[first:last])
    spacing = float(np.median(steps)) if len(steps) else float(extent[first])
    thickness = 0.0 if stack.thickness_mm is None else float(np.median(stack.thickness_mm[first:last]))
    step = max(spacing, thickness)
    return max(1, int(SLAB_MM // step)) if step > 0.0 else 1
