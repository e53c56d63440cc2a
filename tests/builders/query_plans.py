"""What a query makes a database do: its statements, their plans, and how many steps they take."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from firstread.records import Database
from firstread.records.views import VIEWS

SMALL = {
    "tally",
    "call_tally",
    "sender_habit",
    "self_test",
    "process",
    "drift_row",
    "audit_event",
    "association_refusal_row",
}
"""Tables that a look-up may read from end to end."""

MADE_BEFORE = {"CONSTANT", "counted"}
"""What SQLite's plans call a row of constants, and a common table whose own steps stand above it; so it is of views."""

Statement = tuple[str, Any]


def statements_of(db: Database, run: Callable[[Session], object]) -> list[Statement]:
    """The statements that ``run`` sends, with their parameters, as the driver gets them."""
    seen: list[Statement] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        with db.read() as session:
            run(session)
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
    return [(sql, values) for sql, values in seen if sql.lstrip().upper().startswith(("SELECT", "WITH"))]


def _driver_rows(db: Database, sql: str, values: Any) -> list[tuple[Any, ...]]:
    with db.engine.connect() as connection:
        cursor = connection.connection.cursor()
        try:
            cursor.execute(sql, values)
            return list(cursor.fetchall())
        finally:
            cursor.close()


def plan_of(db: Database, statement: Statement) -> list[str]:
    """The plan of a statement, a line a step, indented."""
    sql, values = statement
    if not db.is_sqlite:
        return [str(row[0]) for row in _driver_rows(db, f"EXPLAIN {sql}", values)]
    depth: dict[int, int] = {}
    lines = []
    for key, parent, _, words in _driver_rows(db, f"EXPLAIN QUERY PLAN {sql}", values):
        depth[key] = depth.get(parent, -1) + 1
        lines.append("  " * depth[key] + str(words))
    return lines


def scans(db: Database, statement: Statement) -> list[str]:
    """Steps that read a table, or one of its indexes, from end to end since there is no other way.

    Tables that stay small do not count. PostgreSQL is asked for another way than those that it takes for small tables.
    """
    if db.is_sqlite:
        return [line.strip() for line in plan_of(db, statement) if _is_scan(line)]
    sql, values = statement
    with db.engine.connect() as connection:
        for way in ("seqscan", "hashjoin", "mergejoin", "bitmapscan"):
            connection.execute(text(f"SET LOCAL enable_{way} = off"))
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", values)
        ((plan,),) = cursor.fetchall()
    return [
        f"{node['Node Type']} on {node['Relation Name']} {node.get('Index Name', '')}".strip()
        for node in _nodes(plan[0]["Plan"])
        if node.get("Relation Name", "") not in {"", *SMALL} and "Index Cond" not in node
    ]


def _is_scan(line: str) -> bool:
    match = re.match(r"SCAN (\w+)", line.strip())
    return match is not None and match[1] not in SMALL | MADE_BEFORE | set(VIEWS)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def work_of(db: Database, run: Callable[[Session], object]) -> int:
    """Tens of steps that a query takes on SQLite, whatever else the machine does."""
    return sum(_steps(db, statement) for statement in statements_of(db, run))


def _steps(db: Database, statement: Statement) -> int:
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    with db.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.set_progress_handler(tick, 10)
        try:
            raw.execute(*statement).fetchall()
        finally:
            raw.set_progress_handler(None, 0)
    return count
