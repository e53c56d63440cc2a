"""No look-up reads a big table from end to end, none grows with the database, and the list has what documents say."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
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


def _filled(url: str, studies: int) -> Iterator[Database]:
    db = Database(url)
    upgrade(db)
    fill(db, studies, SLICES)
    yield db
    db.dispose()


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with 1,600 studies."""
    yield from _filled(f"sqlite:///{tmp_path_factory.mktemp('filled') / 'test.sqlite'}", STUDIES)


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One with a quarter of them."""
    yield from _filled(f"sqlite:///{tmp_path_factory.mktemp('smaller') / 'test.sqlite'}", STUDIES // TIMES)


@pytest.fixture(scope="module")
def on_postgresql(postgres_server: str) -> Iterator[Database]:
    """The same on PostgreSQL."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute('CREATE DATABASE "filled"')
    yield from _filled(postgres_server.replace("/postgres?", "/filled?"), STUDIES)


@pytest.fixture(params=["on_sqlite", "on_postgresql"])
def filled(request: pytest.FixtureRequest) -> Database:
    """Each of the two engines."""
    db = request.getfixturevalue(request.param)
    assert isinstance(db, Database)
    return db


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
def test_no_look_up_grows(smaller: Database, on_sqlite: Database, query: DocumentedQuery) -> None:
    work, rows = [], []
    for db, studies in ((smaller, STUDIES // TIMES), (on_sqlite, STUDIES)):
        about = subject(studies)
        work.append(work_of(db, lambda session: query.run(session, about)))  # noqa: B023
        with db.read() as session:
            rows.append(max(1, query.run(session, about)))
    assert work[1] <= 1.2 * work[0] * max(1, rows[1] / rows[0]) + 50, (work, rows)


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
