"""Bits of a pixel cell (PS3.5 section 8.1.1): which of them hold the value, and what the others mean.

Nothing may be assumed of bits above High Bit: overlays lie there, and what an anonymiser left of them. Some writers
declare too few bits all the same, or store a sign above them. Neighbouring pixels tell the two apart: a value that is
read rightly fits its neighbours.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from firstread.dicom.pixels.layout import PixelLayout, PixelNote

_CLEARLY: Final = 1.25
"""How many times as rough one reading must be for another to be taken."""


def stored_values(frame: np.ndarray, layout: PixelLayout, notes: list[str]) -> np.ndarray:
    """Values of a frame's pixel cells.

    Parameters
    ----------
    frame : ndarray of 8-, 16- or 32-bit integers
        Pixel cells as they are stored.
    layout : PixelLayout
        Bits Stored, High Bit and Pixel Representation.
    notes : list of str
        Codes of what had to be assumed are added to it.

    Returns
    -------
    ndarray
        Of the same size a value, signed where the values are.
    """
    unsigned, signed = np.dtype(f"u{frame.dtype.itemsize}"), np.dtype(f"i{frame.dtype.itemsize}")
    raw = np.ascontiguousarray(frame).view(unsigned)
    stored, high = min(layout.bits_stored, 8 * unsigned.itemsize), min(layout.high_bit, 8 * unsigned.itemsize - 1)
    spare, above = 8 * unsigned.itemsize - stored, 8 * unsigned.itemsize - 1 - high
    if high >= stored and _right_aligned(raw, stored, high):
        notes.append(PixelNote.BITS_CORRECTED)
        above = spare
    plain = above == spare and not layout.overlay_above
    if plain and not layout.signed and int(raw.max(initial=0)) >> stored == 0:
        return raw
    shifted = raw << unsigned.type(above)
    standard = np.asarray((shifted.view(signed) if layout.signed else shifted) >> spare)
    as_signed = raw.view(signed)
    if not plain or spare == 0 or (layout.signed and np.array_equal(standard, as_signed)):
        return standard
    return _beyond(raw, standard, stored, layout.signed, notes)


def _beyond(raw: np.ndarray, standard: np.ndarray, stored: int, signed: bool, notes: list[str]) -> np.ndarray:
    """Values of cells that have bits above ``stored`` which are no mere sign: the standard's reading, or another."""
    top, spare = raw >> raw.dtype.type(stored), 8 * raw.dtype.itemsize - stored
    as_signed = raw.view(f"i{raw.dtype.itemsize}")
    rubbish = bool(np.any((top != 0) & (top != raw.dtype.type((1 << spare) - 1))))
    if not signed and spare > 1 and not rubbish:
        marked = raw[top != 0]
        # One value for all is padding, as -2000; else an overlay may lie in all of the bits.
        if marked.min() == marked.max() or not _fits_better(standard, as_signed):
            notes.append(PixelNote.BITS_STORED_EXCEEDED)
            return as_signed
    others = [as_signed] if signed else [raw] if spare > 1 else [raw, as_signed]
    for other in others:
        if _fits_better(other, standard):
            notes.append(PixelNote.BITS_STORED_EXCEEDED)
            return other
    if rubbish or not signed:
        notes.append(PixelNote.UNUSED_BITS)
    return standard


def _right_aligned(raw: np.ndarray, stored: int, high: int) -> bool:
    """Whether values that High Bit puts at the upper end lie at the lower one."""
    below = high + 1 - stored
    return int(raw.max(initial=0)) >> stored == 0 and bool(np.any(raw & raw.dtype.type((1 << below) - 1)))


def _fits_better(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether pixels differ clearly less from their neighbours in one reading than in another, where the two part."""
    offset = one.astype(np.int64) - other
    rough_one = rough_other = 0
    for axis in (0, 1):
        seam = np.diff(offset, axis=axis) != 0
        rough_one += int(np.abs(np.diff(one.astype(np.int64), axis=axis))[seam].sum())
        rough_other += int(np.abs(np.diff(other.astype(np.int64), axis=axis))[seam].sum())
    return _CLEARLY * rough_one < rough_other
