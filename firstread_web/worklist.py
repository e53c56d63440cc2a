"""The list: open flags first, then every study and pipeline, newest first; filtered by what a form says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session
from starlette.responses import Response

from firstread import pipelines
from firstread.records import Flag
from firstread.records.base import UtcDateTime
from firstread.records.clock import now_of
from firstread.records.view_rows import view_rows
from firstread.states import JobState, RevisionState
from firstread_web.site import Visit, age_s

PAGE_ROWS = 50
MOST_FLAGS = 100
"""Open flags above the list; how many more there are is said."""

MOST_PAGES = 1000
LONGEST_FIELD = 64
FIRST_DAY, LAST_DAY = date(1990, 1, 1), date(2200, 1, 1)
"""Days that the list can be asked for."""

OPEN, FLAGGED = "OPEN", "FLAGGED"
STATES: dict[str, str] = {
    OPEN: "flag, not acknowledged",
    FLAGGED: "flag",
    RevisionState.RECEIVING: "images are coming",
    JobState.WAITING: "waits",
    JobState.SCORING: "is being scored",
    JobState.DONE: "scored",
    JobState.REJECTED: "rejected",
    JobState.FAILED: "failed: nobody and nothing has read it",
}
"""What the list can be filtered by, in words."""

_OPEN_FLAG = "flagged AND flagged_at IS NOT NULL AND acknowledged_at IS NULL"
_URGENCY = "CASE pipeline " + " ".join(f"WHEN '{name}' THEN {n}" for n, name in enumerate(pipelines.names())) + " END"
_CALLED = """EXISTS (SELECT 1 FROM called_finding c
    WHERE c.study_id = study_key AND c.pipeline = worklist.pipeline AND c.finding = :finding AND c.positive = 1)"""


@dataclass(frozen=True)
class Wanted:
    """What somebody looks for; what is empty does not restrict.

    Attributes
    ----------
    accession, patient : str
        Accession number and patient ID, whole, or their beginning and ``*``.
    finding : str
        One that is called positive: flagged, or at its threshold.
    state : str
        One of :data:`STATES`.
    day : str
        When the last image came, ``2026-11-29`` in the site's time zone; another text finds nothing.
    page : int
        From 1.
    """

    accession: str = ""
    patient: str = ""
    finding: str = ""
    state: str = ""
    day: str = ""
    page: int = 1

    @classmethod
    def of(cls, form: Mapping[str, str]) -> Wanted:
        """What a form says; a finding, state or page that it cannot mean is left out, and such a day finds nothing."""
        words = {name: form.get(name, "").strip()[:LONGEST_FIELD] for name in ("accession", "patient", "day")}
        finding, state, page = form.get("finding", ""), form.get("state", ""), form.get("page", "1")
        known = {term.name for pipeline in pipelines.PIPELINES for term in pipeline.findings}
        return cls(
            accession=words["accession"],
            patient=words["patient"],
            finding=finding if finding in known else "",
            state=state if state in STATES else "",
            day=words["day"],
            page=min(max(1, int(page)), MOST_PAGES) if page.isascii() and page.isdigit() and len(page) < 9 else 1,
        )

    @property
    def has_no_such_day(self) -> bool:
        """Whether the day is none on which an image can have come."""
        return bool(self.day) and _day(self.day) is None

    @property
    def names_nobody(self) -> bool:
        """Whether nothing restricts the list."""
        return not (self.accession or self.patient or self.finding or self.state or self.day)


def show_list(visit: Visit) -> Response:
    """The list, or the part of it that refreshes itself."""
    wanted = Wanted.of(visit.form)
    by = [name for name in ("accession", "patient", "finding", "state", "day") if getattr(wanted, name)]
    visit.note("web.list", page=wanted.page, filtered_by=by)
    with visit.db.read() as session:
        content = list_content(session, wanted, visit.site.pages.zone)
    return visit.show("part_list" if visit.is_live else "list", wanted=wanted, **content)


def list_content(session: Session, wanted: Wanted, zone: tzinfo) -> dict[str, Any]:
    """What the page shows, by the names in ``templates/part_list.html.j2``."""
    where, values = _conditions(wanted, zone)
    flags: list[dict[str, Any]] = []
    if wanted.page == 1:
        open_only = [_OPEN_FLAG, "study_key IN (SELECT study_id FROM flag WHERE acknowledged_at IS NULL)"]
        flags = _rows(session, [*where, *open_only], values, f"{_URGENCY}, flagged_at DESC", MOST_FLAGS)
    rows = _rows(
        session,
        where,
        values,
        "received_at DESC, study_key, pipeline",
        PAGE_ROWS + 1,
        PAGE_ROWS * (wanted.page - 1),
    )
    now = now_of(session)
    for row in (*flags, *rows):
        row["age_s"] = age_s(now, row["received_at"])
        row["is_open"] = bool(row["flagged"]) and row["flagged_at"] is not None and row["acknowledged_at"] is None
    return {
        "flags": flags,
        "open_count": session.scalar(select(func.count()).select_from(Flag).where(Flag.acknowledged_at.is_(None))) or 0,
        "rows": rows[:PAGE_ROWS],
        "has_more": len(rows) > PAGE_ROWS,
        "days": (FIRST_DAY, LAST_DAY),
        "states": STATES,
        "findings": [(term.name, pipeline.subject) for pipeline in pipelines.PIPELINES for term in pipeline.findings],
    }


def _rows(
    session: Session, where: list[str], values: dict[str, Any], order: str, limit: int, offset: int = 0
) -> list[dict[str, Any]]:
    conditions = f" WHERE {' AND '.join(where)}" if where else ""
    query = text(f"SELECT * FROM worklist{conditions} ORDER BY {order} LIMIT {limit} OFFSET {offset}")
    typed = [bindparam(name, value, type_=UtcDateTime()) for name, value in values.items() if _is_time(value)]
    plain = {name: value for name, value in values.items() if not _is_time(value)}
    return view_rows(session, query.bindparams(*typed, **plain))


def _is_time(value: object) -> bool:
    return isinstance(value, datetime)


def _conditions(wanted: Wanted, zone: tzinfo) -> tuple[list[str], dict[str, Any]]:
    where: list[str] = []
    values: dict[str, Any] = {}
    for column, name in (("accession_number", "accession"), ("patient_id", "patient")):
        value = getattr(wanted, name)
        if value.endswith("*"):
            where.append(f"{column} LIKE :{name} ESCAPE '!'")
            values[name] = _beginning(value[:-1]) + "%"
        elif value:
            where.append(f"{column} = :{name}")
            values[name] = value
    if wanted.finding:
        where.append(_CALLED)
        values["finding"] = wanted.finding
    if wanted.state in (OPEN, FLAGGED):
        where.append(_OPEN_FLAG if wanted.state == OPEN else "flagged")
    elif wanted.state:
        where.append("state = :state")
        values["state"] = wanted.state
    if wanted.has_no_such_day:
        where.append("1 = 0")
    day = _day(wanted.day)
    if day is not None:
        where.append("received_at >= :since AND received_at < :until")
        values["since"] = datetime.combine(day, time(), zone).astimezone(UTC)
        values["until"] = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
    return where, values


def _beginning(value: str) -> str:
    """A text in which no character has a meaning of its own for LIKE."""
    return value.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def _day(value: str) -> date | None:
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return None
    return day if FIRST_DAY <= day <= LAST_DAY else None
