"""Pixel data, frame by frame: stored values out of native and compressed files, with limits on memory.

Uncompressed 16-bit data are read straight from the file; everything else goes through pydicom's decoders, each codec
with its fastest plug-in first.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from firstread.dicom.codecs import CodedFrame, decode
from firstread.dicom.codecs import UnreadablePixels as UnreadablePixels
from firstread.dicom.codestream import stream_sizes
from firstread.dicom.datasets import (
    GE_BIG_ENDIAN_PIXELS,
    PARSE_ERRORS,
    UNDEFINED_LENGTH,
    Content,
    UnusableFile,
    inflate,
    number,
    opened,
    text,
)
from firstread.dicom.encapsulation import Encapsulated
from firstread.dicom.subsampled import SUBSAMPLED, rgb_of_pairs

FRAME_LIMIT_BYTES: Final = 512 * 2**20
"""Largest decoded frame; a 16-bit mammogram has 50 MB, a whole-slide tile less."""

_PLUGINS: Final[dict[str, tuple[str, ...]]] = {
    "1.2.840.10008.1.2.4.50": ("pylibjpeg", "gdcm"),
    "1.2.840.10008.1.2.4.51": ("pylibjpeg", "gdcm"),
    "1.2.840.10008.1.2.4.57": ("gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.70": ("gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.81": ("pyjpegls", "gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.90": ("gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.91": ("gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.5": ("pylibjpeg", "pydicom"),
}


@dataclass(frozen=True)
class PixelLayout:
    """Image Pixel module (PS3.3 C.7.6.3) with its oddities set right: what the decoders are told."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: int
    overlay_above: bool = False
    """Whether an overlay lies in the unused high bits, as old writers did (PS3.3 C.9.2, retired)."""

    @property
    def frame_bytes(self) -> int:
        """Of a decoded frame."""
        return (self.rows * self.columns * self.samples * self.bits_allocated + 7) // 8

    @property
    def in_pairs(self) -> bool:
        """Whether native pixels share their chrominance two by two."""
        return self.photometric in SUBSAMPLED and (self.samples, self.bits_allocated) == (3, 8)

    @property
    def native_frame_bytes(self) -> int:
        """Of a frame as it is stored without compression."""
        return self.frame_bytes // 3 * 2 if self.in_pairs else self.frame_bytes


def layout_of(ds: Dataset) -> PixelLayout:
    """Layout that a header promises.

    Raises
    ------
    UnreadablePixels
        If there is no image, or none within ``FRAME_LIMIT_BYTES`` a frame.
    """
    rows, columns = _whole(ds, "Rows", 0), _whole(ds, "Columns", 0)
    if rows < 1 or columns < 1:
        raise UnreadablePixels("the data set holds no image (no Rows or Columns)")
    allocated = _whole(ds, "BitsAllocated", 16)
    if allocated not in (1, 8, 16, 32):
        raise UnreadablePixels(f"Bits Allocated of {allocated} is not read")
    stored = _whole(ds, "BitsStored", allocated)
    if not 1 <= stored <= allocated:
        stored = allocated
    high = _whole(ds, "HighBit", stored - 1)
    if not stored - 1 <= high < allocated:
        high = stored - 1
    samples = _whole(ds, "SamplesPerPixel", 1)
    if samples not in (1, 3):
        raise UnreadablePixels(f"{samples} samples a pixel are not read")
    layout = PixelLayout(
        rows=rows,
        columns=columns,
        samples=samples,
        frames=max(1, _whole(ds, "NumberOfFrames", 1)),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=_whole(ds, "PixelRepresentation", 0) == 1,
        photometric=text(ds, "PhotometricInterpretation", 32).upper() or ("RGB" if samples == 3 else "MONOCHROME2"),
        planar=_whole(ds, "PlanarConfiguration", 0) & 1,
        overlay_above=stored < allocated and any(_overlay_bit(ds, group) for group in range(0x6000, 0x6020, 2)),
    )
    if layout.frame_bytes > FRAME_LIMIT_BYTES:
        raise UnreadablePixels("a frame larger than the limit")
    return layout


def _whole(ds: Dataset, keyword: str, default: int) -> int:
    value = number(ds, keyword)
    return default if value is None else int(value)


def _overlay_bit(ds: Dataset, group: int) -> bool:
    try:
        element = ds.get((group, 0x0102))
        return element is not None and int(element.value or 0) > 0
    except PARSE_ERRORS:
        return False


def iter_frames(path: Path, indices: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """Stored values of a file's frames, one at a time.

    Parameters
    ----------
    path : Path
        File in any encoding that :func:`firstread.dicom.datasets.read_dataset` reads.
    indices : sequence of int, optional
        Frames counted from 0; all of them by default.

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
        with opened(path) as content:
            layout = layout_of(content.ds)
            wanted = range(layout.frames) if indices is None else indices
            yield from _frames(content, layout, wanted)
    except UnusableFile as error:
        raise UnreadablePixels(str(error)) from error


def read_frame(path: Path, index: int = 0) -> np.ndarray:
    """One frame of :func:`iter_frames`."""
    return next(iter_frames(path, (index,)))


def _frames(content: Content, layout: PixelLayout, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    if content.pixel_offset is None or content.pixel_length is None:
        raise UnreadablePixels("the data set has no pixel data")
    syntax = UID(text(content.ds.file_meta, "TransferSyntaxUID"))
    fp, length = content.fp, content.pixel_length
    if any(not 0 <= index < layout.frames for index in wanted):
        raise UnreadablePixels("a frame beyond Number of Frames")
    encapsulated = length == UNDEFINED_LENGTH
    if syntax == DeflatedExplicitVRLittleEndian:
        fp = _inflated(content, layout)
    if not encapsulated and layout.in_pairs and length >= layout.frame_bytes * layout.frames:
        layout = replace(layout, photometric="YBR_FULL")  # the header names the sampling of a JPEG that it once held
    if not encapsulated and (length < layout.native_frame_bytes * layout.frames or "truncated" in content.notes):
        raise UnreadablePixels("the pixel data are shorter than the header says")
    if not encapsulated and layout.in_pairs:
        yield from _in_pairs(fp, content.pixel_offset, layout, wanted)
        return
    if not encapsulated and layout.bits_allocated == 16 and layout.samples == 1:
        big = syntax in (ExplicitVRBigEndian, GE_BIG_ENDIAN_PIXELS)
        yield from _native(fp, content.pixel_offset, layout, wanted, big)
        return
    fp.seek(content.pixel_offset)
    for frame in _decoded(fp, syntax, layout, wanted, content.ds):
        yield _set_right(frame, layout) if layout.samples == 1 else frame


def _inflated(content: Content, layout: PixelLayout) -> BinaryIO:
    """The deflated data set as far as its pixel data reach."""
    needed = (content.pixel_offset or 0) + layout.native_frame_bytes * layout.frames + 1
    if needed > FRAME_LIMIT_BYTES:
        raise UnreadablePixels("a deflated data set larger than the limit")
    fp = content.source
    fp.seek(content.body_offset)
    data = inflate(fp, needed)
    if len(data) + 1 < needed:
        raise UnreadablePixels("the pixel data are shorter than the header says")
    return io.BytesIO(data)


def _stored(fp: BinaryIO, offset: int, layout: PixelLayout, wanted: Sequence[int]) -> Iterator[bytes]:
    size = layout.native_frame_bytes
    for index in wanted:
        fp.seek(offset + index * size)
        data = fp.read(size)
        if len(data) < size:
            raise UnreadablePixels("the pixel data are shorter than the header says")
        yield data


def _in_pairs(fp: BinaryIO, offset: int, layout: PixelLayout, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    if layout.columns % 2:
        raise UnreadablePixels("chrominance for two pixels each, and an odd number of Columns")
    for data in _stored(fp, offset, layout, wanted):
        yield rgb_of_pairs(data, layout.rows, layout.columns, layout.photometric)


def _native(
    fp: BinaryIO, offset: int, layout: PixelLayout, wanted: Sequence[int], big_endian: bool
) -> Iterator[np.ndarray]:
    dtype = np.dtype(">u2" if big_endian else "<u2")
    for data in _stored(fp, offset, layout, wanted):
        frame = np.frombuffer(data, dtype=dtype).reshape(layout.rows, layout.columns).astype(np.uint16, copy=False)
        yield _set_right(frame, layout)


def _set_right(frame: np.ndarray, layout: PixelLayout) -> np.ndarray:
    """Move the stored bits down, drop an overlay that lies above them, and read the sign.

    Declared bits that cannot hold the values are not believed: an unsigned 12-bit file that stores 63536 means -2000.
    """
    if layout.bits_allocated not in (8, 16):
        return frame
    unsigned, signed = np.dtype(f"u{layout.bits_allocated // 8}"), np.dtype(f"i{layout.bits_allocated // 8}")
    raw = frame.view(unsigned) if frame.dtype.itemsize == unsigned.itemsize else frame.astype(unsigned)
    shift = layout.high_bit + 1 - layout.bits_stored
    if shift:
        return np.asarray((raw.view(signed) if layout.signed else raw) >> shift)
    if layout.overlay_above:
        spare = layout.bits_allocated - layout.bits_stored
        raw = raw << unsigned.type(spare)
        return np.asarray((raw.view(signed) if layout.signed else raw) >> spare)
    sign_bit = 1 << (layout.bits_allocated - 1)
    if layout.signed or (layout.bits_stored < layout.bits_allocated and int(raw.max(initial=0)) >= sign_bit):
        return raw.view(signed)
    return raw


def _decoded(
    fp: BinaryIO, syntax: UID, layout: PixelLayout, wanted: Sequence[int], ds: Dataset
) -> Iterator[np.ndarray]:
    try:
        native = not get_decoder(syntax).is_encapsulated
    except PARSE_ERRORS as error:
        raise UnreadablePixels("a transfer syntax that is not decoded") from error
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "number_of_frames": layout.frames,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        # in a JPEG it is the full range all the same
        "photometric_interpretation": layout.photometric.replace("PARTIAL_422", "FULL_422"),
        "pixel_keyword": "PixelData",
    }
    if layout.samples == 3:
        options["planar_configuration"] = layout.planar
    if native:
        yield from _uncompressed(fp, syntax, wanted, options)
        return
    extended = ds.get("ExtendedOffsetTable")
    streams = Encapsulated(fp, layout.frames, extended if isinstance(extended, bytes) else None)
    for index in wanted:
        data = streams.stream(index)
        if syntax != RLELossless:
            _check_sizes(data, layout)
        plugins = _PLUGINS.get(syntax, ("",))
        yield decode(CodedFrame(syntax, data, {**options, "number_of_frames": 1}, plugins, layout.frame_bytes))


def _uncompressed(fp: BinaryIO, syntax: UID, wanted: Sequence[int], options: dict[str, Any]) -> Iterator[np.ndarray]:
    """Native pixel data that are not 16-bit grey: no codec touches them."""
    try:
        for frame, _ in get_decoder(syntax).iter_array(fp, indices=wanted, **options):
            yield frame
    except (*PARSE_ERRORS, OSError, RuntimeError) as error:
        raise UnreadablePixels(f"the decoder of {syntax.name} failed ({type(error).__name__})") from error


def _check_sizes(data: bytes, layout: PixelLayout) -> None:
    """Compare every size that a code stream tells with the header's, before a codec allocates it.

    Raises
    ------
    UnreadablePixels
        If they differ.
    """
    for rows, columns in stream_sizes(data):
        if rows not in (0, layout.rows) or columns not in (0, layout.columns):
            raise UnreadablePixels("the code stream is of another size than Rows and Columns")
