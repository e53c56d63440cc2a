"""Effects by name: each is told before and after, used where it is named, and can kill, fail or slow a real process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from firstread import effects
from firstread.effects import AFTER, BEFORE, TABLE, Effect, Kind
from firstread.records import Database
from firstread.storage.spool import DiskFull, Spool
from tests.builders.timing import until
from tests.failpoints import Failpoint, Failpoints, FileOfFailpoints, environ, error_of, write_file

SPOOLING = """
import sys
from pathlib import Path
from firstread.storage.spool import Spool
spool = Spool(Path(sys.argv[1]))
with spool.create() as (key, file):
    spool.write(file, b"bytes")
"""


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    seen: list[tuple[str, str]] = []
    effects.watch(lambda effect, when: seen.append((effect.name, when)))
    yield seen
    effects.watch(None)


def test_every_effect_of_a_file_is_told_before_and_after_in_order(tmp_path: Path, told: list[tuple[str, str]]) -> None:
    spool = Spool(tmp_path)
    with spool.create() as (_, file):
        spool.write(file, b"bytes")
    order = [name for name, when in told if when == BEFORE and name != "spool.new_folder"]
    assert order == ["spool.create", "spool.write", "spool.sync", "spool.rename", "spool.sync_folder"]
    assert [(name, AFTER) for name, when in told if when == BEFORE] == [pair for pair in told if pair[1] == AFTER]


def test_a_commit_is_told_before_it_counts_and_after(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    with db.write() as session:
        session.execute(text("CREATE TABLE t (n INTEGER)"))
    counts: dict[str, int] = {}

    def look(_effect: Effect, when: str) -> None:
        with db.read() as session:
            counts[when] = session.execute(text("SELECT count(*) FROM t")).scalar_one()

    effects.watch(look)
    try:
        with db.write(effects.ROWS_COMMIT) as session:
            session.execute(text("INSERT INTO t VALUES (1)"))
    finally:
        effects.watch(None)
    db.dispose()
    assert counts == {BEFORE: 0, AFTER: 1}


def test_a_full_disk_at_each_step_leaves_nothing_in_the_spool(tmp_path: Path) -> None:
    for effect in (effects.SPOOL.create, effects.SPOOL.write, effects.SPOOL.sync, effects.SPOOL.rename):
        effects.watch(Failpoints([Failpoint(effect.name, BEFORE, "error", "ENOSPC")]))
        spool = Spool(tmp_path / effect.name)
        try:
            with pytest.raises(DiskFull), spool.create() as (_, file):
                spool.write(file, b"bytes")
        finally:
            effects.watch(None)
        assert [path for path in spool.root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("name", "when"), [("spool.write", AFTER), ("spool.rename", BEFORE), ("spool.rename", AFTER)])
def test_a_real_process_is_killed_at_the_failpoint_once(tmp_path: Path, name: str, when: str) -> None:
    mark, command = tmp_path / "mark", [sys.executable, "-c", SPOOLING, str(tmp_path / "spool")]
    env = os.environ | environ(f"{name}:{when}:kill", mark=mark)
    assert subprocess.run(command, env=env, check=False).returncode == -signal.SIGKILL
    assert mark.read_text().startswith(f"{name}:{when}:kill pid ")
    assert len(list(Spool(tmp_path / "spool").keys())) == ((name, when) == ("spool.rename", AFTER))
    assert subprocess.run(command, env=env, check=False).returncode == 0  # the second process comes through


def test_without_the_tests_folder_in_its_path_a_process_obeys_nothing(tmp_path: Path) -> None:
    env = os.environ | {"FIRSTREAD_FAILPOINT": "spool.rename:before:kill"}
    command = [sys.executable, "-c", SPOOLING, str(tmp_path)]
    assert subprocess.run(command, env=env, check=False).returncode == 0


def test_a_process_that_runs_obeys_a_file_that_changes(tmp_path: Path) -> None:
    file, asked, mark = tmp_path / "failpoints", tmp_path / "asked", tmp_path / "mark"
    watcher = FileOfFailpoints(file)
    watcher(effects.SPOOL.rename, BEFORE)
    write_file(file, "spool.rename:before:error=ENOSPC", mark=mark)
    watcher(effects.SPOOL.rename, AFTER)
    with pytest.raises(OSError, match="No space left"):
        watcher(effects.SPOOL.rename, BEFORE)
    watcher(effects.SPOOL.rename, BEFORE)
    assert mark.exists()
    write_file(file, f"spool.sync:after:ask={asked}")
    thread = threading.Thread(target=watcher, args=(effects.SPOOL.sync, AFTER))
    thread.start()
    until(asked.exists)
    assert thread.is_alive()
    asked.unlink()
    thread.join(timeout=10)
    assert not thread.is_alive()
    file.unlink()
    watcher(effects.SPOOL.sync, AFTER)
    assert not asked.exists()


def test_failpoints_that_there_are_not_are_refused() -> None:
    for wrong in ("spool.nothing:before:kill", "spool.rename:during:kill", "spool.rename:before:explode"):
        with pytest.raises(ValueError, match="no failpoint"):
            environ(wrong)
    assert str(Failpoint.parse("spool.rename:after:slow=0.5:3")) == "spool.rename:after:slow=0.5:3"


def test_an_error_is_of_the_kind_that_the_effect_may_have() -> None:
    assert isinstance(error_of(effects.ROWS_COMMIT), OperationalError)
    full = error_of(effects.SPOOL.write, "ENOSPC")
    assert isinstance(full, OSError) and full.errno == errno.ENOSPC
    assert all(isinstance(error_of(effect), Exception) for effect in TABLE.values())


def test_names_say_their_place_and_kind() -> None:
    for name, effect in TABLE.items():
        assert name == effect.name and name.count(".") == 1
        assert name.endswith(".commit") == (effect.kind is Kind.COMMIT)
