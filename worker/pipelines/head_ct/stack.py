"""The slices of a head in the order in which they lie, and how many of them make one slab."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Final

import numpy as np

from firstread.dicom.contrast import Described
from firstread.dicom.frames import Frame
from firstread.dicom.geometry import Stack, Turn
from firstread.dicom.values import integer, number
from worker.pipelines.base import StoredInstance

MIN_SLICES: Final = 8
"""Fewer slices are not an examination of a head."""

SLAB_MM: Final = 5.5
"""Thin neighbours are averaged as long as a slab stays within this."""

MAX_SLABS: Final = 160
ALIKE: Final = 0.2
"""Neighbours whose lengths differ by less than this share are of one kind."""


@dataclass(frozen=True)
class Slice:
    """One frame of one instance."""

    instance: StoredInstance
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
        """Place of a further number, on the line through those beside it; None where it is not known."""
        if number is None or not self.numbers or number in self.numbers:
            return None
        after = min(max(bisect_left(self.numbers, number), 1), len(self.numbers) - 1)
        low, high = self.numbers[after - 1], self.numbers[after]
        share = (number - low) / (high - low)
        return self.places[after - 1] + share * (self.places[after] - self.places[after - 1])


@dataclass(frozen=True)
class HeadStack:
    """A candidate as its headers describe it: slices from foot to head.

    Attributes
    ----------
    PixelSpacing : tuple of float or None
        Median over the slices, in mm.
    contrast : bool
        Whether an element or a macro says that a contrast agent was given.
    described : str
        What the series' description says of it.
    cautions : tuple of str
        Codes of what is doubtful about slices and order.
    twins : mapping
        Further slices at the place of a slice, by its index.
    unread : tuple of Unread
        Slices of the series that cannot be read, in any order.
    """

    slices: tuple[Slice, ...]
    stack: Stack
    turn: Turn
    PixelSpacing: tuple[float, ...] | None
    contrast: bool
    described: Described = "none"
    cautions: tuple[str, ...] = ()
    twins: Mapping[int, Sequence[Slice]] = field(default_factory=dict)
    unread: tuple[Unread, ...] = ()

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
