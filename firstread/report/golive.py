"""What a site would have seen and said in its silent weeks, as one HTML page: the ground on which it goes live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from jinja2 import Environment, PackageLoader
from sqlalchemy import Row, bindparam, func, select, text
from sqlalchemy.orm import Session

from firstread.pipelines import NOTICE
from firstread.records import Database, Delivery
from firstread.records.base import UtcDateTime
from firstread.records.clock import now_of
from firstread.records.silence import SILENT, read_silence
from firstread.report.page import write_private
from firstread.settings import Settings
from firstread.states import JobState

STUDIES = text(
    "SELECT pipeline, scanner, state, reason, flagged, COUNT(*) AS studies FROM ("
    " SELECT pipeline, COALESCE(station_name, manufacturer, '') AS scanner, state, reason,"
    " MAX(CASE WHEN flagged THEN 1 ELSE 0 END) AS flagged FROM study_result"
    " WHERE pipeline IS NOT NULL AND received_at >= :since"
    " GROUP BY study_instance_uid, pipeline, COALESCE(station_name, manufacturer, ''), state, reason) studies "
    "GROUP BY pipeline, scanner, state, reason, flagged"
).bindparams(bindparam("since", type_=UtcDateTime))
FLAG_TIMES = text("SELECT pipeline, received_at, flagged_at FROM study_flag WHERE flagged_at >= :since").bindparams(
    bindparam("since", type_=UtcDateTime)
)
JUDGED = text(
    "SELECT pipeline, scanner, finding, n_truth, true_positive, false_positive, true_negative, false_negative, "
    "sensitivity, sensitivity_low, sensitivity_high, specificity, specificity_low, specificity_high "
    "FROM verdict_performance WHERE n_truth > 0 AND month >= :month ORDER BY pipeline, scanner, month, finding"
)


@dataclass(frozen=True)
class ScannerRow:
    """Studies of one scanner by one pipeline."""

    pipeline: str
    scanner: str
    studies: int
    scored: int
    positive: int
    rejected: int
    failed: int


@dataclass(frozen=True)
class ReasonRow:
    """Why studies of a pipeline were not read, and which share of all of its studies that is."""

    pipeline: str
    reason: str
    studies: int
    share: float


@dataclass(frozen=True)
class DelayRow:
    """Seconds from a study's last image to its flag."""

    pipeline: str
    flags: int
    median_s: float
    p95_s: float


@dataclass(frozen=True)
class NoticeRow:
    """Deliveries that were planned and not sent."""

    destination: str
    kind: str
    number: int


def write_golive(db: Database, settings: Settings, since: datetime | None, path: Path) -> dict[str, Any]:
    """Write the page, readable by its owner only; gives back what it shows.

    Parameters
    ----------
    since : datetime or None
        None: since the silence began; without one, everything.
    """
    with db.read() as session:
        content = content_of(session, settings, since)
    environment = Environment(loader=PackageLoader("firstread.report"), autoescape=True, trim_blocks=True)
    environment.filters["time"] = lambda moment: f"{moment:%Y-%m-%d %H:%M} UTC"
    environment.filters["percent"] = lambda share: "" if share is None else f"{100 * share:.1f} %"
    write_private(path, environment.get_template("golive.html.j2").render(content))
    return content


def content_of(session: Session, settings: Settings, since: datetime | None) -> dict[str, Any]:
    """Everything that the page shows, by the names in ``templates/golive.html.j2``."""
    silence = read_silence(session, settings.silent)
    begin = since or silence.began_at or datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    studies = session.execute(STUDIES, {"since": begin}).all()
    return {
        "silent": silence.holds,
        "since": since or silence.began_at,
        "until": now_of(session),
        "ended_at": None if silence.holds else silence.ended_at,
        "scanners": [asdict(row) for row in _scanners(studies)],
        "reasons": [asdict(row) for row in _reasons(studies)],
        "delays": [asdict(row) for row in _delays(session, begin)],
        "judged": [dict(row) for row in session.execute(JUDGED, {"month": f"{begin:%Y-%m}"}).mappings()],
        "notices": [asdict(row) for row in _notices(session, begin)],
        "notice": NOTICE,
    }


def _scanners(studies: Sequence[Row[Any]]) -> list[ScannerRow]:
    counts: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in studies:
        counts.setdefault((row.pipeline, row.scanner), []).append(row)
    return [
        ScannerRow(
            pipeline,
            scanner or "-",
            sum(row.studies for row in rows),
            _number(rows, JobState.DONE),
            sum(row.studies for row in rows if row.flagged),
            _number(rows, JobState.REJECTED),
            _number(rows, JobState.FAILED),
        )
        for (pipeline, scanner), rows in sorted(counts.items())
    ]


def _number(rows: Sequence[Row[Any]], state: JobState) -> int:
    return sum(row.studies for row in rows if row.state == state.value)


def _reasons(studies: Sequence[Row[Any]]) -> list[ReasonRow]:
    totals: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for row in studies:
        totals[row.pipeline] += row.studies
        if row.state == JobState.REJECTED.value:
            counts[row.pipeline, row.reason or "-"] += row.studies
    rows = [
        ReasonRow(pipeline, reason, number, number / totals[pipeline]) for (pipeline, reason), number in counts.items()
    ]
    return sorted(rows, key=lambda row: (row.pipeline, -row.studies, row.reason))


def _delays(session: Session, begin: datetime) -> list[DelayRow]:
    seconds: dict[str, list[float]] = {}
    for row in session.execute(FLAG_TIMES, {"since": begin}):
        seconds.setdefault(row.pipeline, []).append(_seconds_between(row))
    return [
        DelayRow(pipeline, len(values), median(values), quantiles(values, n=20)[-1] if len(values) > 1 else values[0])
        for pipeline, values in sorted(seconds.items())
    ]


def _seconds_between(row: Row[Any]) -> float:
    """SQLite's views give times as text."""
    received_at, flagged_at = (
        at if isinstance(at, datetime) else datetime.fromisoformat(str(at)) for at in (row.received_at, row.flagged_at)
    )
    return max(0.0, (flagged_at - received_at).total_seconds())


def _notices(session: Session, begin: datetime) -> list[NoticeRow]:
    query = (
        select(Delivery.destination, Delivery.kind, func.count())
        .where(Delivery.last_status == SILENT, Delivery.created_at >= begin)
        .group_by(Delivery.destination, Delivery.kind)
        .order_by(Delivery.destination)
    )
    return [NoticeRow(*row) for row in session.execute(query)]
