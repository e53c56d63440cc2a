"""From a stack of slices to one volume of Hounsfield units in display orientation, on square pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.ahead import in_order
from firstread.dicom.datasets import numbers
from firstread.dicom.frames import Rescale
from firstread.dicom.modality import CT_CLASSES
from firstread.dicom.pixels.hounsfield import looks_like_hu, padding_of, to_hu
from firstread.dicom.pixels.reading import PixelLayout, UnreadablePixels, decoded_elsewhere, iter_frames, layout_of
from worker.pipelines.head_ct.stack import Grid, HeadStack, Slice, Unread, grid_of, slabs_of
from worker.pipelines.reasons import Caution, Reason
from worker.pipelines.unread import MAX_SHARE, cause_of, too_much

VOLUME_LIMIT_BYTES: Final = 4 * 2**30
"""Of all slabs of a series as float32; 160 of 1024 x 1024 pixels take a sixth."""

MOST_RESTARTS: Final = 64
"""Readings of one object after a frame that could not be read."""


def decode(head: HeadStack, forced: bool) -> tuple[Reason | None, list[str]]:
    """Fill ``head.hu``, ``head.slab_of`` and ``head.grid``; the reason where that cannot be, and warnings.

    Slices that cannot be read are left out and go to ``head.unread``, with the warning ``unreadable_slices``. Where
    they are too many, or neighbours, ``head.too_much_unread`` says so: what is left may flag, and is never a negative.
    """
    warnings: list[str] = []
    without = [entry for entry in head.slices if not _is_hu(entry.frame.rescale)]
    if without and (forced or len(without) > MAX_SHARE * len(head.slices)):
        refusal = _no_rescale(head, without, forced)
        if refusal is not None:
            return refusal, warnings
        warnings.append(Caution.RESCALE_MISSING)
        without = []
    slabs = slabs_of(head.stack)
    if (np.bincount(slabs) > 1).any():
        warnings.append(Caution.SLICES_AVERAGED)
    n = len(head.slices)
    head.slab_of = np.full(n, -1)
    count = int(slabs[-1]) + 1
    try:
        head.grid = grid = _grid(head, count)
    except UnreadablePixels as error:
        _note_unread(head, dict.fromkeys(range(n), str(error)))
        return Reason.UNREADABLE_PIXEL_DATA, warnings
    hu, members = np.zeros((count, *grid.shape), np.float32), np.zeros(count, int)
    causes: dict[int, str] = {}
    blank: dict[int, float] = {}
    for index, plane in _planes(head):
        if isinstance(plane, str) and (twin := _twin(head, index, grid)) is not None:
            plane = twin
        if isinstance(plane, str):
            causes[index] = plane
        elif without and not _is_hu(head.slices[index].frame.rescale):
            causes[index] = "no rescale to Hounsfield units"
        elif plane.shape != grid.displayed:
            causes[index] = "of another size than the rest"
        elif plane.min() == plane.max():
            blank[index] = float(plane.flat[0])
        else:
            slab = int(slabs[index])
            hu[slab] += grid.squared(plane)
            members[slab] += 1
            head.slab_of[index] = slab
    shown = np.flatnonzero(head.slab_of >= 0)
    for index, value in blank.items():
        if len(shown) and shown[0] < index < shown[-1]:
            causes[index] = "every pixel has one value"
        else:  # air beyond the head
            hu[slabs[index]] += np.float32(value)
            members[slabs[index]] += 1
            head.slab_of[index] = slabs[index]
    _note_unread(head, causes)
    if not members.any():
        return Reason.UNREADABLE_PIXEL_DATA, warnings
    if head.unread:
        warnings.append(Caution.UNREADABLE_SLICES)
        kept = members > 0
        renumber = np.cumsum(kept) - 1
        head.slab_of = np.where(head.slab_of >= 0, renumber[np.maximum(head.slab_of, 0)], -1)
        hu, members = hu[kept], members[kept]
    if int(members.max()) > 1:
        hu /= members[:, None, None].astype(np.float32)
    head.hu = hu
    return None, warnings


def _note_unread(head: HeadStack, causes: dict[int, str]) -> None:
    known = head.stack.position_mm
    places = np.arange(len(head.slices), dtype=float) if known is None else known
    head.unread += [Unread(cause, float(places[index])) for index, cause in sorted(causes.items())]
    readable = [float(place) for place, slab in zip(places, head.slab_of, strict=True) if slab >= 0]
    head.too_much_unread = bool(head.unread) and too_much(readable, [entry.place for entry in head.unread])


def _twin(head: HeadStack, index: int, grid: Grid) -> np.ndarray | None:
    """Hounsfield units of another slice at the place of one that cannot be read, which it then stands for."""
    for twin in head.twins.get(index, ()):
        slices = head.slices
        head.slices = (*slices[:index], twin, *slices[index + 1 :])
        plane = next(_planes_of(head, [index], head.cautions))[1]
        if isinstance(plane, np.ndarray) and plane.shape == grid.displayed and _is_hu(twin.frame.rescale):
            return plane
        head.slices = slices
    return None


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


def _no_rescale(head: HeadStack, without: list[Slice], forced: bool) -> Reason | None:
    """None where the stored values may be taken as Hounsfield units: asked for, and they look like it."""
    middle = without[len(without) // 2]
    if not forced:
        return Reason.RESCALE_MISSING
    try:
        stored = next(iter_frames(middle.instance.path, (middle.frame.index,)))
    except UnreadablePixels as error:
        head.unread.append(Unread(str(error), None))
        return Reason.UNREADABLE_PIXEL_DATA
    if looks_like_hu(stored):
        return None
    return Reason.RESCALE_MISSING if middle.instance.SOPClassUID in CT_CLASSES else Reason.PICTURE_HAS_NO_HU


Plane = tuple[int, np.ndarray | str]
"""A slice's index and its Hounsfield units in display orientation; the cause if it is unreadable."""


def _planes(head: HeadStack) -> Iterator[Plane]:
    """Every slice, object by object. Objects of one frame each that another process decodes are read a little ahead."""
    by_instance: dict[int, list[int]] = {}
    for index, entry in enumerate(head.slices):
        by_instance.setdefault(entry.instance.key, []).append(index)
    groups = list(by_instance.values())
    if len(groups) == len(head.slices) and all(decoded_elsewhere(entry.instance.ds) for entry in head.slices):
        for planes, cautions in in_order(partial(_whole, head, indices) for indices in groups):
            head.cautions += cautions
            yield from planes
        return
    for indices in groups:
        yield from _object_planes(head, indices, head.cautions)


def _whole(head: HeadStack, indices: list[int]) -> tuple[list[Plane], list[str]]:
    """An object's planes and cautions."""
    cautions: list[str] = []
    return list(_object_planes(head, indices, cautions)), cautions


def _object_planes(head: HeadStack, indices: Sequence[int], cautions: list[str]) -> Iterator[Plane]:
    left, restarts = indices, 0
    while left:
        done = 0
        for index, plane in _planes_of(head, left, cautions):
            done += 1
            yield index, plane
        # One bad frame ends a reading; the frames behind it are read anew.
        if done < len(left) and restarts == MOST_RESTARTS:
            yield from ((index, "too many frames before it could not be read") for index in left[done:])
            break
        left, restarts = left[done:], restarts + 1


def _planes_of(head: HeadStack, indices: Sequence[int], cautions: list[str]) -> Iterator[Plane]:
    """Frames of one object up to the first that cannot be read."""
    instance = head.slices[indices[0]].instance
    done = 0
    try:
        layout: PixelLayout = layout_of(instance.ds)
        padding = padding_of(instance.ds, layout)
        for stored in iter_frames(instance.path, [head.slices[i].frame.index for i in indices], cautions):
            index = indices[done]
            if stored.ndim != 2:
                plane: np.ndarray | str = "more than one sample a pixel"
            else:
                rescale = head.slices[index].frame.rescale
                line = rescale if rescale is not None and _is_hu(rescale) else Rescale(1.0, 0.0)
                plane = head.turn.apply(to_hu(stored, line, layout, padding))
            done += 1
            yield index, plane
    except (UnreadablePixels, OSError) as error:
        yield indices[done], cause_of(error)
