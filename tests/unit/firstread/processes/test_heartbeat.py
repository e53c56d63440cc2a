"""A process without anything else to say shows a sign of life, and takes it away only where it ends in order."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import select

from firstread.processes.heartbeat import beat
from firstread.records import Database, Process
from tests.builders.site import database_in, settings_in


def kinds(db: Database) -> list[str]:
    with db.read() as session:
        return list(session.scalars(select(Process.kind)))


def test_the_row_is_there_while_it_beats_and_goes_with_the_end(tmp_path: Path) -> None:
    db, stop = database_in(settings_in(tmp_path)), threading.Event()
    seen = []

    def look() -> bool:
        seen.append(kinds(db))
        stop.set()
        return True

    assert beat(db, "probe", stop, look) is True
    assert seen == [["probe"]] and kinds(db) == []


def test_the_row_stays_where_something_has_died(tmp_path: Path) -> None:
    db = database_in(settings_in(tmp_path))
    assert beat(db, "probe", threading.Event(), lambda: False) is False
    assert kinds(db) == ["probe"]
