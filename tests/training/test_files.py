"""Files that are whole or not there, on a disk that is full."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from training.files import NotWritten, written_whole


def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "kept.npz").write_text("before")
    (tmp_path / "kept.part").symlink_to("/dev/full")
    with (
        pytest.raises(NotWritten, match=r"cannot write kept\.npz: No space left on device") as caught,
        written_whole(tmp_path / "kept.npz") as partial,
    ):
        partial.write_text("after")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "it comes from processes too"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]
    assert (tmp_path / "kept.npz").read_text() == "before"


def test_what_fails_for_another_reason_leaves_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(KeyError), written_whole(tmp_path / "new" / "kept.json") as partial:
        partial.write_text("half")
        raise KeyError("no")
    assert list((tmp_path / "new").iterdir()) == []
    with written_whole(tmp_path / "new" / "kept.json") as partial:
        partial.write_text("whole")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept.json"]
