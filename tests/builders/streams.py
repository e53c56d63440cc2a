"""Code streams that lie about their size, or break the codec that reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit

from firstread.dicom.pixels.codecs import CodedFrame

LIE = (65535, 65535)


def jpeg(size: int = 64, seed: int = 0) -> bytes:
    """A baseline JPEG of a square grey picture."""
    picture = np.random.default_rng(seed).integers(0, 256, (size // 8, size // 8), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", cv2.resize(picture, (size, size)))
    assert done
    return data.tobytes()


def _frame_header(stream: bytes) -> slice:
    at = stream.index(b"\xff\xc0")
    return slice(at, at + 2 + struct.unpack(">H", stream[at + 2 : at + 4])[0])


def of_size(stream: bytes, size: tuple[int, int] = LIE) -> bytes:
    """The same JPEG whose only frame header says another size."""
    at = stream.index(b"\xff\xc0") + 5
    return stream[:at] + struct.pack(">HH", *size) + stream[at + 4 :]


def second_header(stream: bytes, size: tuple[int, int] = LIE) -> bytes:
    """The same JPEG with a second frame header, of another size, behind the first."""
    header = _frame_header(stream)
    return stream[: header.stop] + of_size(stream[header], size) + stream[header.stop :]


def behind_segments(stream: bytes, count: int = 2) -> bytes:
    """The same JPEG with application segments of 64 KiB before its frame header."""
    return stream[:2] + (b"\xff\xe9" + struct.pack(">H", 65535) + bytes(65533)) * count + stream[2:]


def with_streams(
    ds: Dataset, streams: Sequence[bytes], syntax: UID = JPEGBaseline8Bit, size: int = 64, bits: int = 8
) -> Dataset:
    """A grey object that holds these code streams, a frame each."""
    ds.Rows = ds.Columns = size
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    if len(streams) > 1:
        ds.NumberOfFrames = len(streams)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2) for stream in streams])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    return ds


def endless_rle() -> bytes:
    """RLE whose runs go far beyond the end of a frame of 32x32 pixels of 16 bits: its Rust codec panics."""
    segment = b"\x81\x00" * 64
    return struct.pack("<3I", 2, 64, 64 + len(segment)) + bytes(52) + 2 * segment


def coded(data: bytes, syntax: UID, plugins: tuple[str, ...], size: int = 64, bits: int = 8) -> CodedFrame:
    """A grey frame as it is handed to a codec, whatever its stream says."""
    options = {
        "rows": size,
        "columns": size,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": bits,
        "bits_stored": bits,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    return CodedFrame(str(syntax), data, options, plugins, size * size * bits // 8)
