"""What could not be taken in: objects and files, and connections that were turned away."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.responses import Response

from firstread.records.view_rows import as_time, view_rows
from firstread_web.site import Visit

NEWEST = 100


def show_refusals(visit: Visit) -> Response:
    """The newest refusals of both kinds, with their reasons in words."""
    visit.note("web.refusals")
    with visit.db.read() as session:
        objects = view_rows(session, text(f"SELECT * FROM intake_refusal ORDER BY received_at DESC LIMIT {NEWEST}"))
        connections = _connections(session)
    content: dict[str, Any] = {"objects": objects, "connections": connections, "newest": NEWEST}
    return visit.show("part_refusals" if visit.is_live else "refusals", **content)


def _connections(session: Session) -> list[dict[str, Any]]:
    rows = view_rows(session, text(f"SELECT * FROM association_refusal ORDER BY last_at DESC LIMIT {NEWEST}"))
    return [{**row, "last_at": as_time(row["last_at"])} for row in rows]
