"""Pixel data without compression, frame by frame (PS3.5 section 8.1 and annex A)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np
from pydicom.pixels.processing import convert_color_space

from firstread.dicom.pixels.bits import stored_values
from firstread.dicom.pixels.codecs import UnreadablePixels
from firstread.dicom.pixels.colour import rgb_of_pairs
from firstread.dicom.pixels.layout import PixelLayout, PixelNote

_SHORT = "the pixel data are shorter than the header says"


def native_frames(
    fp: BinaryIO, offset: int, layout: PixelLayout, wanted: Sequence[int], big_endian: str, notes: list[str]
) -> Iterator[np.ndarray]:
    """Frames of native pixel data.

    Parameters
    ----------
    fp : BinaryIO
        File whose pixel data start at ``offset``.
    wanted : sequence of int
        Frames, counted from 0, none beyond the last.
    big_endian : str
        Empty in little endian, else the VR: words (``OW``) hold two 8-bit samples each, the first in the lower byte,
        and are swapped as any other (PS3.5 annex A.3).
    notes : list of str
        Codes of what had to be assumed are added to it.

    Yields
    ------
    ndarray
        (rows, columns), or (rows, columns, 3) in RGB.
    """
    bits = layout.bits_allocated
    if big_endian and bits == 1:
        raise UnreadablePixels("single bits in big endian")
    if layout.in_pairs and layout.columns % 2:
        raise UnreadablePixels("chrominance for two pixels each, and an odd number of Columns")
    if layout.samples == 3 and not layout.in_pairs:
        _check_colours(layout, notes)
    if bits == 1:
        yield from _single_bits(fp, offset, layout, wanted)
        return
    swapped = bits == 8 and big_endian == "OW"
    dtype = np.dtype(f"{'>' if big_endian and bits > 8 else '<'}u{bits // 8}")
    for index in wanted:
        data = _bytes(fp, offset, index * layout.native_frame_bytes, layout.native_frame_bytes, swapped)
        if layout.in_pairs:
            yield rgb_of_pairs(data, layout.rows, layout.columns, layout.photometric)
            continue
        cells = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
        if layout.samples == 1:
            yield stored_values(cells.reshape(layout.rows, layout.columns), layout, notes)
        else:
            yield _colours(cells, layout, notes)


def _bytes(fp: BinaryIO, offset: int, start: int, size: int, swapped: bool) -> bytes:
    """A part of the pixel data; ``swapped``: words of two bytes change places, over the bounds of frames too."""
    first = start - start % 2 if swapped else start
    last = start + size + (start + size) % 2 if swapped else start + size
    fp.seek(offset + first)
    data = fp.read(last - first)
    if len(data) < last - first:
        raise UnreadablePixels(_SHORT)
    if swapped:
        data = np.frombuffer(data, np.uint8).reshape(-1, 2)[:, ::-1].tobytes()
    return data[start - first : start - first + size]


def _single_bits(fp: BinaryIO, offset: int, layout: PixelLayout, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """Eight pixels a byte, the first in the lowest bit; frames follow each other without a gap."""
    count = layout.rows * layout.columns * layout.samples
    for index in wanted:
        first = index * count
        data = _bytes(fp, offset, first // 8, (first + count + 7) // 8 - first // 8, swapped=False)
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[first % 8 :][:count]
        yield bits.reshape(layout.rows, layout.columns)


def _check_colours(layout: PixelLayout, notes: list[str]) -> None:
    if layout.photometric in ("YBR_ICT", "YBR_RCT"):
        # names of what JPEG 2000 does within a code stream: whoever decompressed it left RGB, and the label as it was
        notes.append(PixelNote.COLOURS_ASSUMED)
    elif layout.photometric not in ("RGB", "YBR_FULL") or layout.bits_allocated not in (8, 16):
        raise UnreadablePixels("colours of a kind that is not read")
    if layout.signed:
        notes.append(PixelNote.BITS_CORRECTED)
    if layout.photometric == "YBR_FULL" and layout.bits_allocated != 8:
        raise UnreadablePixels("luminance and chrominance of more than eight bits")


def _colours(cells: np.ndarray, layout: PixelLayout, notes: list[str]) -> np.ndarray:
    if layout.planar:
        values = np.moveaxis(cells.reshape(3, layout.rows, layout.columns), 0, -1)
    else:
        values = cells.reshape(layout.rows, layout.columns, 3)
    values = np.ascontiguousarray(stored_values(values, replace(layout, signed=False), notes))
    return np.asarray(convert_color_space(values, "YBR_FULL", "RGB")) if layout.photometric == "YBR_FULL" else values
