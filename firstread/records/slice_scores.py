"""Slice scores: in by the hundred, one statement for all of them and not one a row; out by their job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, Select, insert, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from firstread.pipelines import leading_finding
from firstread.records.scoring import Job, SliceScoreRow

_POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_COLUMNS = {
    column.key: column.type.compile(dialect=_POSTGRESQL)
    for column in SliceScoreRow.__table__.columns
    if column.key != "id"
}
_ARRAYS = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _COLUMNS.items())
_INSERT = text(f"INSERT INTO slice_score_row ({', '.join(_COLUMNS)}) SELECT * FROM unnest({_ARRAYS})")


def insert_slice_scores(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert slice scores in the session's transaction: as arrays on PostgreSQL, by one prepared statement on SQLite.

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
    else:
        connection.execute(_INSERT, {name: [row[name] for row in rows] for name in _COLUMNS})


def leading_scores(job: Job) -> Select[SliceScoreRow]:
    """The frames that a job's last run scored, each with the leading finding's probability; in no order yet."""
    return select(SliceScoreRow).where(
        SliceScoreRow.job_id == job.id,
        SliceScoreRow.run == job.run,
        SliceScoreRow.role == "active",
        SliceScoreRow.finding == leading_finding(job.pipeline),
    )
