"""From a stack of slices to one volume of Hounsfield units in display orientation, on square pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.ahead import in_order
from firstread.dicom.frames import Rescale
from firstread.dicom.modality import CT_CLASSES
from firstread.dicom.pixels.hounsfield import looks_like_hu, padding_of, to_hu
from firstread.dicom.pixels.reading import (
    PixelLayout,
    UnreadablePixels,
    decoded_elsewhere,
    iter_frames,
    layout_of,
    read_frame,
)
from firstread.dicom.values import numbers
from firstread.storage.faults import raise_fault
from worker.pipelines.head_ct.grid import Grid, grid_of
from worker.pipelines.head_ct.stack import HeadStack, Slice, Unread, slabs_of
from worker.pipelines.reasons import Caution, Reason
from worker.pipelines.unread import MAX_SHARE, cause_of, too_much

VOLUME_LIMIT_BYTES: Final = 4 * 2**30
"""Of all slabs of a series as float32; 160 of 1024 x 1024 pixels take a sixth."""

MOST_RESTARTS: Final = 64
"""Readings of one object after a frame that could not be read."""


@dataclass(frozen=True)
class HounsfieldVolume:
    """The slices of a head as one volume.

    Attributes
    ----------
    head : HeadStack
        The slices that were read; another slice at the place of one that cannot be read stands for it.
    hu : ndarray of float32, shape (m, H, W)
        Hounsfield units of slabs in display orientation on square pixels; thin slices are averaged to slabs.
    slab_of : ndarray of int, shape (n,)
        Slab of each slice; -1 where a slice could not be decoded.
    grid : Grid
        From the pixels as they come to those of ``hu``.
    too_much_unread : bool
        Whether so much is unread that what is left can only flag, and never be a negative.
    """

    head: HeadStack
    hu: np.ndarray
    slab_of: np.ndarray
    grid: Grid
    too_much_unread: bool

    @property
    def step_mm(self) -> float | None:
        """How far a slab stands for along the normal, as a median; None where positions are not known."""
        extent_mm = self.head.stack.extent_mm()
        if extent_mm is None:
            return None
        decoded = self.slab_of >= 0
        return float(np.median(np.bincount(self.slab_of[decoded], weights=extent_mm[decoded])))


@dataclass(frozen=True)
class Decoded:
    """Outcome of :func:`decode`: a volume, or the reason why there is none.

    ``cautions`` are codes of what reading the pixel data had to assume, ``warnings`` those about the slices.
    ``unread`` are all slices that could not be read, those of the headers among them; ``n_read`` counts the others.
    """

    volume: HounsfieldVolume | None = None
    reason: Reason | None = None
    cautions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()
    n_read: int = 0


def decode(head: HeadStack, forced: bool) -> Decoded:
    """Decode the slices of a stack.

    Slices that cannot be read are left out and listed in ``unread``, with the warning ``unreadable_slices``. Where
    they are too many, or neighbours, ``too_much_unread`` says so: what is left may flag, and is never a negative.
    """
    warnings: list[str] = []
    without = [entry for entry in head.slices if not _is_hu(entry.frame.rescale)]
    if without and (forced or len(without) > MAX_SHARE * len(head.slices)):
        refusal, unread = _no_rescale(without, forced)
        if refusal is not None:
            return Decoded(reason=refusal, unread=head.unread + unread)
        warnings.append(Caution.RESCALE_MISSING)
        without = []
    slabs = slabs_of(head.stack)
    if (np.bincount(slabs) > 1).any():
        warnings.append(Caution.SLICES_AVERAGED)
    n = len(head.slices)
    slab_of = np.full(n, -1)
    count = int(slabs[-1]) + 1
    try:
        grid = _grid(head, count)
    except UnreadablePixels as error:
        unread = head.unread + _unread_of(head, dict.fromkeys(range(n), str(error)))
        return Decoded(reason=Reason.UNREADABLE_PIXEL_DATA, warnings=tuple(warnings), unread=unread)
    reader = _SliceReader(head)
    hu, members = np.empty((count, *grid.shape), np.float32), np.zeros(count, int)
    causes: dict[int, str] = {}
    blank: dict[int, float] = {}
    for index, plane in reader.planes():
        if isinstance(plane, str) and (twin := reader.twin(index, grid)) is not None:
            plane = twin
        if isinstance(plane, str):
            causes[index] = plane
        elif without and not _is_hu(reader.slices[index].frame.rescale):
            causes[index] = "no rescale to Hounsfield units"
        elif plane.shape != grid.displayed:
            causes[index] = "of another size than the rest"
        elif _is_blank(plane):
            blank[index] = float(plane.flat[0])
        else:
            _add(hu, members, int(slabs[index]), grid.squared(plane))
            slab_of[index] = slabs[index]
    shown = np.flatnonzero(slab_of >= 0)
    for index, value in blank.items():
        if len(shown) and shown[0] < index < shown[-1]:
            causes[index] = "every pixel has one value"
        else:  # air beyond the head
            _add(hu, members, int(slabs[index]), np.float32(value))
            slab_of[index] = slabs[index]
    unread = head.unread + _unread_of(head, causes)
    cautions, n_read = tuple(reader.cautions), int(np.count_nonzero(slab_of >= 0))
    if not members.any():
        return Decoded(None, Reason.UNREADABLE_PIXEL_DATA, cautions, tuple(warnings), unread, n_read)
    too_much_unread = _too_much_unread(head, slab_of, unread)
    if unread:
        warnings.append(Caution.UNREADABLE_SLICES)
        has_slices = members > 0
        renumbered = np.cumsum(has_slices) - 1
        slab_of = np.where(slab_of >= 0, renumbered[np.maximum(slab_of, 0)], -1)
        hu, members = hu[has_slices], members[has_slices]
    if int(members.max()) > 1:
        hu /= members[:, None, None].astype(np.float32)
    volume = HounsfieldVolume(replace(head, slices=tuple(reader.slices)), hu, slab_of, grid, too_much_unread)
    return Decoded(volume, None, cautions, tuple(warnings), unread, n_read)


def _is_blank(plane: np.ndarray) -> bool:
    """Whether every pixel has one value."""
    first = plane[0, 0]
    return bool(plane[plane.shape[0] // 2, plane.shape[1] // 2] == first and (plane == first).all())


def _add(hu: np.ndarray, members: np.ndarray, slab: int, values: np.ndarray | np.float32) -> None:
    """Put a slice into its slab, of which nothing is written before its first slice."""
    if members[slab]:
        hu[slab] += values
    else:
        hu[slab] = values
    members[slab] += 1


def _places(head: HeadStack) -> np.ndarray:
    known = head.stack.position_mm
    return np.arange(len(head.slices), dtype=float) if known is None else known


def _unread_of(head: HeadStack, causes: dict[int, str]) -> tuple[Unread, ...]:
    places = _places(head)
    return tuple(Unread(cause, float(places[index])) for index, cause in sorted(causes.items()))


def _too_much_unread(head: HeadStack, slab_of: np.ndarray, unread: Sequence[Unread]) -> bool:
    readable = [float(place) for place, slab in zip(_places(head), slab_of, strict=True) if slab >= 0]
    return bool(unread) and too_much(readable, [entry.place for entry in unread])


def _grid(head: HeadStack, slabs: int) -> Grid:
    """Grid of the slices' common size.

    Raises
    ------
    UnreadablePixels
        If no slice has a layout that is read, or all would take more than ``VOLUME_LIMIT_BYTES``.
    """
    layout, ds = _layout(head)
    rows, columns = layout.rows, layout.columns
    spacing = head.PixelSpacing
    aspect = numbers(ds, "PixelAspectRatio", 2)
    if aspect is not None and not all(0.0 < side < 1000.0 for side in aspect):
        aspect = None
    if head.turn.transpose:
        rows, columns = columns, rows
        spacing, aspect = (None if sides is None else sides[::-1] for sides in (spacing, aspect))
    grid = grid_of(rows, columns, spacing, aspect)
    if slabs * grid.shape[0] * grid.shape[1] * 4 > VOLUME_LIMIT_BYTES:
        raise UnreadablePixels("slices larger than the limit")
    return grid


def _layout(head: HeadStack) -> tuple[PixelLayout, Dataset]:
    """Layout and header of the first slice that has one; all are of one size."""
    fault = UnreadablePixels("no slices")
    for entry in head.slices:
        try:
            return layout_of(entry.instance.ds), entry.instance.ds
        except UnreadablePixels as error:
            fault = error
    raise fault


def _is_hu(rescale: Rescale | None) -> bool:
    return rescale is not None and rescale.kind in ("", "HU", "US", "HOUNSFIELD")


def _no_rescale(without: Sequence[Slice], forced: bool) -> tuple[Reason | None, tuple[Unread, ...]]:
    """Why the stored values cannot be taken as Hounsfield units; no reason where they were asked for and look like it.

    The second value is the slice that could not be read to find out, if any.
    """
    if not forced:
        return Reason.RESCALE_MISSING, ()
    middle = without[len(without) // 2]
    try:
        stored = read_frame(middle.instance.path, middle.frame.index, content=middle.instance.content)
    except UnreadablePixels as error:
        return Reason.UNREADABLE_PIXEL_DATA, (Unread(str(error), None),)
    if looks_like_hu(stored):
        return None, ()
    is_ct = middle.instance.SOPClassUID in CT_CLASSES
    return Reason.RESCALE_MISSING if is_ct else Reason.PICTURE_HAS_NO_HU, ()


Plane = tuple[int, np.ndarray | str]
"""A slice's index and its Hounsfield units in display orientation; the cause if it is unreadable."""


class _SliceReader:
    """Reads the slices of a stack.

    ``slices`` are those of the stack, with a twin in the place of one that could not be read; ``cautions`` are codes
    of what had to be assumed.
    """

    def __init__(self, head: HeadStack) -> None:
        self.slices = list(head.slices)
        self.cautions: list[str] = []
        self._turn = head.turn
        self._twins = head.twins

    def planes(self) -> Iterator[Plane]:
        """Every slice, object by object.

        Objects of one frame each that another process decodes are read a little ahead.
        """
        by_instance: dict[int, list[int]] = {}
        for index, entry in enumerate(self.slices):
            by_instance.setdefault(entry.instance.key, []).append(index)
        groups = list(by_instance.values())
        if len(groups) == len(self.slices) and all(decoded_elsewhere(entry.instance.ds) for entry in self.slices):
            for planes, cautions in in_order(partial(self._whole, indices) for indices in groups):
                self.cautions += cautions
                yield from planes
            return
        for indices in groups:
            yield from self._object_planes(indices, self.cautions)

    def twin(self, index: int, grid: Grid) -> np.ndarray | None:
        """Hounsfield units of another slice at the place of one that cannot be read, which it then stands for."""
        unreadable = self.slices[index]
        for twin in self._twins.get(index, ()):
            self.slices[index] = twin
            plane = next(self._planes_of([index], self.cautions))[1]
            if isinstance(plane, np.ndarray) and plane.shape == grid.displayed and _is_hu(twin.frame.rescale):
                return plane
            self.slices[index] = unreadable
        return None

    def _whole(self, indices: list[int]) -> tuple[list[Plane], list[str]]:
        """An object's planes and cautions."""
        cautions: list[str] = []
        return list(self._object_planes(indices, cautions)), cautions

    def _object_planes(self, indices: Sequence[int], cautions: list[str]) -> Iterator[Plane]:
        left, restarts = indices, 0
        while left:
            done = 0
            for index, plane in self._planes_of(left, cautions):
                done += 1
                yield index, plane
            # One bad frame ends a reading; the frames behind it are read again.
            if done < len(left) and restarts == MOST_RESTARTS:
                yield from ((index, "too many frames before it could not be read") for index in left[done:])
                break
            left, restarts = left[done:], restarts + 1

    def _planes_of(self, indices: Sequence[int], cautions: list[str]) -> Iterator[Plane]:
        """Frames of one object up to the first that cannot be read."""
        instance = self.slices[indices[0]].instance
        done = 0
        try:
            layout = layout_of(instance.ds)
            padding = padding_of(instance.ds, layout)
            frames = [self.slices[i].frame.index for i in indices]
            for stored in iter_frames(instance.path, frames, cautions, instance.content, layout):
                index = indices[done]
                if stored.ndim != 2:
                    plane: np.ndarray | str = "more than one sample a pixel"
                else:
                    rescale = self.slices[index].frame.rescale
                    line = rescale if rescale is not None and _is_hu(rescale) else Rescale(1.0, 0.0)
                    plane = self._turn.apply(to_hu(stored, line, layout, padding))
                done += 1
                yield index, plane
        except (UnreadablePixels, OSError) as error:
            raise_fault(error)
            yield indices[done], cause_of(error)
