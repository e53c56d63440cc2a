"""What a listener leaves behind when it is killed, and what the next one makes of it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.studies.reconcile import alive_listeners
from dicom_listener.studies.rows import RowWriter
from firstread.clock import utcnow
from firstread.dicom.sender import SendOutcome, echo, send_paths
from firstread.processes.spawning import firstread_command, settings_environ, spawn, stop
from firstread.records import LISTENER, Database, Process, write_heartbeat
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.builders.listening import (
    QUICK,
    all_closed,
    listening,
    outcomes,
    refusals,
    rows,
    send,
    small_files,
)
from tests.builders.timing import free_port, stays, until

MakeSettings = Callable[..., Settings]


@pytest.fixture
def settings(make_settings: MakeSettings, broker: str) -> Settings:
    return make_settings(**QUICK | {"quiet_s": 60.0}, broker_url=broker, dicom_port=free_port())


def start(settings: Settings) -> subprocess.Popen[bytes]:
    """A listener process that answers C-ECHO."""
    process = spawn(firstread_command("listen"), environ=settings_environ(settings))

    def answers() -> bool:
        assert process.poll() is None, "the listener ended"
        return echo(host="127.0.0.1", port=settings.dicom_port, called_ae="X", timeout_s=2) == ""

    until(answers, limit_s=60)
    return process


def again_and_again(files: list[Path], folder: Path, times: int) -> list[Path]:
    """The same files under so many names: a sender who is still busy when somebody has looked twice."""
    links = [folder / str(turn) / path.name for turn in range(times) for path in files]
    for link, path in zip(links, files * times, strict=True):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return links


def test_kill_9_in_the_middle_of_an_association(settings: Settings, tmp_path: Path) -> None:
    """What was answered with success is there after the restart, and a second sending completes the study."""
    db = Database(settings.database_url)
    upgrade(db)
    files = small_files(tmp_path / "ct", 150)
    sent = again_and_again(files, tmp_path / "again", times=10)
    target: dict[str, Any] = {"host": "127.0.0.1", "port": settings.dicom_port, "called_ae": "X", "calling_ae": "CT1"}
    first: list[SendOutcome] = []
    process = start(settings)
    try:
        sender = threading.Thread(target=lambda: first.extend(send_paths(sent, timeout_s=5, **target)))
        sender.start()
        until(lambda: (outcomes(db).get("stored") or 0) >= 20)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        sender.join(timeout=60)
        assert not sender.is_alive()
        acknowledged = [o for o in first if o.ok]
        assert 20 <= len(acknowledged) < len(sent)
        time.sleep(1.0)  # half a file of less than a second before a start is left for a quarter of an hour
        process = start(settings)
        until(lambda: sum(outcomes(db).values()) >= len(acknowledged))
        until(lambda: not list(settings.spool_dir.rglob("*.part")))
        # a lost association closes nothing early
        stays(lambda: rows(db, "SELECT state FROM revision") == [("RECEIVING",)], 1.0)
        assert all(o.ok for o in send_paths(files, **target))
        assert [row[1:4] for row in all_closed(db)] == [(1, "released", 150)]
        assert rows(db, "SELECT count(DISTINCT sop_instance_uid) FROM received_instance WHERE outcome = 'stored'") == [
            (150,)
        ]
        endings = rows(db, "SELECT DISTINCT ending FROM association ORDER BY ending")
        assert ("released",) in endings and ("lost",) in endings
        assert stop(process, 15) == 0, "SIGTERM ends it cleanly"
        assert rows(db, "SELECT count(*) FROM process WHERE kind = 'listener'") == [(0,)]
    finally:
        stop(process, 1)
        db.dispose()


def test_files_alone_rebuild_their_rows(make_settings: MakeSettings, broker: str, tmp_path: Path) -> None:
    """The database lost, spool and refused folder kept: the same receipts and refusals come back."""
    settings = make_settings(**QUICK | {"quiet_s": 1.0}, broker_url=broker)
    query = """SELECT study_instance_uid, sop_instance_uid, transfer_syntax_uid, size_bytes, outcome, source,
               source_name, calling_ae, received_at FROM received_instance ORDER BY received_at, sop_instance_uid"""
    instance = "SELECT sha256, pipeline_hint, dicom_priority, warnings FROM instance ORDER BY sha256"
    refused = """SELECT received_at, source, source_name, calling_ae, reason, detail, kept_path FROM intake_refusal
                 ORDER BY received_at"""
    files = small_files(tmp_path / "ct", 4)
    with listening(settings) as service:
        assert all(o.ok for o in send(service, *files[:3], calling_ae="CT7", priority=2))
        (settings.inbox_dir / "head_ct" / "x.dcm").write_bytes(files[3].read_bytes())
        (settings.inbox_dir / "no.txt").write_text("not an image\n" * 20)
        (tmp_path / "nouid.dcm").write_bytes(_without_study(files[0]))
        assert send(service, tmp_path / "nouid.dcm")[0].status == 0xC000
        until(lambda: len(refusals(service.db)) == 2)
        until(lambda: sum(outcomes(service.db).values()) == 4)
        before = [rows(service.db, q) for q in (query, instance, refused)]
    for suffix in ("", "-wal", "-shm"):
        (settings.home / f"firstread.sqlite{suffix}").unlink(missing_ok=True)
    with listening(settings) as service:
        until(lambda: sum(outcomes(service.db).values()) == 4)
        until(lambda: len(refusals(service.db)) == 2)
        assert [rows(service.db, q) for q in (query, instance, refused)] == before
        assert [row[1:4] for row in all_closed(service.db)] == [(1, "quiet", 4)]
        assert rows(service.db, "SELECT forced_pipeline FROM revision") == [("head_ct",)]


def _without_study(path: Path) -> bytes:
    import io

    from pydicom import dcmread

    ds = dcmread(path)
    del ds.StudyInstanceUID
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_leftovers_of_a_killed_listener_are_cleared(make_settings: MakeSettings, broker: str, tmp_path: Path) -> None:
    settings = make_settings(**QUICK, broker_url=broker)
    with listening(settings) as service:
        files = small_files(tmp_path / "ct", 2)
        send(service, *files)
        all_closed(service.db)
        key = next(iter(service.storage.spool.keys()))
    stored = settings.spool_dir / key
    (stored.parent / ("0" * 32 + ".part")).write_bytes(b"half an image")
    copy = stored.parent / ("f" * 32 + ".dcm")
    copy.write_bytes(stored.read_bytes())
    old = time.time() - 60
    os.utime(stored.parent / ("0" * 32 + ".part"), (old, old))
    with listening(settings) as service:
        until(lambda: not list(settings.spool_dir.rglob("*.part")))
        until(lambda: outcomes(service.db) == {"stored": 2, "repeat": 1})
        until(lambda: not copy.exists())
    assert stored.exists()


def test_a_repeat_whose_copy_was_not_removed_in_time(
    make_settings: MakeSettings, broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(**QUICK, broker_url=broker)
    files = small_files(tmp_path / "ct", 1)
    with monkeypatch.context() as patch, listening(settings) as service:
        patch.setattr(service.storage.spool, "delete", lambda key: None)
        send(service, *files)
        send(service, *files)
        service.writer.flush()
        assert len(list(service.storage.spool.keys())) == 2
    with listening(settings) as service:
        until(lambda: len(list(service.storage.spool.keys())) == 1)
        assert outcomes(service.db) == {"stored": 1, "repeat": 1}


def test_a_living_listeners_files_are_left_to_it(
    make_settings: MakeSettings, broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two listeners on one spool: what one has in hand is not registered by the other's start."""
    settings = make_settings(**QUICK, broker_url=broker)
    with listening(settings) as one:
        one.row.pid = os.getppid()  # as if it were another process that lives
        write_heartbeat(one.db, one.row)
        held = threading.Event()
        write = one.writer._assembler.write

        def slow(entries: Any) -> Any:
            held.wait(10)
            return write(entries)

        monkeypatch.setattr(one.writer._assembler, "write", slow)
        assert all(o.ok for o in send(one, *small_files(tmp_path / "ct", 3)))
        with listening(settings) as two:
            stays(lambda: outcomes(two.db) == {}, 0.5)
            assert two.reconciler.reconcile().deferred == 3
            assert outcomes(two.db) == {}
            held.set()
            assert [row[1:4] for row in all_closed(two.db)] == [(1, "released", 3)]
            assert outcomes(two.db) == {"stored": 3}


def test_dead_processes_of_this_host_are_known_at_once(sqlite_db: Database) -> None:
    now = utcnow()
    own = Process(id="own", kind=LISTENER, host="here", pid=os.getpid(), started_at=now, heartbeat_at=now)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for row_id, host, pid in (("dead", "here", ended.pid), ("alive", "here", os.getppid()), ("far", "there", 1)):
        write_heartbeat(
            sqlite_db, Process(id=row_id, kind=LISTENER, host=host, pid=pid, started_at=now, heartbeat_at=now)
        )
    with sqlite_db.write() as session:
        session.add(
            Process(
                id="stale", kind=LISTENER, host="there", pid=1, started_at=now, heartbeat_at=now - timedelta(seconds=60)
            )
        )
    assert set(alive_listeners(sqlite_db, own)) == {"alive", "far"}
    assert {r[0] for r in rows(sqlite_db, "SELECT id FROM process WHERE kind = 'listener'")} == {
        "alive",
        "far",
        "stale",
    }


def test_rows_wait_for_a_database_that_is_away(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intake goes on; the rows follow once the database is back."""
    with listening(settings) as service:
        from sqlalchemy.exc import OperationalError

        write = service.writer._assembler.write
        failures = iter([True] * 2)

        def away(entries: Any) -> Any:
            if next(failures, False):
                raise OperationalError("select 1", {}, Exception("gone"))
            return write(entries)

        monkeypatch.setattr(service.writer._assembler, "write", away)
        assert all(o.ok for o in send(service, *small_files(tmp_path / "ct", 3)))
        assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 3)]


def test_one_bad_row_does_not_hold_up_its_group() -> None:
    from sqlalchemy.exc import DataError

    written: list[Any] = []

    class Picky:
        def write(self, entries: Any) -> Any:
            if any(entry == "bad" for entry in entries):
                raise DataError("insert", {}, Exception("no"))
            written.extend(entries)
            from dicom_listener.studies.assembler import Registered

            return Registered()

    writer = RowWriter(Picky(), None, lambda: None)  # type: ignore[arg-type]
    for entry in ("a", "bad", "b", "c"):
        writer.put(entry)  # type: ignore[arg-type]
    writer.start()
    assert writer.flush(10)
    writer.stop()
    assert written == ["a", "b", "c"]


def test_a_copy_that_cannot_be_removed_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    from dicom_listener.studies.assembler import Registered

    removed: list[str] = []

    class Repeats:
        def write(self, entries: Any) -> Any:
            return Registered(superfluous=["stays", "goes"])

    class Disk:
        def delete(self, key: str) -> None:
            if key == "stays":
                raise OSError(errno.EIO, "Input/output error")
            removed.append(key)

    writer = RowWriter(Repeats(), Disk(), lambda: None)  # type: ignore[arg-type]
    writer.put("a")  # type: ignore[arg-type]
    writer.start()
    assert writer.flush(10)
    writer.stop()
    assert removed == ["goes"]
    assert "stays until the next start (Input/output error)" in caplog.text
    assert "rows not written" not in caplog.text, "they are: only the copy is left"


def test_notes_survive_what_the_file_system_and_senders_do() -> None:
    note = IntakeNote("inbox", 'a "quoted" \u00e4\u4e2d/b.dcm', utcnow().isoformat(), "me", pipeline_hint="head_ct")
    assert IntakeNote.decode(note.encode() + b"\0") == note
    assert IntakeNote.decode(b"{}") is None
    assert IntakeNote.decode(b"\xff\xfe") is None
    assert IntakeNote.decode(json.dumps({"source": "x", "future": 1}).encode()) is None
