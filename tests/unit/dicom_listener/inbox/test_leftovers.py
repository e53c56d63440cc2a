"""What lies in the inbox and is never taken is reported by kind and number, and never by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_listener.inbox.leftovers import HIDDEN, IN_ACCEPTED, LINKS, SPECIAL, UNFINISHED, in_words, left_aside
from firstread.settings import Settings
from firstread_cli.doctor.intake import check_inbox


def filled(root: Path) -> Path:
    for name in (
        ".hidden",
        "a/.secret/x",
        "b.part",
        "c.dcm",
        "accepted/Doe.dcm",
        "accepted/x/Doe2.dcm",
        "rejected/.r",
        ".claimed/ab/x",
        ".DS_Store",
        "a/._c.dcm",
        "Thumbs.db",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    (root / "link.dcm").symlink_to(root / "c.dcm")
    (root / "a" / "folder").symlink_to(root)
    os.mkfifo(root / "pipe")
    return root


def test_kinds_and_numbers(tmp_path: Path) -> None:
    root = filled(tmp_path)
    counts = left_aside(root, accepted_is_ours=False, patience_s=0)
    assert counts == {HIDDEN: 2, UNFINISHED: 1, LINKS: 2, SPECIAL: 1, IN_ACCEPTED: 2}
    assert IN_ACCEPTED not in left_aside(root, accepted_is_ours=True, patience_s=0)
    assert left_aside(root, accepted_is_ours=False) == {}, "they came a moment ago"
    assert "Doe" not in in_words(counts) and "2 symbolic links" in in_words(counts)


def test_doctor_names_them_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, inbox=filled(tmp_path / "inbox"))
    assert list(check_inbox(settings)) == []
    monkeypatch.setattr("dicom_listener.inbox.leftovers.left_aside.__kwdefaults__", {"patience_s": 0.0})
    (check,) = check_inbox(settings)
    assert check.status == "warn" and "2 files in the folder accepted" in check.detail
