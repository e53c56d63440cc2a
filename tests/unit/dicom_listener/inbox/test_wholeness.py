"""A file is whole when its own structure says so, and no sooner."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from dicom_listener.inbox.wholeness import Wholeness, wholeness_of
from firstread.dicom.files import read_header
from tests.builders.bad_inputs import encoded, tiny_slice


def picture(fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(buffer, fmt, **options)
    return buffer.getvalue()


def compressed(frames: int = 1) -> Dataset:
    ds = tiny_slice()
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.NumberOfFrames = frames
    stream = picture("JPEG")
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)] * frames)
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    return ds


def in_syntax(ds: Dataset, syntax: str, implicit: bool = False, little: bool = True) -> bytes:
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = io.BytesIO()
    ds.save_as(buffer, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


def archive(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for number in range(3):
            target.writestr(f"{number}.dcm", encoded(tiny_slice(number)))
    return buffer.getvalue()


def trailing() -> Dataset:
    ds = tiny_slice()
    ds.add_new(0xFFFCFFFC, "OB", bytes(64))
    return ds


def is_whole(path: Path) -> bool:
    return wholeness_of(path) is Wholeness.WHOLE


WHOLE = {
    "native": encoded(tiny_slice()),
    "implicit": in_syntax(tiny_slice(), ImplicitVRLittleEndian, implicit=True),
    "big endian": in_syntax(tiny_slice(), ExplicitVRBigEndian, little=False),
    "deflated": in_syntax(tiny_slice(), DeflatedExplicitVRLittleEndian),
    "compressed": encoded(compressed()),
    "three frames": encoded(compressed(3)),
    "trailing element": encoded(trailing()),
    "jpeg": picture("JPEG", exif=Image.Exif()),
    "progressive": picture("JPEG", progressive=True),
    "png": picture("PNG"),
    "zip": archive(zipfile.ZIP_DEFLATED),
    "zip of stored members": archive(zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_and_every_cut(name: str, tmp_path: Path) -> None:
    data, path = WHOLE[name], tmp_path / "file"
    path.write_bytes(data)
    assert is_whole(path)
    step = max(1, len(data) // 40)
    for length in sorted({*range(0, len(data), step), *range(len(data) - 12, len(data))} | {125, 130}):
        path.write_bytes(data[:length])
        assert not is_whole(path), f"{length} of {len(data)} bytes"


@pytest.mark.parametrize("name", ["compressed", "jpeg", "png", "zip", "deflated"])
def test_a_file_made_at_its_full_size_is_not_whole_yet(name: str, tmp_path: Path) -> None:
    data, path = WHOLE[name] if name != "png" else picture("PNG", compress_level=0), tmp_path / "file"
    for written in (0, 100, 200, len(data) * 6 // 10):
        path.write_bytes(data[:written].ljust(len(data), b"\0"))
        assert not is_whole(path)


def test_a_file_with_a_hole_is_not_whole_yet(tmp_path: Path) -> None:
    """Native pixel data tell nothing of themselves: what was never written does."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(WHOLE["native"][:-1000])
        file.truncate(2**20)
        if file.seek(0, 2) and path.stat().st_blocks * 512 >= 2**20:
            pytest.fail("this file system keeps no holes, and the listener cannot see one")
    assert not is_whole(path)


def test_an_image_without_pixel_data_may_be_all_there_is(tmp_path: Path) -> None:
    ds = tiny_slice()
    del ds.PixelData
    path = tmp_path / "file"
    path.write_bytes(encoded(ds))
    assert wholeness_of(path) is Wholeness.DOUBTFUL
    assert read_header(path).warnings == ()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.33")
    del ds.Rows
    path.write_bytes(encoded(ds))
    assert is_whole(path), "a report has none"


def test_an_archive_at_the_end_of_a_cut_one_does_not_make_it_whole(tmp_path: Path) -> None:
    inner = archive(zipfile.ZIP_DEFLATED)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as outer:
        outer.writestr("first.dcm", encoded(tiny_slice()))
        outer.writestr("inner.zip", inner)
    data, path = buffer.getvalue(), tmp_path / "file"
    path.write_bytes(data[: data.index(inner) + len(inner)])
    assert not is_whole(path)


@pytest.mark.parametrize(
    "data",
    [b"no image\n" * 9, b"a report, not an image\n" * 20, b"II*\0" + bytes(300), b"%PDF-1.7 and more"],
    ids=["short text", "text", "tiff", "pdf"],
)
def test_what_is_refused_in_any_case_is_not_waited_for(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert is_whole(path)


def test_a_missing_delimiter_is_waited_for_and_then_no_fault(tmp_path: Path) -> None:
    """Some writers leave the sequence delimiter out; the code streams say that they are complete."""
    data, path = WHOLE["three frames"][:-8], tmp_path / "file"
    path.write_bytes(data)
    assert wholeness_of(path) is Wholeness.DOUBTFUL
    assert read_header(path).warnings == ()
    path.write_bytes(data[:-20])
    assert read_header(path).warnings == ("truncated",)
    at = data.rindex(struct.pack("<HH", 0xFFFE, 0xE000))
    path.write_bytes(data[:at])
    assert read_header(path).warnings == ("truncated",), "two of three frames"
