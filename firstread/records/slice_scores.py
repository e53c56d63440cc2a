"""Slice scores go in by hundreds: some ways into a table are many times faster than a statement a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from sqlalchemy import insert
from sqlalchemy.orm import Session

from firstread.records.scoring import SliceScoreRow

_COLUMNS = tuple(column.key for column in SliceScoreRow.__table__.columns if column.key != "id")
_COPY = f"COPY slice_score_row ({', '.join(_COLUMNS)}) FROM STDIN".encode()


def insert_slice_scores(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert slice scores in the session's transaction: by COPY on PostgreSQL, by one prepared statement on SQLite.

    Parameters
    ----------
    rows : sequence of mapping
        Each with every column of ``slice_score_row`` but the key.
    """
    if not rows:
        return
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.execute(insert(SliceScoreRow), [dict(row) for row in rows])
        return
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row([row[name] for name in _COLUMNS])
