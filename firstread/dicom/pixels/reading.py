"""Pixel data, frame by frame: stored values out of native and compressed files, with limits on memory.

Native data are read straight from the file; code streams go to a codec, after their own structure has been looked at.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from firstread.dicom.datasets import (
    GE_BIG_ENDIAN_PIXELS,
    PIXEL_DATA,
    UNDEFINED_LENGTH,
    Content,
    UnusableFile,
    inflate,
    opened,
)
from firstread.dicom.pixels.codecs import UnreadablePixels as UnreadablePixels
from firstread.dicom.pixels.codecs import elsewhere
from firstread.dicom.pixels.compressed import compressed_frames
from firstread.dicom.pixels.layout import FRAME_LIMIT_BYTES as FRAME_LIMIT_BYTES
from firstread.dicom.pixels.layout import PixelLayout as PixelLayout
from firstread.dicom.pixels.layout import PixelNote as PixelNote
from firstread.dicom.pixels.layout import layout_of as layout_of
from firstread.dicom.pixels.native import native_frames
from firstread.dicom.values import text

_TRAILER_BYTES: Final = 2048
"""What some writers leave behind the last pixel. More than that and than a row, and Rows or Columns may be wrong."""

_NATIVE: Final = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        GE_BIG_ENDIAN_PIXELS,
    }
)


def iter_frames(
    path: Path,
    indices: Sequence[int] | None = None,
    notes: list[str] | None = None,
    content: Content | None = None,
    layout: PixelLayout | None = None,
) -> Iterator[np.ndarray]:
    """Stored values of a file's frames, one at a time.

    Parameters
    ----------
    path : Path
        File in any encoding that :func:`firstread.dicom.datasets.read_dataset` reads.
    indices : sequence of int, optional
        Frames counted from 0; all of them by default.
    notes : list of str, optional
        Codes (:class:`firstread.dicom.pixels.layout.PixelNote`) of what had to be assumed are added to it.
    content : Content, optional
        What :func:`firstread.dicom.datasets.read_content` gave for the file, which is not parsed again then.
    layout : PixelLayout, optional
        Of the file's header, where it is known already.

    Yields
    ------
    ndarray
        (rows, columns) of int16/uint16 or as allocated, padding bits removed and sign extended; or
        (rows, columns, 3) uint8 in RGB.

    Raises
    ------
    UnreadablePixels
        If the data are missing, cut off, of a codec that is not there, or not what the header says.
    """
    try:
        with opened(path, content) as file:
            if file.pixel_tag is not None and file.pixel_tag != PIXEL_DATA:
                raise UnreadablePixels("float pixels")
            layout = layout or layout_of(file.ds)
            noted: list[str] = []
            wanted = range(layout.frames) if indices is None else indices
            for frame in _frames(file, layout, wanted, noted):
                if notes is not None:
                    notes += [code for code in dict.fromkeys((*layout.notes, *noted)) if code not in notes]
                yield frame
    except UnusableFile as error:
        raise UnreadablePixels(str(error)) from error


def decoded_elsewhere(ds: Dataset) -> bool:
    """Whether a header's pixel data are code streams, and this process has them decoded by another."""
    meta = getattr(ds, "file_meta", None)
    return elsewhere() and meta is not None and UID(text(meta, "TransferSyntaxUID")) not in _NATIVE


def read_frame(
    path: Path, index: int = 0, notes: list[str] | None = None, content: Content | None = None
) -> np.ndarray:
    """One frame of :func:`iter_frames`."""
    return next(iter_frames(path, (index,), notes, content))


def _frames(content: Content, layout: PixelLayout, wanted: Sequence[int], notes: list[str]) -> Iterator[np.ndarray]:
    if content.pixel_offset is None or content.pixel_length is None:
        raise UnreadablePixels("the data set has no pixel data")
    syntax = UID(text(content.ds.file_meta, "TransferSyntaxUID"))
    if not isinstance(wanted, range) and any(not 0 <= index < layout.frames for index in wanted):
        raise UnreadablePixels("a frame beyond Number of Frames")
    if content.pixel_length == UNDEFINED_LENGTH:
        if syntax in _NATIVE:
            raise UnreadablePixels("code streams under a transfer syntax without compression")
        content.fp.seek(content.pixel_offset)
        yield from compressed_frames(content.fp, syntax, layout, wanted, content.ds, notes)
        return
    if syntax not in _NATIVE:
        raise UnreadablePixels("pixel data without code streams under a transfer syntax with compression")
    yield from _uncompressed(content, content.pixel_offset, content.pixel_length, syntax, layout, wanted, notes)


def _uncompressed(
    content: Content,
    offset: int,
    length: int,
    syntax: UID,
    layout: PixelLayout,
    wanted: Sequence[int],
    notes: list[str],
) -> Iterator[np.ndarray]:
    fp = _inflated(content, layout) if syntax == DeflatedExplicitVRLittleEndian else content.fp
    if layout.in_pairs and length >= layout.frame_bytes * layout.frames:
        layout = replace(layout, photometric="YBR_FULL")  # the header names the sampling of a JPEG that it once held
    if length < layout.native_bytes or "truncated" in content.notes:
        raise UnreadablePixels("the pixel data are shorter than the header says")
    extra = length - layout.native_bytes
    if extra > max(_TRAILER_BYTES, layout.native_bytes // layout.rows) and extra % layout.native_frame_bytes > 1:
        raise UnreadablePixels("the pixel data are longer than the header says")
    if extra > 1:
        notes.append(PixelNote.EXTRA_PIXEL_DATA)
    if syntax == GE_BIG_ENDIAN_PIXELS and (layout.bits_allocated, layout.samples) != (16, 1):
        raise UnreadablePixels("a transfer syntax of its maker that is read for 16-bit grey only")
    big_endian = (content.pixel_vr or "OW") if syntax in (ExplicitVRBigEndian, GE_BIG_ENDIAN_PIXELS) else ""
    yield from native_frames(fp, offset, layout, wanted, big_endian, notes)


def _inflated(content: Content, layout: PixelLayout) -> BinaryIO:
    """The deflated data set as far as its pixel data reach."""
    needed = (content.pixel_offset or 0) + layout.native_bytes + 1
    if needed > FRAME_LIMIT_BYTES:
        raise UnreadablePixels("a deflated data set larger than the limit")
    fp = content.source
    fp.seek(content.body_offset)
    data = inflate(fp, needed)
    if len(data) + 1 < needed:
        raise UnreadablePixels("the pixel data are shorter than the header says")
    return io.BytesIO(data)
