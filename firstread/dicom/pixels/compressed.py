"""Compressed pixel data, frame by frame: each code stream is looked at, decoded, and its values are set right.

A stream's own facts count before the header's labels: its kind, its components, the depth and sign of its samples, and
what it says of its colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, RLELossless

from firstread.dicom.pixels.bits import stored_values
from firstread.dicom.pixels.codecs import CodedFrame, UnreadablePixels, decode
from firstread.dicom.pixels.codestream import Jpeg2000Stream, JpegStream, StreamFacts, check_rle, code_stream
from firstread.dicom.pixels.encapsulation import Encapsulated
from firstread.dicom.pixels.layout import PixelLayout, PixelNote

_DCT: Final = ("1.2.840.10008.1.2.4.50", ("pylibjpeg", "gdcm"))
_LOSSLESS: Final = ("1.2.840.10008.1.2.4.57", ("gdcm", "pylibjpeg"))
_JPEG_LS: Final = ("1.2.840.10008.1.2.4.80", ("pyjpegls", "gdcm"))
_JPEG_2000: Final = ("1.2.840.10008.1.2.4.91", ("gdcm", "pylibjpeg"))
_HTJ2K: Final = ("1.2.840.10008.1.2.4.203", ("pylibjpeg",))
_RLE: Final = (str(RLELossless), ("pylibjpeg", "pydicom"))
"""Under which transfer syntax a stream is decoded, and with which plug-ins of pydicom: strict ones first."""

MOST_LOOKED_AT: Final = 64
"""Frames of an object up to which the sizes of all are looked at before the first is decoded."""

_LUMINANCE: Final = frozenset({"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"})
_WITHIN_JPEG_2000: Final = frozenset({"YBR_ICT", "YBR_RCT"})


def compressed_frames(
    fp: BinaryIO, syntax: UID, layout: PixelLayout, wanted: Sequence[int], ds: Dataset, notes: list[str]
) -> Iterator[np.ndarray]:
    """Frames of encapsulated pixel data.

    Parameters
    ----------
    fp : BinaryIO
        Positioned at the first item.
    wanted : sequence of int
        Frames, counted from 0.
    ds : Dataset
        Header, for its Extended Offset Table.
    notes : list of str
        Codes of what had to be assumed are added to it.

    Yields
    ------
    ndarray
        (rows, columns), or (rows, columns, 3) in RGB.

    Raises
    ------
    UnreadablePixels
        If a code stream is not there, not complete, damaged, or not what the header says.
    """
    extended = ds.get("ExtendedOffsetTable")
    streams = Encapsulated(fp, layout.frames, extended if isinstance(extended, bytes) else None)
    if syntax != RLELossless and 1 < layout.frames <= MOST_LOOKED_AT:
        _check_all(streams, layout)
    for index in wanted:
        data = streams.stream(index)
        if syntax == RLELossless:
            yield _run_lengths(data, layout, notes)
        else:
            yield _decoded(data, layout, notes)


def _run_lengths(data: bytes, layout: PixelLayout, notes: list[str]) -> np.ndarray:
    check_rle(data, layout.samples * max(1, layout.bits_allocated // 8))
    facts = StreamFacts(layout.samples, layout.bits_allocated)
    colours = _colours(facts, layout, notes)
    return _set_right(_decode(_RLE, data, facts, layout, colours), facts, layout, notes)


def _check_all(streams: Encapsulated, layout: PixelLayout) -> None:
    """Refuse an object one of whose streams lies about its size, whichever frame is asked for."""
    for index in range(len(streams)):
        try:
            data = streams.stream(index)
        except UnreadablePixels:
            continue  # its own frame says so where it is asked for
        _check_sizes(code_stream(data), layout)


def _check_sizes(stream: JpegStream | Jpeg2000Stream | None, layout: PixelLayout) -> None:
    for rows, columns in stream.sizes if stream is not None else ():
        if rows not in (0, layout.rows) or columns not in (0, layout.columns):
            raise UnreadablePixels("the code stream is of another size than Rows and Columns")


def _decoded(data: bytes, layout: PixelLayout, notes: list[str]) -> np.ndarray:
    stream = code_stream(data)
    _check_sizes(stream, layout)
    if stream is None:
        raise UnreadablePixels("no code stream of a kind that is decoded")
    facts = stream.facts()
    if facts.components != layout.samples:
        raise UnreadablePixels(f"a code stream of {facts.components} components, and {layout.samples} samples a pixel")
    if not facts.header and not facts.sampled_alike:
        raise UnreadablePixels("components of different sizes in JPEG 2000")
    colours = _colours(facts, layout, notes)
    return _set_right(_decode(_codec(facts), data, facts, layout, colours), facts, layout, notes)


def _codec(facts: StreamFacts) -> tuple[str, tuple[str, ...]]:
    if facts.header == 0:
        return _HTJ2K if facts.high_throughput else _JPEG_2000
    if facts.header == 0xF7:
        return _JPEG_LS
    if facts.header == 0xC3:
        return _LOSSLESS
    return _DCT


def _colours(facts: StreamFacts, layout: PixelLayout, notes: list[str]) -> str:
    """Photometric Interpretation for the decoder: of the stream where it tells, else that of the header."""
    label = layout.photometric
    if layout.samples == 1:
        return "MONOCHROME2"
    jpeg_2000 = facts.header == 0 and facts.colours == "RGB"
    if facts.colours:
        agrees = label == "RGB" if facts.colours == "RGB" else label in _LUMINANCE
        if not agrees and not (jpeg_2000 and label in _WITHIN_JPEG_2000):
            notes.append(PixelNote.COLOURS_ASSUMED)
        return "YBR_RCT" if jpeg_2000 else facts.colours
    if label == "RGB":
        return label
    if label in _LUMINANCE:
        return "YBR_FULL"  # in a code stream it is the full range, whatever the label's range and sampling
    if label in _WITHIN_JPEG_2000:
        notes.append(PixelNote.COLOURS_ASSUMED)
        return "YBR_FULL" if facts.header not in (0, 0xF7) else "RGB"
    raise UnreadablePixels("colours of a kind that is not read")


def _decode(
    codec: tuple[str, tuple[str, ...]], data: bytes, facts: StreamFacts, layout: PixelLayout, colours: str
) -> np.ndarray:
    syntax, plugins = codec
    bits = next((size for size in (8, 16, 32) if facts.precision <= size), 64)
    if bits > max(16, layout.bits_allocated):
        raise UnreadablePixels(f"a code stream of {facts.precision} bits")
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "number_of_frames": 1,
        "bits_allocated": bits,
        "bits_stored": facts.precision,
        "pixel_representation": int(facts.signed),
        "photometric_interpretation": colours,
        "pixel_keyword": "PixelData",
    }
    if layout.samples == 3:
        options["planar_configuration"] = 0
    frame_bytes = layout.rows * layout.columns * layout.samples * bits // 8
    return decode(CodedFrame(syntax, data, options, plugins, frame_bytes))


def _set_right(decoded: np.ndarray, facts: StreamFacts, layout: PixelLayout, notes: list[str]) -> np.ndarray:
    """Values as the header means them: a stream as deep as the cell holds what else lies in the cell too."""
    if decoded.ndim == 3:
        if facts.precision > 8 and facts.precision != layout.bits_stored:
            raise UnreadablePixels("a colour code stream of another depth than Bits Stored")
        return decoded
    if facts.signed:
        if not layout.signed:
            notes.append(PixelNote.BITS_CORRECTED)
        return decoded
    if layout.bits_allocated > 8 and decoded.dtype.itemsize == 1:
        decoded = decoded.astype(np.uint16)
    if facts.precision <= layout.bits_stored:
        layout = replace(layout, bits_stored=facts.precision, high_bit=facts.precision - 1, overlay_above=False)
    return stored_values(decoded, layout, notes)
