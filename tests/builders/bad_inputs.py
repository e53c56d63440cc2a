"""The bad-input zoo: files that are no DICOM, no study, or DICOM with something wrong in it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from firstread.dicom.elements import ELEMENT_LIMIT
from firstread.phantoms.ct import file_meta
from firstread.phantoms.head import HeadSpec, head_study
from tests.builders.streams import behind_segments, jpeg, of_size, second_header, with_streams


@dataclass(frozen=True)
class BadInput:
    """A file that cannot become an instance, and the reason that intake must give."""

    name: str
    reason: str
    write: Callable[[Path], object]


def tiny_slice(seed: int = 0) -> Dataset:
    """One small, valid CT slice."""
    return head_study(HeadSpec(slices=1, size=32)).objects[0]


def encoded(ds: Dataset) -> bytes:
    """A data set as a DICOM file's bytes."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _without_uids(path: Path) -> None:
    ds = tiny_slice()
    del ds.StudyInstanceUID, ds.SeriesInstanceUID
    ds.save_as(path, enforce_file_format=True)


def _long_uid(path: Path) -> None:
    ds = tiny_slice()
    ds.StudyInstanceUID = "1." + "2" * 200
    ds.save_as(path, enforce_file_format=True)


def _meta_only(path: Path) -> None:
    data = encoded(tiny_slice())
    group_length = struct.unpack("<I", data[140:144])[0]
    path.write_bytes(data[: 144 + group_length])


def _cut_in_header(path: Path) -> None:
    data = encoded(tiny_slice())
    path.write_bytes(data[: data.index(b"PHANTOM^") + 3])


def _deflated_bomb(path: Path) -> None:
    """A few kilobytes that swell to gigabytes of private elements before any UID."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = bytearray()
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 2**20) + bytes(2**20)
    for _ in range(256):
        body += deflate.compress(element)
    body += deflate.flush()
    path.write_bytes(_preamble(DeflatedExplicitVRLittleEndian) + bytes(body))


def _header_bomb(path: Path) -> None:
    """Elements that each keep below the limit of one, and together do not; the file is sparse."""
    length = 15 * 2**20
    with path.open("wb") as fp:
        fp.write(_preamble("1.2.840.10008.1.2.1"))
        for number in range(6):
            fp.write(struct.pack("<HH2sHI", 0x0009, 0x1001 + number, b"OB", 0, length))
            fp.seek(length, io.SEEK_CUR)
        fp.write(struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 2) + b"A ")


def _deep_sequence(path: Path) -> None:
    """A sequence nested deeper than any parser's stack."""
    item = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    path.write_bytes(_preamble("1.2.840.10008.1.2.1") + item * 20000)


def many_items(n: int, *, defined: bool = False, keyword: str = "ReferencedImageSequence") -> bytes:
    """A slice whose header holds a sequence of empty items, eight bytes each."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * n
    length = len(items) if defined else 0xFFFFFFFF
    head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, length)
    return with_elements(head + items + (b"" if defined else struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)))


def with_elements(elements: bytes) -> bytes:
    """A slice with encoded elements more, in front of the patient's."""
    data = encoded(tiny_slice())
    at = data.index(struct.pack("<HH", 0x0010, 0x0010))
    return data[:at] + elements + data[at:]


def _many_elements(path: Path) -> None:
    numbers = range(ELEMENT_LIMIT + 1)
    path.write_bytes(with_elements(b"".join(struct.pack("<HH2sH", 0x0009, n & 0xFFFF, b"LO", 0) for n in numbers)))


def _preamble(syntax: str) -> bytes:
    ds = Dataset()
    ds.file_meta = file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    ds.PatientID = "X"
    data = encoded(ds)
    group_length = struct.unpack("<I", data[140:144])[0]
    meta = data[144 : 144 + group_length]
    old = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = meta.replace(old, struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid)
    return data[:132] + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("slice.dcm", encoded(tiny_slice()))


def _picture(extension: str) -> bytes:
    ok, data = cv2.imencode(extension, np.full((32, 32), 90, np.uint8))
    assert ok
    return data.tobytes()


BAD_INPUTS: tuple[BadInput, ...] = (
    BadInput("empty.dcm", "empty", lambda p: p.write_bytes(b"")),
    BadInput("text.dcm", "not_dicom", lambda p: p.write_text("a report, not an image\n" * 20)),
    BadInput("zeros.dcm", "not_dicom", lambda p: p.write_bytes(bytes(4096))),
    BadInput("archive.dcm", "not_dicom", _zip),
    BadInput("jpeg.dcm", "not_dicom", lambda p: p.write_bytes(_picture(".jpg"))),
    BadInput("png.dcm", "not_dicom", lambda p: p.write_bytes(_picture(".png"))),
    BadInput("short.dcm", "not_dicom", lambda p: p.write_bytes(b"\x08\x00")),
    BadInput("noise.dcm", "not_dicom", lambda p: p.write_bytes(np.random.default_rng(3).bytes(5000))),
    BadInput("meta_only.dcm", "no_dataset", _meta_only),
    BadInput("cut_in_header.dcm", "truncated", _cut_in_header),
    BadInput("no_uids.dcm", "missing_uids", _without_uids),
    BadInput("long_uid.dcm", "bad_uid", _long_uid),
    BadInput("deflated_bomb.dcm", "bomb", _deflated_bomb),
    BadInput("header_bomb.dcm", "bomb", _header_bomb),
    BadInput("deep_sequence.dcm", "corrupt", _deep_sequence),
    BadInput("many_elements.dcm", "corrupt", _many_elements),
)
"""What intake must refuse."""


def _rows(ds: Dataset) -> None:
    ds.Rows, ds.Columns = 65535, 65535


def _short_pixels(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]


def _no_pixels(ds: Dataset) -> None:
    del ds.PixelData


def _frames(ds: Dataset) -> None:
    ds.NumberOfFrames = 100000


def _broken_jpeg(ds: Dataset) -> None:
    data = _picture(".jpg")
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    frame = data[: len(data) // 2]
    frame += b"\0" * (len(frame) % 2)
    ds.PixelData = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    ds.PixelData += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    ds["PixelData"].is_undefined_length = True


def _wrong_jpeg_size(ds: Dataset) -> None:
    _broken_jpeg(ds)
    ds.Rows = 31


def _bits(ds: Dataset) -> None:
    ds.BitsAllocated = 24


def _float_pixels(ds: Dataset) -> None:
    del ds.PixelData
    ds.BitsAllocated = 32
    ds.FloatPixelData = np.zeros((ds.Rows, ds.Columns), "<f4").tobytes()


def _colour_jpeg() -> bytes:
    ok, data = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))
    assert ok
    return data.tobytes()


def _cut(ds: Dataset, syntax: UID) -> None:
    plugin = "pyjpegls" if syntax == JPEGLSLossless else "pylibjpeg"
    ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    stream: bytes = next(generate_frames(ds.PixelData, number_of_frames=1))
    stream = stream[: len(stream) * 4 // 5]
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    ds["PixelData"].is_undefined_length = True


UNREADABLE: dict[str, Callable[[Dataset], object]] = {
    "gigantic_rows": _rows,
    "short_pixels": _short_pixels,
    "no_pixels": _no_pixels,
    "impossible_frames": _frames,
    "broken_jpeg": _broken_jpeg,
    "wrong_jpeg_size": _wrong_jpeg_size,
    "odd_bits_allocated": _bits,
    "jpeg_of_another_size": lambda ds: with_streams(ds, [of_size(jpeg())]),
    "size_behind_segments": lambda ds: with_streams(ds, [behind_segments(of_size(jpeg()))]),
    "second_size": lambda ds: with_streams(ds, [second_header(jpeg())]),
    "float_pixels": _float_pixels,
    "two_kinds_of_samples": lambda ds: setattr(ds, "PhotometricInterpretation", "RGB"),
    "colours_in_a_grey_object": lambda ds: with_streams(ds, [_colour_jpeg()]),
    "cut_jpeg": lambda ds: with_streams(ds, [jpeg()[:-40]]),
    "cut_jpeg_closed_again": lambda ds: with_streams(ds, [jpeg()[:-40] + b"\xff\xd9"]),
    "cut_jpeg_ls": lambda ds: _cut(ds, JPEGLSLossless),
    "cut_jpeg_2000": lambda ds: _cut(ds, JPEG2000Lossless),
    "cut_rle": lambda ds: _cut(ds, RLELossless),
    "second_frame_of_another_size": lambda ds: with_streams(ds, [jpeg(), of_size(jpeg())]),
}
"""Changes to a slice that leave it an instance, but one whose pixels cannot be had."""


def implicit(ds: Dataset) -> Dataset:
    """The same data set, to be written as implicit VR little endian."""
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return ds
