"""What docs/more_than_one_host.md says of a synchronous standby, shown on real servers: with it, and without."""

from __future__ import annotations

import contextlib
import threading
import time

import psycopg
import pytest

from firstread.records import Database, own_process, write_heartbeat
from firstread.records.migrate import require_head, upgrade
from tests.builders.postgres_pair import PostgresPair, postgres_pair
from tests.builders.timing import until

pytestmark = pytest.mark.timeout(120)


class Writer:
    """Commits one row after the other, and notes those that were confirmed."""

    def __init__(self, db: Database) -> None:
        self.confirmed: set[str] = set()
        self.stop = threading.Event()
        self._db = db
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self.stop.is_set():
            try:
                write_heartbeat(self._db, own_process(f"w{number}", "worker"))
            except Exception:  # noqa: BLE001  # the server is lost, or is being promoted
                time.sleep(0.05)
                continue
            self.confirmed.add(f"w{number}")
            number += 1

    def end(self) -> None:
        self.stop.set()
        self._thread.join(timeout=60)


def written(pair: PostgresPair) -> set[str]:
    """Rows that the standby shows; none as long as it has not replayed the database or its tables."""
    url = f"postgresql://firstread@127.0.0.1:{pair.standby.port}/firstread"
    try:
        with psycopg.connect(url) as connection:
            return {row[0] for row in connection.execute("SELECT id FROM process")}
    except psycopg.errors.UndefinedTable:
        return set()
    except psycopg.OperationalError as error:
        if "does not exist" not in str(error):
            raise
        return set()


def test_with_a_synchronous_standby_no_confirmed_commit_is_lost_and_an_old_primary_confirms_none() -> None:
    with postgres_pair() as pair:
        db = Database(pair.create_database("firstread"))
        upgrade(db)
        require_head(db)
        writer = Writer(db)
        until(lambda: len(writer.confirmed) > 100)
        pair.fail_over()
        at_promotion = len(writer.confirmed)
        until(lambda: len(writer.confirmed) > at_promotion + 20, 60, "writers find the new primary")
        writer.end()
        assert writer.confirmed <= written(pair)
        pair.primary.start()
        old = threading.Thread(target=_write_to, args=(pair.primary.port,), daemon=True)
        old.start()
        old.join(timeout=2.0)
        assert old.is_alive(), "a primary that lost its standby confirmed a commit"
        db.dispose()


def _write_to(port: int) -> None:
    url = f"postgresql://firstread@127.0.0.1:{port}/firstread"
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM process")


def test_without_one_the_last_commits_go_with_the_server() -> None:
    """Why the page asks for it."""
    with postgres_pair(synchronous=False) as pair:
        db = Database(pair.create_database("firstread"))
        upgrade(db)
        write_heartbeat(db, own_process("before", "worker"))
        until(lambda: written(pair) == {"before"})
        pair.standby.execute("ALTER SYSTEM SET primary_conninfo = ''")  # the network between the two is cut
        pair.standby.execute("SELECT pg_reload_conf()")
        until(lambda: pair.primary.execute("SELECT count(*) FROM pg_stat_replication") == [(0,)])
        write_heartbeat(db, own_process("confirmed", "worker"))
        pair.fail_over()
        assert written(pair) == {"before"}
        db.dispose()
