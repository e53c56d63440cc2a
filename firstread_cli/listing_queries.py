"""The queries of listings: each reads as many rows as it shows, however many the database has."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.orm import Session

from firstread import pipelines
from firstread.records import Flag, Job, tallied
from firstread.records.view_rows import view_rows
from firstread.report.predictive_value import words_of

NEWEST_FIRST = "ORDER BY received_at DESC, study_instance_uid, pipeline, finding"

_SINCE = "SELECT received_at FROM answer ORDER BY received_at DESC LIMIT 1 OFFSET :span"

WIDER = 10
"""How many times more of the newest answers are looked at where too few rows were found."""


def results_query(
    view: str = "study_result",
    *,
    wanted: dict[str, str] | None = None,
    flagged: bool = False,
    listed_only: bool = False,
    limit: int = 0,
    since: Any = None,
) -> TextClause:
    """Rows of ``study_result`` or its history, newest first.

    Parameters
    ----------
    wanted : dict
        Columns and the values that they must have.
    listed_only : bool
        Only findings that ``firstread results`` shows unless asked for everything.
    limit : int
        The most rows; 0 for all.
    since : time or None
        Only rows with a ``received_at`` as new as this one, as the database gave it.
    """
    values: dict[str, Any] = dict(wanted or {})
    where = [f"{name} = :{name}" for name in values]
    if flagged:
        where.append("flagged")
    if listed_only:
        names = ", ".join(f"'{term.name}'" for known in pipelines.PIPELINES for term in known.terms if term.listed)
        where.append(f"(finding IS NULL OR finding IN ({names}))")
    if since is not None:
        where.append("received_at >= :since")
        values["since"] = since
    query = f"SELECT * FROM {view}"
    if where:
        query += " WHERE " + " AND ".join(where)
    query += f" {NEWEST_FIRST}"
    return text(f"{query} LIMIT {limit}" if limit else query).bindparams(**values)


def history_rows(session: Session, *, limit: int, **conditions: Any) -> list[dict[str, Any]]:
    """Newest rows of ``study_result_history``.

    Each answer has a row of its revision there. So the newest ``limit`` rows are looked for among those as new as the
    newest ``limit`` answers, and, where conditions leave too few, among ten times as many.
    """
    span = limit
    while limit:
        since = session.scalar(text(_SINCE).bindparams(span=span))
        if since is None:
            break
        rows = view_rows(session, results_query("study_result_history", limit=limit, since=since, **conditions))
        if len(rows) >= limit:
            return rows
        span *= WIDER
    return view_rows(session, results_query("study_result_history", limit=limit, **conditions))


def flags_query(pipeline: str, *, only_open: bool = False, limit: int = 0) -> TextClause:
    """Flags of one pipeline, newest first; ``limit`` 0 for all."""
    where = " AND acknowledged_at IS NULL" if only_open else ""
    query = f"SELECT * FROM study_flag WHERE pipeline = :pipeline{where} ORDER BY flagged_at DESC"
    return text(f"{query} LIMIT {limit}" if limit else query).bindparams(pipeline=pipeline)


def flag_rows(session: Session, *, only_open: bool = False, limit: int = 0) -> list[dict[str, Any]]:
    """Flags of all pipelines: heads first, then newest first; at most ``limit``, 0 for all."""
    heads = view_rows(session, flags_query(pipelines.HEAD_CT.name, only_open=only_open, limit=limit))
    if limit and len(heads) == limit:
        return heads
    left = limit - len(heads) if limit else 0
    names = {name for name, n in tallied(session, "flag").items() if n} - {pipelines.HEAD_CT.name}
    others = [view_rows(session, flags_query(name, only_open=only_open, limit=left)) for name in sorted(names)]
    newest_first = heapq.merge(*others, key=lambda row: row["flagged_at"], reverse=True)
    return [*heads, *newest_first][: limit or None]


def flag_count(session: Session, *, only_open: bool = False) -> int:
    """How many flags there are, or wait for somebody to acknowledge them."""
    if only_open:
        unseen = select(func.count()).select_from(Flag).where(Flag.acknowledged_at.is_(None))
        return session.scalar(unseen) or 0
    return sum(tallied(session, "flag").values())


def seldom_right(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How often such flags are right, in words, of each pipeline among the rows; none where that is not seldom.

    The words are those of the pipeline's newest flag.
    """
    told = []
    for name in dict.fromkeys(row["pipeline"] for row in rows):
        newest = select(Job.statistics).join(Flag, Flag.job_id == Job.id).where(Flag.pipeline == name)
        numbers = session.scalar(newest.order_by(Flag.flagged_at.desc()).limit(1))
        told += [words] if (words := words_of(name, numbers or {})) else []
    return told


def deliveries_query(state: str | None, limit: int) -> TextClause:
    """Newest deliveries, of one state or all."""
    where = "WHERE state = :state " if state else ""
    query = text(f"SELECT * FROM delivery_status {where}ORDER BY delivery DESC LIMIT :limit")
    return query.bindparams(limit=limit, **({"state": state} if state else {}))


AUDIT_QUERY = "SELECT * FROM audit_log ORDER BY at DESC LIMIT :limit"
DRIFT_QUERY = "SELECT * FROM drift ORDER BY day DESC, pipeline, model_name, modality, scanner, quantity LIMIT :limit"
PERFORMANCE_QUERY = "SELECT * FROM verdict_performance ORDER BY month DESC, pipeline, finding, scanner"
