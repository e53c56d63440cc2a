"""What each role of PostgreSQL may do: the owner migrates, the service works, the reader looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from dicom_listener.service import ListenerService
from firstread.actions.verdicts import acknowledge, record_verdict
from firstread.records import Base, Database
from firstread.records.migrate import require_head, upgrade
from firstread.records.roles import HISTORY, READER, SERVICE
from firstread.records.views import VIEWS
from firstread.settings import Settings
from firstread.upkeep import self_tests
from firstread.upkeep.drift import compute_drift
from firstread.upkeep.retention import clean
from tests.builders.listening import QUICK, all_closed, send, small_files
from tests.builders.postgres_roles import roles, run_scripts, url_of
from tests.builders.scored_studies import scored_study
from tests.builders.site import settings_in

DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def owner(postgres_url: str) -> Iterator[Database]:
    """A database at head, migrated by its owner after the roles were made."""
    with roles(postgres_url):
        db = Database(postgres_url)
        upgrade(db)
        yield db
        db.dispose()


@pytest.fixture
def service(owner: Database, tmp_path: Path) -> Iterator[tuple[Settings, Database]]:
    """A site whose processes have the role of the service."""
    settings = settings_in(tmp_path / "home", database_url=url_of(SERVICE, owner.url), dicom_port=0, metrics_port=0)
    db = Database(settings.database_url)
    yield settings, db
    db.dispose()


def test_the_reader_sees_the_views_and_nothing_else(owner: Database, service: tuple[Settings, Database]) -> None:
    scored_study(service[1], service[0])
    upgrade(owner)  # views are made anew, and are still to be read
    with psycopg.connect(url_of(READER, owner.url).replace("+psycopg", ""), autocommit=True) as reader:
        reader.execute("SET default_transaction_read_only = off")
        for view in VIEWS:
            reader.execute(f"SELECT * FROM {view}".encode())
        assert reader.execute("SELECT count(*) FROM hemorrhage_flag").fetchone() == (1,)
        for table in (*Base.metadata.tables, "alembic_version"):
            for statement in (f"SELECT 1 FROM {table}", f"DELETE FROM {table}"):
                with pytest.raises(DENIED):
                    reader.execute(statement.encode())
        for statement in ("CREATE TABLE mine (a int)", "DROP VIEW drift", "CREATE ROLE other", "CREATE SCHEMA other"):
            with pytest.raises(DENIED):
                reader.execute(statement.encode())


def test_the_service_does_its_work_and_changes_no_table_and_no_history(
    owner: Database, service: tuple[Settings, Database], tmp_path: Path
) -> None:
    settings, db = service
    require_head(db)
    scored = scored_study(db, settings)
    acknowledge(db, scored.study_uid, "duty")
    record_verdict(db, scored.study_uid, "head_ct", truth=1, by="duty")
    self_tests.register(db)
    clean(db, settings.model_copy(update={"retention_days": {"DONE": 0, "evidence": 0, "refused": 0}}))
    compute_drift(db, settings, db.now().date())
    listener = ListenerService(settings.model_copy(update=QUICK))
    listener.start()
    try:
        assert all(outcome.ok for outcome in send(listener, *small_files(tmp_path / "ct")))
        all_closed(db, 2)
    finally:
        listener.stop()
    with db.read() as session:
        for view in VIEWS:
            session.execute(text(f"SELECT * FROM {view}"))
    with psycopg.connect(db.url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in (
            *(
                f"{verb} {table}{rest}"
                for table in HISTORY
                for verb, rest in (("UPDATE", " SET id = 1"), ("TRUNCATE", ""))
            ),
            *(f"DELETE FROM {table}" for table in (*HISTORY, "alembic_version")),
            *("DROP TABLE flag", "ALTER TABLE flag ADD COLUMN a int", "CREATE TABLE mine (a int)", "DROP VIEW drift"),
            *("ALTER TABLE verdict DISABLE TRIGGER ALL", "CREATE ROLE other", "TRUNCATE flag"),
        ):
            with pytest.raises(DENIED):
                connection.execute(statement.encode())


def test_roles_may_be_made_later_and_again(postgres_url: str) -> None:
    """As in a site that was there before: its next ``firstread migrate`` grants what they need."""
    db = Database(postgres_url)
    upgrade(db)
    with roles(postgres_url):
        run_scripts(postgres_url, "another", "another")
        with pytest.raises(DENIED), psycopg.connect(url_of(READER, postgres_url)) as reader:
            reader.execute("SELECT * FROM study_result")
        upgrade(db)
        with psycopg.connect(url_of(READER, postgres_url)) as reader:
            reader.execute("SELECT * FROM study_result")
    db.dispose()
