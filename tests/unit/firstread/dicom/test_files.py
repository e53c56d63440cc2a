"""Reading what arrives: encodings, identifiers, and everything that must be refused."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from firstread.dicom.elements import VALUE_LIMIT_BYTES
from firstread.dicom.files import NoStudy, NotDicom, UnusableFile, header_of, patient_key, read_dataset, read_header
from firstread.dicom.uids import is_standard_uid, stable_uid
from tests.builders.bad_inputs import BAD_INPUTS, BadInput, encoded, tiny_slice

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def _body(syntax: UID) -> bytes:
    buffer = io.BytesIO()
    ds = tiny_slice()
    del ds.file_meta
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
    ds.save_as(buffer, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return buffer.getvalue()


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_bad_input_is_refused_with_its_reason(bad: BadInput, tmp_path: Path) -> None:
    path = tmp_path / bad.name
    bad.write(path)
    with pytest.raises(UnusableFile) as caught:
        read_header(path)
    assert caught.value.reason == bad.reason
    assert isinstance(caught.value, NoStudy if bad.reason in ("missing_uids", "bad_uid") else NotDicom)
    assert "PHANTOM" not in str(caught.value)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_data_set_without_preamble_and_meta_is_recognised(syntax: UID, tmp_path: Path) -> None:
    path = tmp_path / "bare"
    path.write_bytes(_body(syntax))
    header = read_header(path)
    assert header.SOPInstanceUID == tiny_slice().SOPInstanceUID
    assert header.TransferSyntaxUID == syntax
    assert "no_transfer_syntax" in header.warnings


def test_file_meta_without_preamble_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "no_preamble"
    path.write_bytes(encoded(tiny_slice())[132:])
    assert read_header(path).StudyInstanceUID == tiny_slice().StudyInstanceUID


def test_deflated_data_set_is_read(tmp_path: Path) -> None:
    ds = tiny_slice()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "deflated"
    ds.save_as(path, enforce_file_format=True)
    header = read_header(path)
    assert (header.Rows, header.TransferSyntaxUID) == (32, DeflatedExplicitVRLittleEndian)
    assert header.warnings == ()


def test_deflated_bomb_stays_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    next(bad for bad in BAD_INPUTS if bad.name == "deflated_bomb.dcm").write(path)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(NotDicom):
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 * 2**20


def test_huge_element_is_stepped_over(tmp_path: Path) -> None:
    ds = tiny_slice()
    block = ds.private_block(0x0009, "PHANTOM", create=True)
    block.add_new(0x01, "OB", bytes(VALUE_LIMIT_BYTES + 2))
    path = tmp_path / "huge"
    ds.save_as(path, enforce_file_format=True)
    read = read_dataset(path)
    assert (0x0009, 0x1001) not in read
    assert read.PatientID == ds.PatientID
    assert "large_element_skipped" in read_header(path).warnings


def test_data_set_wins_over_file_meta(tmp_path: Path) -> None:
    ds = tiny_slice()
    uid = str(ds.SOPInstanceUID).encode()
    path = tmp_path / "mismatch"
    path.write_bytes(encoded(ds).replace(uid, uid[:-2] + b"99", 1))
    header = read_header(path)
    assert header.SOPInstanceUID == ds.SOPInstanceUID
    assert header.warnings == ("meta_uid_mismatch",)


def test_file_meta_stands_in_for_a_missing_class(tmp_path: Path) -> None:
    ds = tiny_slice()
    sop_class = ds.SOPClassUID
    del ds.SOPClassUID
    path = tmp_path / "rsna_like"
    ds.save_as(path, enforce_file_format=True)
    header = read_header(path)
    assert header.SOPClassUID == sop_class
    assert "sop_class_missing" in header.warnings


def test_illegal_uids_are_taken_as_they_are(tmp_path: Path) -> None:
    ds = tiny_slice()
    ds.StudyInstanceUID, ds.SOPInstanceUID = "ID_fbd83cf240", "ID_b9b5ae1ec"
    path = tmp_path / "illegal"
    ds.save_as(path, enforce_file_format=True)
    header = read_header(path)
    assert (header.StudyInstanceUID, header.SOPInstanceUID) == ("ID_fbd83cf240", "ID_b9b5ae1ec")
    assert not is_standard_uid(header.StudyInstanceUID)


def test_values_of_the_wrong_vr_do_not_break_the_summary(tmp_path: Path) -> None:
    data = encoded(tiny_slice()).replace(b"\x20\x00\x13\x00IS\x02\x00001 ", b"")
    old = b"\x28\x00\x10\x00US\x02\x00\x20\x00"
    assert old in data
    path = tmp_path / "wrong_vr"
    path.write_bytes(data.replace(old, b"\x28\x00\x10\x00IS\x02\x00xy"))
    header = read_header(path)
    assert header.Rows is None and header.Columns == 32


def test_truncated_pixels_leave_an_instance_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(encoded(tiny_slice())[:-100])
    assert read_header(path).warnings == ("truncated",)


def test_text_is_clean() -> None:
    ds = tiny_slice()
    ds.AccessionNumber = "A\x001\x1b "
    assert header_of(ds).AccessionNumber == "A1"


def test_patient_key_differs_between_patients_and_holds_no_name() -> None:
    one, same, other, nobody = Dataset(), Dataset(), Dataset(), Dataset()
    one.PatientID, one.PatientName = "17", "PHANTOM^A"
    same.PatientID, same.PatientName = " 17 ", "PHANTOM A"
    other.PatientID, other.PatientName = "18", "PHANTOM^A"
    key = patient_key(one)
    assert key == patient_key(same) != patient_key(other)
    assert key is not None and "PHANTOM" not in key and len(key) == 64
    assert patient_key(nobody) is None
    one.PatientID = same.PatientID = ""
    assert patient_key(one) == patient_key(same)


def test_no_cut_of_a_file_raises_anything_else(tmp_path: Path) -> None:
    data = encoded(tiny_slice())
    path = tmp_path / "cut"
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        try:
            read_header(path)
        except UnusableFile:
            continue


def test_no_flipped_byte_raises_anything_else(tmp_path: Path) -> None:
    data = encoded(tiny_slice())[:2200]
    rng = np.random.default_rng(5)
    path = tmp_path / "flipped"
    for _ in range(300):
        broken = bytearray(data)
        for place in rng.integers(132, len(data), 4):
            broken[place] = int(rng.integers(256))
        path.write_bytes(bytes(broken))
        try:
            read_header(path)
        except UnusableFile:
            continue


def test_stable_uid_depends_on_its_parts_alone() -> None:
    assert stable_uid("a", 1) == stable_uid("a", 1) != stable_uid("a", 2)
    assert is_standard_uid(stable_uid("a"))
