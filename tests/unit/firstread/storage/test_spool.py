"""The spool leaves nothing of a file whose making failed, and its folders survive a power cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firstread import effects
from firstread.effects import AFTER, BEFORE, Effect
from firstread.storage import disk
from firstread.storage.spool import Spool
from tests.failpoints import Failpoint, Failpoints


@pytest.fixture(autouse=True)
def _no_watch() -> Iterator[None]:
    yield
    effects.watch(None)


@pytest.mark.parametrize(("name", "when"), [("spool.rename", AFTER), ("spool.sync_folder", BEFORE)])
def test_a_file_that_has_its_name_already_goes_too_where_making_it_failed(tmp_path: Path, name: str, when: str) -> None:
    spool = Spool(tmp_path / "spool")
    effects.watch(Failpoints([Failpoint(name, when, "error", "EIO")]))
    with pytest.raises(OSError, match="Input/output error"), spool.create() as (_, file):
        spool.write(file, b"bytes")
    assert [path for path in spool.root.rglob("*") if path.is_file()] == []


def test_the_names_of_all_new_folders_are_synced_before_a_file_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = disk.sync_folder

    def sync(effect: Effect, path: Path) -> None:
        synced.append(path)
        real(effect, path)

    monkeypatch.setattr(disk, "sync_folder", sync)
    spool = Spool(tmp_path / "refused")
    with spool.create() as (key, file):
        spool.write(file, b"bytes")
    folder = spool.path(key).parent
    assert {tmp_path, spool.root, folder.parent, folder} <= set(synced)
