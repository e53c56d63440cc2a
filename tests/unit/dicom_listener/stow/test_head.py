"""The file meta group of a file that comes in pieces."""

from __future__ import annotations

import struct

import pytest

from dicom_listener.stow.head import HEAD_BYTES, FileHead, HeadReader
from firstread.dicom.files import UnusableFile
from tests.builders.listening import small_series
from tests.builders.stow import data_set_of, file_of

(DS,) = small_series(1)
FILE = file_of(DS)
START = FILE[:132]


def _read(data: bytes, step: int) -> tuple[FileHead, int]:
    reader = HeadReader()
    for at in range(0, len(data), step):
        head = reader.take(memoryview(data)[at : at + step])
        if head is not None:
            return head, reader.body_offset
    head = reader.take(b"", is_end=True)
    assert head is not None
    return head, reader.body_offset


@pytest.mark.parametrize("step", [1, 7, 150, 10**6])
@pytest.mark.parametrize("skipped", [0, 132])
def test_a_head_in_pieces_of_any_size(step: int, skipped: int) -> None:
    head, offset = _read(FILE[skipped:], step)
    assert FILE[skipped + offset :] == data_set_of(FILE)
    assert head.sop_instance_uid == DS.SOPInstanceUID
    assert head.sop_class_uid == DS.SOPClassUID
    assert head.transfer_syntax_uid == DS.file_meta.TransferSyntaxUID


def test_a_file_that_ends_with_its_head() -> None:
    head, offset = _read(FILE[: -len(data_set_of(FILE))], 1000)
    assert (head.sop_instance_uid, offset) == (DS.SOPInstanceUID, len(FILE) - len(data_set_of(FILE)))


def _element(element: int, value: bytes, vr: bytes = b"UI") -> bytes:
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_dicom"),
        (b"x" * 500, "not_dicom"),
        (START, "not_dicom"),
        (START + b"\x08\x00\x05\x00CS\x02\x00A ", "not_dicom"),
        (FILE[:170], "truncated"),
        (START + b"\x02\x00\x10", "truncated"),
        (START + b"\x02\x00\x02\x01OB\x00\x00\xff\xff\xff\xff" + bytes(100), "not_dicom"),
        (START + struct.pack("<HHI", 2, 0x10, 4) + b"1.2\0" + bytes(20), "not_dicom"),
        (START + _element(0x10, b"1" * 300) + b"\x08\x00", "bad_uid"),
        (START + _element(0x13, b"X" * 60_000, b"SH") * 3, "not_dicom"),
    ],
)
def test_what_is_none(data: bytes, reason: str) -> None:
    for step in (101, 10**6):
        with pytest.raises(UnusableFile) as refused:
            _read(data, step)
        assert refused.value.reason == reason


def test_a_head_without_an_end_is_not_kept() -> None:
    reader = HeadReader()
    with pytest.raises(UnusableFile):
        for _ in range(10):
            reader.take(START + _element(0x13, b"X" * 60_000, b"SH") if not reader.data else bytes(10_000))
    assert len(reader.data) <= 3 * HEAD_BYTES
