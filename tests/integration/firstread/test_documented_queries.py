"""No look-up reads a big table from end to end, none grows with the database, and the list has what documents say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from firstread.records import Database
from firstread.records.migrate import upgrade
from tests.bench.documented_queries import (
    LISTINGS,
    LOOK_UPS,
    ROOT,
    DocumentedQuery,
    documented_queries,
)
from tests.bench.filled_database import fill, subject
from tests.builders.query_plans import plan_of, scans, statements_of, work_of

STUDIES, SLICES, TIMES = 1_600, 6, 4
SHORT = {"tally", "call_tally", "process", "drift_row"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with 1,600 studies, once on each engine."""
    yield from _filled(request, tmp_path_factory.mktemp("filled"), request.param, STUDIES)


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The same with a quarter of the studies, on SQLite."""
    db = Database(f"sqlite:///{tmp_path_factory.mktemp('smaller') / 'test.sqlite'}")
    upgrade(db)
    fill(db, STUDIES // TIMES, SLICES)
    yield db
    db.dispose()


def _filled(request: pytest.FixtureRequest, folder: Path, engine: str, studies: int) -> Iterator[Database]:
    url = f"sqlite:///{folder / 'test.sqlite'}"
    if engine == "postgresql":
        import psycopg

        server = str(request.getfixturevalue("postgres_server"))
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute('CREATE DATABASE "filled"')
        url = server.replace("/postgres?", "/filled?")
    db = Database(url)
    upgrade(db)
    fill(db, studies, SLICES)
    yield db
    db.dispose()


@pytest.mark.parametrize("query", [*LOOK_UPS, *LISTINGS], ids=lambda query: query.name)
def test_no_look_up_scans_a_big_table(filled: Database, query: DocumentedQuery) -> None:
    def run(session: Session) -> int:
        return query.run(session, subject(STUDIES))

    with filled.read() as session:
        rows = run(session)
    assert rows or query.name in {"flags of a study", "modalities turned away"}, "nothing was asked"
    statements = statements_of(filled, run)
    assert statements
    read = [line for statement in statements for line in scans(filled, statement)]
    if query.kind == "listing":  # the first rows in the order of an index are no scan
        read = [line for line in read if not re.search("INDEX |Index (Only )?Scan|SCAN d$", line)]
    assert not read, [line for statement in statements for line in plan_of(filled, statement)]


@pytest.mark.parametrize("query", [*LOOK_UPS, *LISTINGS], ids=lambda query: query.name)
def test_no_look_up_grows(smaller: Database, filled: Database, query: DocumentedQuery) -> None:
    if not filled.is_sqlite:
        pytest.skip("pages of small tables say little; plans are compared on PostgreSQL")
    work, rows = [], []
    for db, studies in ((smaller, STUDIES // TIMES), (filled, STUDIES)):
        about = subject(studies)
        work.append(work_of(db, lambda session, about=about: query.run(session, about)))  # type: ignore[misc]
        with db.read() as session:
            rows.append(max(1, query.run(session, about)))
    assert work[1] <= 1.5 * work[0] * max(1, rows[1] / rows[0]) + 20, (work, rows)


def test_a_scan_is_seen(filled: Database) -> None:
    def run(session: Session) -> int:
        return DocumentedQuery("", "look-up", "", "SELECT * FROM study_result WHERE station_name = :uid").run(
            session, subject(STUDIES)
        )

    assert any(scans(filled, statement) for statement in statements_of(filled, run))


def _plain(sql: str) -> str:
    for value, name in (("'A-100'", ":accession"), ("'1.2.3'", ":uid"), ("LIMIT 50", "LIMIT :limit")):
        sql = sql.replace(value, name)
    return " ".join(re.sub(r"--[^\n]*", "", sql).split()).rstrip(";").strip()


def test_the_list_has_every_query_of_the_documents() -> None:
    listed = {_plain(query.ask) for query in documented_queries() if isinstance(query.ask, str)}
    missing = []
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```sql\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
            asked = (_plain(statement) for statement in re.sub(r"--[^\n]*", "", block).split(";"))
            missing += [f"{document.name}: {sql}" for sql in asked if sql and sql not in listed]
    assert not missing


def test_every_name_and_source_is_right() -> None:
    queries = documented_queries()
    assert len({query.name for query in queries}) == len(queries)
    assert [query.source for query in queries if not (ROOT / query.source).exists()] == []
