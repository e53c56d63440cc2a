"""An object that cannot be used is kept with its reason, and has its row where the disk does not take it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.storage import Incoming, Storage
from firstread.clock import utcnow
from firstread.settings import Settings
from firstread.storage import disk

NOTE = IntakeNote("dicom", None, utcnow().isoformat(), "one", calling_ae="CT1")
BYTES = Incoming(chunks=(b"no data set",), size_bytes=11, transfer_syntax_uid="1.2.840.10008.1.2")


@pytest.fixture
def storage(make_settings: Callable[..., Settings]) -> Storage:
    return Storage(make_settings(min_free_mb=0))


def files(storage: Storage) -> list[Path]:
    return [path for path in storage.refused.root.rglob("*") if path.is_file()]


def test_what_cannot_be_used_is_kept_as_it_came(storage: Storage) -> None:
    refusal = storage.keep_refused(BYTES, NOTE, "not_dicom", "no data set")
    assert refusal.kept_path is not None
    assert Path(refusal.kept_path).read_bytes().endswith(b"no data set")
    assert (refusal.reason, refusal.detail, refusal.calling_ae) == ("not_dicom", "no data set", "CT1")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "Read-only file system"),
        (errno.EMFILE, "Too many open files"),
        (errno.EIO, "Input/output error"),
        (errno.ENOSPC, "the disk is full"),
    ],
)
def test_a_refusal_that_the_disk_does_not_take_has_its_row(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def write(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "write", write)
    refusal = storage.keep_refused(BYTES, NOTE, "not_dicom", "no data set")
    assert (refusal.reason, refusal.kept_path) == ("not_dicom", None)
    assert refusal.detail == f"no data set (not kept: {words})"
    assert not files(storage)


def test_a_refusal_without_a_detail_says_why_it_is_not_kept(storage: Storage) -> None:
    storage.refused.root.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(storage.refused.root, ignore_errors=True)
    storage.refused.root.write_bytes(b"a file in the place of the folder")
    refusal = storage.keep_refused(replace(BYTES, chunks=()), NOTE, "no_dataset", "")
    assert refusal.kept_path is None and refusal.detail == "(not kept: Not a directory)"
