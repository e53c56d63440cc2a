"""The file meta group and the intake note in it: readable by pydicom, whatever the UIDs look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.intake.part10 import IntakeNote, file_meta
from firstread.dicom.files import read_dataset, read_header
from tests.builders.listening import small_files

AT = "2026-01-02T03:04:05.678901+00:00"


def note(**values: Any) -> IntakeNote:
    fields: dict[str, Any] = {"source": "dicom", "source_name": "10.1.2.3", "received_at": AT, "listener_id": "me"}
    return IntakeNote(**(fields | values))


@pytest.mark.parametrize("uid", ["1.2.3", "ID_f10de2d018", "1." + "2" * 98, "1.2.\u00e4"])
def test_pydicom_reads_what_stands_before_a_data_set(tmp_path: Path, uid: str) -> None:
    source = small_files(tmp_path / "ct", 1)[0]
    data = source.read_bytes()
    body = data[144 + int.from_bytes(data[140:144], "little") :]
    written = note(calling_ae="SENDER", called_ae="US", dicom_priority=1, warnings=("no_transfer_syntax",))
    meta = file_meta(
        written,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        receiving_ae="FIRSTREAD",
    )
    path = tmp_path / "stored.dcm"
    path.write_bytes(meta + body)
    ds = read_dataset(path)
    assert IntakeNote.of(ds.file_meta) == written
    assert IntakeNote.in_bytes(path.read_bytes()[:2000]) == written
    assert ds.file_meta.ReceivingApplicationEntityTitle == "FIRSTREAD"
    assert ds.file_meta.MediaStorageSOPInstanceUID == uid.encode("ascii", "replace").decode()
    assert "meta_uid_mismatch" in read_header(path).warnings


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=3))
def test_any_note_survives(name: str, warnings: list[str]) -> None:
    written = note(source_name=name or None, warnings=tuple(warnings))
    meta = file_meta(written, sop_class_uid="1", sop_instance_uid="2", transfer_syntax_uid="1.2.840.10008.1.2")
    assert IntakeNote.in_bytes(meta + b"\x08\x00") == written


def test_a_foreign_file_has_no_note(tmp_path: Path) -> None:
    path = small_files(tmp_path / "ct", 1)[0]
    assert IntakeNote.of(read_dataset(path).file_meta) is None
    assert IntakeNote.in_bytes(path.read_bytes()[:2000]) is None
    assert IntakeNote.in_bytes(b"nothing") is None
    assert IntakeNote.decode(b'{"source": "x", "listener_id": "me", "received_at": "2026-01-01T00:00:00"}') is None
