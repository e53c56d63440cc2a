"""One picture in every way in which its pixels may be stored: grey, signed, and in colour."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

Change = Callable[[Dataset, Path], Dataset]
"""Stores the picture of a data set in another way; the folder is for the tools that need one."""


def cells(ds: Dataset) -> np.ndarray:
    """Pixel cells of a native little-endian object."""
    shape = (ds.Rows, ds.Columns) if ds.SamplesPerPixel == 1 else (ds.Rows, ds.Columns, 3)
    count = int(np.prod(shape))
    return np.frombuffer(ds.PixelData, f"<u{ds.BitsAllocated // 8}")[:count].reshape(shape).copy()


def with_cells(ds: Dataset, values: np.ndarray, vr: str = "OW", **elements: Any) -> Dataset:
    """The object with other pixel cells, and elements by keyword."""
    data = np.ascontiguousarray(values).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = vr
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def with_stream(ds: Dataset, stream: bytes, syntax: str, photometric: str = "") -> Dataset:
    """The object with one code stream."""
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    if photometric:
        ds.PhotometricInterpretation = photometric
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
    return ds


def stream_of(ds: Dataset) -> bytes:
    """The only code stream of an object, without padding."""
    stream: bytes = next(generate_frames(ds.PixelData, number_of_frames=1))
    end = stream.rfind(b"\xff\xd9")
    return stream[: end + 2] if end >= len(stream) - 3 else stream


def dcmtk(*command: str) -> Change:
    """A compression tool of DCMTK."""

    def change(ds: Dataset, folder: Path) -> Dataset:
        program = shutil.which(command[0])
        assert program is not None, f"{command[0]} of DCMTK is not installed"
        source, target = folder / "native.dcm", folder / "coded.dcm"
        ds.save_as(source, enforce_file_format=True)
        subprocess.run([program, *command[1:], str(source), str(target)], check=True, capture_output=True)
        from pydicom import dcmread

        return dcmread(target)

    return change


def compressed(syntax: UID, plugin: str = "pylibjpeg") -> Change:
    """An encoder of pydicom."""

    def change(ds: Dataset, _: Path) -> Dataset:
        ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        return ds

    return change


def _syntax(uid: UID) -> Change:
    def change(ds: Dataset, _: Path) -> Dataset:
        ds.file_meta.TransferSyntaxUID = uid
        return ds

    return change


def big_endian(ds: Dataset, _: Path) -> Dataset:
    """Explicit VR Big Endian with words: those of 8-bit samples hold two, the first in the lower byte."""
    values = np.frombuffer(ds.PixelData, "<u2").astype(">u2")
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return with_cells(ds, values)


def left_aligned(ds: Dataset, _: Path) -> Dataset:
    """High Bit 15, with rubbish below."""
    return with_cells(ds, cells(ds) << (16 - ds.BitsStored) | 5, HighBit=15)


def overlay_left(bit: int) -> Change:
    """A rectangle in one of the bits above Bits Stored, as an anonymiser leaves it that drops group 6000."""

    def change(ds: Dataset, _: Path) -> Dataset:
        values = cells(ds)
        values[4:20, 3:25] |= np.uint16(1 << bit)
        return with_cells(ds, values)

    return change


def rubbish_above(ds: Dataset, _: Path) -> Dataset:
    """Noise in the bits above Bits Stored."""
    noise = np.random.default_rng(1).integers(0, 16, (ds.Rows, ds.Columns), dtype=np.uint16)
    return with_cells(ds, cells(ds) | noise << 12)


def odd_multiframe_of_bytes(ds: Dataset, _: Path) -> Dataset:
    """Two frames of 8 bits and odd size in big-endian words, the picture being the first."""
    stack = np.stack([cells(ds), cells(ds)[::-1]]).tobytes()
    words = np.frombuffer(stack + b"\0" * (len(stack) % 2), "<u2").astype(">u2")
    ds.file_meta.TransferSyntaxUID, ds.NumberOfFrames = ExplicitVRBigEndian, 2
    return with_cells(ds, words)


def of_more_bits(encode: Change) -> Change:
    """A code stream of 16 bits under a header of fewer."""

    def change(ds: Dataset, folder: Path) -> Dataset:
        stored = ds.BitsStored
        ds.BitsStored, ds.HighBit = 16, 15
        coded = encode(ds, folder)
        coded.BitsStored, coded.HighBit = stored, stored - 1
        return coded

    return change


LOSSLESS: dict[str, Change] = {
    "explicit": lambda ds, _: ds,
    "implicit": _syntax(ImplicitVRLittleEndian),
    "deflated": _syntax(DeflatedExplicitVRLittleEndian),
    "big_endian": big_endian,
    "left_aligned": left_aligned,
    "overlay_left_in_bit_12": overlay_left(12),
    "overlay_left_in_bit_15": overlay_left(15),
    "rubbish_above": rubbish_above,
    "rle": compressed(RLELossless),
    "jpeg_ls": compressed(JPEGLSLossless, "pyjpegls"),
    "jpeg_2000": compressed(JPEG2000Lossless),
    "jpeg_lossless_sv1": dcmtk("dcmcjpeg"),
    "jpeg_lossless": dcmtk("dcmcjpeg", "+el", "+sv", "6"),
    "jpeg_lossless_of_more_bits": of_more_bits(dcmtk("dcmcjpeg")),
    "dcmtk_jpeg_ls": dcmtk("dcmcjpls"),
    "dcmtk_rle": dcmtk("dcmcrle"),
    "jpeg_2000_of_more_bits": of_more_bits(compressed(JPEG2000Lossless)),
}
"""Ways that keep every value of a grey picture of 12 bits."""

LOSSY: dict[str, Change] = {
    "jpeg_extended": dcmtk("dcmcjpeg", "+ee", "+q", "95"),
    "jpeg_ls_near": dcmtk("dcmcjpls", "+en", "+md", "2"),
}
"""Ways that keep a grey picture of 12 bits nearly."""


def coded_picture(rgb: np.ndarray, kind: str, **options: object) -> bytes:
    """A picture as JPEG or JPEG 2000."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def bare(jpeg: bytes) -> bytes:
    """The same JPEG without the JFIF segment that Pillow puts first."""
    assert jpeg[2:4] == b"\xff\xe0"
    return jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6], "big") :]


def table_item(
    entries: Iterable[float], bits: int, first: int = 0, vr: str = "US", packed: bool = False, **elements: str
) -> Sequence:
    """A sequence of one look-up table.

    Parameters
    ----------
    vr : str
        Of the LUT Descriptor; a first value below 0 is written as the same 16 bits where it is ``US``.
    packed : bool
        Entries of 8 bits, two in a word.
    """
    values = np.rint(np.asarray(list(entries))).astype("<u2")
    item = Dataset()
    first = first % 65536 if vr == "US" else first
    item.add_new("LUTDescriptor", vr, [len(values) % 65536, first, bits])
    if packed or len(values) > 32767:
        data = values.astype(np.uint8).tobytes() if packed else values.tobytes()
        item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    else:
        item.add_new("LUTData", "US", [int(value) for value in values])
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


JPEG_SYNTAX, J2K_SYNTAX = str(JPEGBaseline8Bit), str(JPEG2000Lossless)
