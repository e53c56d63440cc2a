"""How the system is and was in the last day: what waits, what gets done, disk, models, processes."""

from __future__ import annotations

import logging
import shutil
import socket
import statistics
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from firstread.metrics.state import ALIVE_S
from firstread.records import (
    WORKER,
    Database,
    Flag,
    HealthSample,
    IntakeRefusal,
    Job,
    Process,
    Revision,
    tallied,
)
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.states import JobState, has_open_work
from firstread_web.charts import Series, bars, line
from firstread_web.site import Visit, age_s

DAY = timedelta(days=1)
KEPT = timedelta(days=2)
HOURS = 24
SAMPLE_S = 300.0
SAMPLES = int(DAY.total_seconds() / SAMPLE_S)
GIB = float(2**30)

log = logging.getLogger(__name__)


def show_health(visit: Visit) -> Response:
    """The page of the system's health."""
    visit.note("web.health")
    with visit.db.read() as session:
        content = health_content(session, visit.settings)
    return visit.show("part_health" if visit.is_live else "health", **content)


def take_sample(db: Database, settings: Settings) -> None:
    """Write down how things are now; samples of former days go."""
    disk = shutil.disk_usage(settings.home)
    with db.write() as session:
        now = now_of(session)
        waiting, oldest = waiting_now(session)
        session.execute(delete(HealthSample).where(HealthSample.at < now - KEPT))
        session.add(
            HealthSample(
                at=now,
                host=socket.gethostname(),
                waiting=waiting,
                oldest_s=age_s(now, oldest),
                workers=len([one for one in _alive(session, now) if one.kind == WORKER]),
                disk_free_bytes=disk.free,
                disk_total_bytes=disk.total,
            )
        )


def waiting_now(session: Session) -> tuple[int, datetime | None]:
    """How many closed revisions are not finished, and when the first of them was closed."""
    open_work = has_open_work(Job.state.in_([JobState.WAITING.value, JobState.SCORING.value]))
    count, first = session.execute(select(func.count(), func.min(Revision.closed_at)).where(open_work)).one()
    return int(count), first


def health_content(session: Session, settings: Settings) -> dict[str, Any]:
    """What the page shows, by the names in ``templates/part_health.html.j2``."""
    now = now_of(session)
    since = now - DAY
    waiting, oldest = waiting_now(session)
    alive = _alive(session, now)
    disk = shutil.disk_usage(settings.home)
    return {
        "waiting": waiting,
        "oldest_s": age_s(now, oldest),
        "states": tallied(session, "state"),
        "free": disk.free,
        "total": disk.total,
        "watermark": settings.min_free_mb * 2**20,
        "processes": [
            {
                "kind": one.kind,
                "host": one.host,
                "state": one.details.get("state", ""),
                "beat_s": age_s(now, one.heartbeat_at),
            }
            for one in sorted(alive, key=lambda one: (one.kind, one.host))
        ],
        "has_worker": any(one.kind == WORKER and one.details.get("state") == "ready" for one in alive),
        "models": sorted({model for one in alive for model in one.details.get("models", [])}),
        "serving": sorted({name for one in alive for name in one.details.get("pipelines", [])}),
        "charts": [*_work(session, now, since), *_samples(session, now, since)],
    }


def _alive(session: Session, now: datetime) -> list[Process]:
    return [one for one in session.scalars(select(Process)) if age_s(now, one.heartbeat_at) < ALIVE_S]


def _work(session: Session, now: datetime, since: datetime) -> list[Any]:
    query = (
        select(Job.finished_at, Job.state, Revision.closed_at)
        .join(Revision, Revision.id == Job.revision_id)
        .where(Job.finished_at >= since)
    )
    finished = [(at, state, closed_at) for at, state, closed_at in session.execute(query) if at is not None]
    by_state = {
        state: _hours(now, (at for at, of, _ in finished if of == state))
        for state in (JobState.DONE, JobState.FAILED, JobState.REJECTED)
    }
    names = {JobState.DONE: "scored", JobState.FAILED: "failed", JobState.REJECTED: "rejected"}
    seconds: list[list[float]] = [[] for _ in range(HOURS)]
    for at, _, closed_at in finished:
        hour = _hour(now, at)
        if hour is not None and closed_at is not None:
            seconds[hour].append(age_s(at, closed_at))
    flags = _hours(now, session.scalars(select(Flag.flagged_at).where(Flag.flagged_at >= since)))
    refused = _hours(now, session.scalars(select(IntakeRefusal.received_at).where(IntakeRefusal.received_at >= since)))
    return [
        bars("Studies an hour", [Series(names[state], values) for state, values in by_state.items()]),
        line(
            "Seconds to a result, median",
            Series("seconds", [statistics.median(one) if one else None for one in seconds]),
            " s",
        ),
        bars("Flags an hour", [Series("flags", flags)]),
        bars("Refusals of intake an hour", [Series("refused", refused)]),
    ]


def _samples(session: Session, now: datetime, since: datetime) -> list[Any]:
    rows = session.scalars(
        select(HealthSample)
        .where(HealthSample.host == socket.gethostname(), HealthSample.at >= since)
        .order_by(HealthSample.at)
    ).all()

    def values(name: str, unit: float = 1.0) -> list[float | None]:
        steps: list[float | None] = [None] * SAMPLES
        for row in rows:
            step = SAMPLES - 1 - int(age_s(now, row.at) / SAMPLE_S)
            if 0 <= step < SAMPLES:
                steps[step] = getattr(row, name) / unit
        return _bridged(steps)

    return [
        line("Studies that wait", Series("waiting", values("waiting"))),
        line("Longest wait", Series("minutes", values("oldest_s", 60.0)), " min"),
        line("Free disk", Series("GiB", values("disk_free_bytes", GIB)), " GiB"),
        line("Workers", Series("workers", values("workers"))),
    ]


def _bridged(steps: list[float | None]) -> list[float | None]:
    """A step that a sample just missed has its neighbour's value; a longer gap stays one."""
    return [
        steps[n - 1] if value is None and 0 < n < len(steps) - 1 and steps[n + 1] is not None else value
        for n, value in enumerate(steps)
    ]


def _hour(now: datetime, at: datetime) -> int | None:
    hour = HOURS - 1 - int(age_s(now, at) / 3600.0)
    return hour if 0 <= hour < HOURS else None


def _hours(now: datetime, moments: Iterable[datetime]) -> list[float]:
    """How many moments lie in each of the last 24 hours."""
    counts = [0.0] * HOURS
    for at in moments:
        hour = _hour(now, at)
        if hour is not None:
            counts[hour] += 1.0
    return counts
