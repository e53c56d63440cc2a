"""Back-up and restore as docs/operations.md describes them."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from firstread.records import Database
from firstread.records.migrate import require_head, upgrade
from firstread.records.views import VIEWS
from tests.builders.postgres_roles import pg_bin
from tests.builders.programs import need
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in

ROOT = Path(__file__).resolve().parents[3]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


@pytest.fixture
def two_databases(postgres_server: str) -> Iterator[tuple[str, str]]:
    """URLs of two empty databases on one server."""
    names = [f"b{uuid.uuid4().hex[:10]}" for _ in range(2)]
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in names:
            connection.execute(f'CREATE DATABASE "{name}"')
    yield (
        postgres_server.replace("/postgres?", f"/{names[0]}?"),
        postgres_server.replace("/postgres?", f"/{names[1]}?"),
    )


def answers(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """Everything that the views say."""
    with db.read() as session:
        return {view: sorted(map(tuple, session.execute(text(f"SELECT * FROM {view}"))), key=repr) for view in VIEWS}


def test_postgresql_dump_and_restore(two_databases: tuple[str, str], tmp_path: Path) -> None:
    source, target = two_databases
    for words in ("pg_dump --format=custom", "pg_restore --clean --if-exists"):
        assert words in OPERATIONS
    settings = settings_in(tmp_path / "home", database_url=source)
    db = database_in(settings)
    scored_study(db, settings)
    before = answers(db)
    db.dispose()
    dump = tmp_path / "firstread.dump"

    def run(program: str, *arguments: str) -> None:
        subprocess.run([str(pg_bin() / program), *arguments], check=True, timeout=60)

    run("pg_dump", "--format=custom", f"--file={dump}", source)
    run("pg_restore", "--clean", "--if-exists", f"--dbname={target}", str(dump))
    restored = Database(target)
    upgrade(restored)
    require_head(restored)
    assert answers(restored) == before
    assert before["hemorrhage_flag"]
    restored.dispose()


def test_sqlite_backup_of_a_running_database(tmp_path: Path) -> None:
    program = need("sqlite3", "sqlite3")
    assert re.search(r'sqlite3 \S+ "\.backup ', OPERATIONS)
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    scored_study(db, settings)
    copy = tmp_path / "firstread-backup.sqlite"
    with db.read() as session:
        session.execute(text("SELECT count(*) FROM study"))
        subprocess.run([program, str(settings.home / "firstread.sqlite"), f".backup {copy}"], check=True, timeout=60)
    restored = Database(f"sqlite:///{copy}")
    require_head(restored)
    assert answers(restored) == answers(db)
    assert answers(restored)["hemorrhage_flag"]
    restored.dispose()
    db.dispose()
