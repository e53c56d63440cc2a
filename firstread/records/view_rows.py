"""Rows of the views with the same Python types on both engines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.orm import Session

TIME_COLUMNS = frozenset(
    {"received_at", "closed_at", "scored_at", "flagged_at", "notified_at", "acknowledged_at", "made_at", "at"}
)


def as_time(value: Any) -> datetime | None:
    """A time column of a view as an aware datetime: SQLite's views give UTC text, PostgreSQL's give datetimes."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def view_rows(session: Session, query: TextClause) -> list[dict[str, Any]]:
    """Rows of a view with the same Python types on both engines."""
    rows = []
    for row in session.execute(query).mappings():
        item: dict[str, Any] = dict(row)
        for name in item:
            if name in TIME_COLUMNS:
                item[name] = as_time(item[name])
        if item.get("flagged") is not None:
            item["flagged"] = bool(item["flagged"])
        if isinstance(item.get("warnings"), str):
            item["warnings"] = json.loads(item["warnings"])
        rows.append(item)
    return rows
