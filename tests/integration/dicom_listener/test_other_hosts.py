"""A listener beside others: hosts that are gone, servers that changed their part, programs of another version."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from firstread.records import Database
from firstread.records.migrate import head_revision
from tests.builders.listening import all_closed, listening, outcomes, rows, send, small_files
from tests.builders.timing import stays, until
from tests.integration.dicom_listener.conftest import MakeSettings


@pytest.fixture
def soon_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener counts as lost after two seconds."""
    monkeypatch.setattr("dicom_listener.studies.timer.HEARTBEAT_S", 0.2)
    for module in ("closing", "reconcile"):
        monkeypatch.setattr(f"dicom_listener.studies.{module}.LOST_AFTER_S", 2.0)


@pytest.mark.usefixtures("soon_lost")
def test_images_of_a_host_that_is_gone_get_their_rows_from_another(
    quick: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host was lost between its answer and the first row of the association: nothing in the database names it."""
    settings = quick(quiet_s=2.0)
    with listening(settings) as survivor, listening(settings) as gone:
        until(survivor.closer.reconciled.is_set)
        monkeypatch.setattr(gone.writer, "put", lambda entry, timeout_s=0.0: None)
        paths = small_files(settings.home / "sent", 3, study="gone")
        assert all(outcome.ok for outcome in send(gone, *paths))
        gone.closer.stop()  # no sign of life any more, and no orderly end
        until(lambda: outcomes(survivor.db) == {"stored": 3})
        ((_, number, _, images, _),) = all_closed(survivor.db)
        assert (number, images) == (1, 3)


@pytest.fixture
def postgres_settings(quick: MakeSettings, postgres_url: str) -> Iterator[MakeSettings]:
    """Makes settings of a site on PostgreSQL."""
    yield lambda **values: quick(database_url=postgres_url, **values)


def test_rows_wait_while_a_server_is_a_standby(postgres_settings: MakeSettings, postgres_url: str) -> None:
    """A server that refuses to write, as one does that was the primary, is away and refuses no row for itself."""
    settings = postgres_settings()
    name = str(make_url(postgres_url).database)

    def set_read_only(value: str) -> None:
        """For new connections and those that are there."""
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}'.encode())
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
            connection.execute(others, (name, connection.info.backend_pid))

    with listening(settings) as service:
        until(service.closer.reconciled.is_set)
        set_read_only("on")
        paths = small_files(settings.home / "sent", 3, study="standby")
        assert all(outcome.ok for outcome in send(service, *paths))
        stays(lambda: outcomes(service.db) == {}, 1.0)
        set_read_only("off")
        until(lambda: outcomes(service.db) == {"stored": 3})
        assert all_closed(service.db)[0][3] == 3


def test_rows_wait_while_the_schema_is_another_versions(quick: MakeSettings) -> None:
    settings = quick()

    def set_revision(db: Database, revision: str) -> None:
        with db.engine.execution_options(write=True).begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :at"), {"at": revision})

    with listening(settings) as service:
        until(service.closer.reconciled.is_set)
        set_revision(service.db, "9999")
        assert all(o.ok for o in send(service, *small_files(settings.home / "sent", 3, study="other")))
        stays(lambda: rows(service.db, "SELECT count(*) FROM study") == [(0,)], 1.0)
        set_revision(service.db, head_revision())
        until(lambda: outcomes(service.db) == {"stored": 3})
        assert all_closed(service.db)[0][3] == 3


def test_half_a_file_of_a_process_that_was_killed_beside_others_goes_in_time(
    quick: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_listener.studies.reconcile.STRANGER_PARTIAL_S", 1.0)
    with listening(quick()) as service:
        until(service.closer.reconciled.is_set)
        half = service.storage.spool.path(service.storage.spool.new_key()).with_suffix(".part")
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half")
        stays(half.exists, 0.5)
        until(lambda: not half.exists(), 10)
