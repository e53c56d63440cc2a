"""A program of one version beside a database of another: it writes nothing, and goes on where the schema is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from firstread.records import Database, Process, SchemaChanged, own_process, write_heartbeat
from firstread.records.migrate import head_revision, require_head, upgrade


@contextmanager
def schema_of_another_version(db: Database) -> Iterator[None]:
    """The database as a later version leaves it."""
    set_revision(db, "9999")
    try:
        yield
    finally:
        set_revision(db, head_revision())


def set_revision(db: Database, revision: str) -> None:
    with db.engine.execution_options(write=True).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :at"), {"at": revision})


def beats(db: Database) -> int:
    with db.read() as session:
        return session.query(Process).count()


def test_who_holds_to_a_revision_writes_under_no_other(db: Database) -> None:
    require_head(db)
    with schema_of_another_version(db):
        with pytest.raises(SchemaChanged, match=f"at 9999 now, and this process writes {head_revision()} alone"):
            write_heartbeat(db, own_process("w1", "worker"))
        assert beats(db) == 0
    write_heartbeat(db, own_process("w1", "worker"))
    assert beats(db) == 1


def test_writers_end_before_the_schema_changes_and_later_ones_see_it_changed(db: Database) -> None:
    """A transaction that began under the old schema is over before the new one is there."""
    require_head(db)
    other = Database(db.url)
    steps: list[str] = []

    def change() -> None:
        upgrade(other)
        steps.append("changed")

    with db.write():
        thread = threading.Thread(target=change)
        thread.start()
        time.sleep(0.5)
        steps.append("written")
    thread.join(timeout=60)
    other.dispose()
    assert steps == ["written", "changed"]
