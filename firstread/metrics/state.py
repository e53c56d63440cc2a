"""Figures that the database, the broker and the disk hold: read at scrape time, within a limit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import redis
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from firstread.metrics.outcomes import OutcomeFigures
from firstread.metrics.outcomes import families as outcome_families
from firstread.metrics.server import Snapshot
from firstread.queue import depth, redis_client
from firstread.records import Database, Flag, Job, Process, Revision, Standing
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.states import JobState, RevisionState

ALIVE_S = 30.0
"""A process whose heartbeat is younger counts as running."""

STATES = ("RECEIVING", "WAITING", "SCORING", "DONE", "REJECTED", "FAILED")

log = logging.getLogger(__name__)

Families = dict[str, GaugeMetricFamily]


def _families() -> Families:
    """Every figure of this module with its help; a figure that cannot be read has no sample."""

    def gauge(name: str, text: str, *labels: str) -> tuple[str, GaugeMetricFamily]:
        return name, GaugeMetricFamily(name, text, labels=labels)

    return outcome_families() | dict(
        [
            gauge("firstread_state_studies", "Studies by state, one a job of a revision.", "outcome"),
            gauge("firstread_waiting_jobs", "Jobs that wait, by what keeps them waiting.", "pipeline", "reason"),
            gauge("firstread_waiting_age_seconds", "Age of the oldest closed revision that is not finished."),
            gauge("firstread_queue_messages", "Doorbell messages on the broker, over all priorities."),
            gauge("firstread_flagged_studies", "Flags that stand.", "pipeline"),
            gauge("firstread_unacknowledged_flags", "Flags that nobody has acknowledged.", "pipeline"),
            gauge("firstread_heartbeat_age_seconds", "Youngest sign of life of a kind of process.", "stage"),
            gauge("firstread_running_processes", "Processes with a heartbeat in the last 30 s.", "stage"),
            gauge("firstread_disk_free_bytes", "Free space on the spool's disk."),
            gauge("firstread_disk_watermark_bytes", "Free space under which images are refused."),
            gauge("firstread_database_up", "1 if the database answered."),
            gauge("firstread_broker_up", "1 if the broker answered."),
            gauge("firstread_snapshot_age_seconds", "Age of these figures; grows while the database is silent."),
        ]
    )  # fmt: skip


class StateCollector:
    """Collector for ``make_registry``. Never raises, never waits longer than two seconds."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._outcomes = OutcomeFigures()
        self._snapshot = Snapshot(self._read)

    def describe(self) -> Iterable[Any]:
        """Names without a look at the database, for the registry."""
        return list(_families().values())

    def collect(self) -> Iterable[Any]:
        """The families of the newest snapshot."""
        families, age_s = self._snapshot.get()
        if families is None:
            families = _families()
            families["firstread_database_up"].add_metric([], 0)
        else:
            families = dict(families)
        age = _families()["firstread_snapshot_age_seconds"]
        if age_s is not None:
            age.add_metric([], age_s)
        families["firstread_snapshot_age_seconds"] = age
        return list(families.values())

    def _read(self) -> Families:
        families = _families()
        try:
            with self._db.read() as session:
                read_database(session, families)
                self._outcomes.read(session, families)
            families["firstread_database_up"].add_metric([], 1)
        except SQLAlchemyError as error:
            log.warning("metrics: the database does not answer (%s)", type(error).__name__)
            families["firstread_database_up"].add_metric([], 0)
        try:
            with redis_client(self._settings, timeout_s=1.0) as client:
                families["firstread_queue_messages"].add_metric([], depth(client))
            families["firstread_broker_up"].add_metric([], 1)
        except (redis.RedisError, OSError):
            families["firstread_broker_up"].add_metric([], 0)
        try:
            free = shutil.disk_usage(self._settings.spool_dir).free
            families["firstread_disk_free_bytes"].add_metric([], free)
        except OSError as error:
            log.warning("metrics: no free space to be read (%s)", type(error).__name__)
        families["firstread_disk_watermark_bytes"].add_metric([], self._settings.min_free_mb * 2**20)
        return families


def read_database(session: Session, families: Families) -> None:
    """Fill the figures that the database holds."""
    now = now_of(session)
    _states(session, families)
    closed = RevisionState.CLOSED.value
    unfinished = [JobState.WAITING.value, JobState.SCORING.value]
    first_close = select(func.min(Revision.closed_at))
    unrouted = first_close.where(Revision.state == closed, Revision.routed_at.is_(None))
    in_work = first_close.join(Job, Job.revision_id == Revision.id).where(Job.state.in_(unfinished))
    times = [_age_s(now, at) for at in (session.scalar(unrouted), session.scalar(in_work)) if at is not None]
    families["firstread_waiting_age_seconds"].add_metric([], max(times, default=0.0))
    for pipeline, total, acknowledged in session.execute(
        select(Flag.pipeline, func.count(), func.count(Flag.acknowledged_at)).group_by(Flag.pipeline)
    ):
        families["firstread_flagged_studies"].add_metric([pipeline], total)
        families["firstread_unacknowledged_flags"].add_metric([pipeline], total - acknowledged)
    _processes(session, families, now)


def _states(session: Session, families: Families) -> None:
    counts = dict.fromkeys(STATES, 0)
    counts["RECEIVING"] = (
        session.scalar(select(func.count()).select_from(Revision).where(Revision.state == "RECEIVING")) or 0
    )
    unrouted = select(func.count()).select_from(Revision).where(
        Revision.state == RevisionState.CLOSED.value, Revision.routed_at.is_(None)
    )  # fmt: skip
    counts["WAITING"] = session.scalar(unrouted) or 0
    families["firstread_waiting_jobs"].add_metric(["", "unrouted"], counts["WAITING"])
    unwanted = select(func.count()).select_from(Revision).where(
        Revision.routed_at.is_not(None),
        ~select(Job.id).where(Job.revision_id == Revision.id).exists(),
        ~select(Standing.id).where(Standing.revision_id == Revision.id).exists(),
    )  # fmt: skip
    counts["REJECTED"] = session.scalar(unwanted) or 0
    for state, number in session.execute(select(Job.state, func.count()).group_by(Job.state)):
        counts[state] += number
    for pipeline, reason, number in session.execute(
        select(Job.pipeline, Job.reason, func.count())
        .where(Job.state == JobState.WAITING.value)
        .group_by(Job.pipeline, Job.reason)
    ):
        families["firstread_waiting_jobs"].add_metric([pipeline, reason or "queued"], number)
    for state, number in counts.items():
        families["firstread_state_studies"].add_metric([state], number)


def _processes(session: Session, families: Families, now: datetime) -> None:
    beats: dict[str, list[float]] = {}
    for kind, at in session.execute(select(Process.kind, Process.heartbeat_at)):
        beats.setdefault(kind, []).append(_age_s(now, at))
    for kind, ages in sorted(beats.items()):
        families["firstread_heartbeat_age_seconds"].add_metric([kind], min(ages))
        families["firstread_running_processes"].add_metric([kind], sum(age < ALIVE_S for age in ages))


def _age_s(now: datetime, at: datetime) -> float:
    return max(0.0, (now - at).total_seconds())
