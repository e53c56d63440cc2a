"""What the database, the broker, the disk and the clocks say: read at scrape time, within a limit."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Generic, TypeVar

import redis
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from firstread.metrics.outcomes import Families, OutcomeFigures
from firstread.metrics.outcomes import families as outcome_families
from firstread.queue import depth, redis_client
from firstread.records import Database, Flag, Job, Process, Revision, SenderHabit, tallied
from firstread.records.clock import now_of, skew_of
from firstread.records.senders import comes_whole
from firstread.records.silence import read_silence
from firstread.settings import Settings
from firstread.states import JobState, RevisionState
from firstread.storage.store import retention_watermark_bytes
from firstread.tls.files import TlsFiles

SCRAPE_LIMIT_S = 2.0
"""Longest that a scrape waits for the database."""

SNAPSHOT_AGE_S = 1.0
"""Age at which figures are read again."""

ALIVE_S = 30.0
"""A process whose heartbeat is younger counts as running."""

FIGURES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("firstread_state_studies", "Studies by state, one a job of a revision.", ("outcome",)),
    ("firstread_waiting_jobs", "Jobs that wait, by what keeps them waiting.", ("pipeline", "reason")),
    ("firstread_waiting_age_seconds", "Age of the oldest closed revision that is not finished.", ()),
    ("firstread_queue_messages", "Doorbell messages on the broker, over all priorities.", ()),
    ("firstread_flagged_studies", "Flags that stand.", ("pipeline",)),
    ("firstread_unacknowledged_flags", "Flags that nobody has acknowledged.", ("pipeline",)),
    (
        "firstread_known_senders",
        "Senders by how their studies close after a release: at_once, or default (the whole grace).",
        ("outcome",),
    ),
    (
        "firstread_silent_seconds",
        "How long this site has been silent (FIRSTREAD_SILENT); 0 where results are sent.",
        (),
    ),
    ("firstread_heartbeat_age_seconds", "Youngest sign of life of a kind of process.", ("process",)),
    ("firstread_running_processes", "Processes with a heartbeat in the last 30 s.", ("process",)),
    (
        "firstread_tls_certificate_up",
        "1 if the files of the listener's certificate (FIRSTREAD_TLS_CERT) can be used and it is valid today.",
        (),
    ),
    (
        "firstread_tls_certificate_left_seconds",
        "Time until the certificate in FIRSTREAD_TLS_CERT expires, negative afterwards; none for unusable files.",
        (),
    ),
    ("firstread_disk_free_bytes", "Free space on the spool's disk.", ()),
    ("firstread_disk_watermark_bytes", "Free space under which images are refused.", ()),
    (
        "firstread_retention_watermark_bytes",
        "Free space under which images of finished studies go; 0 where they never do.",
        (),
    ),
    ("firstread_database_up", "1 if the database answered.", ()),
    ("firstread_broker_up", "1 if the broker answered.", ()),
    ("firstread_snapshot_age_seconds", "Age of these figures; grows while the database is silent.", ()),
)
"""Name, help and labels of the figures that are read here; one that cannot be read has no sample."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Snapshot(Generic[T]):
    """A value that a thread of its own refreshes, and that a caller waits for ``limit_s`` at most.

    While a database hangs the last value is given, with its age, and the scrape does not hang.
    """

    def __init__(self, read: Callable[[], T], limit_s: float = SCRAPE_LIMIT_S, fresh_s: float = SNAPSHOT_AGE_S) -> None:
        self._read = read
        self._limit_s = limit_s
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._value: T | None = None
        self._read_at: float | None = None

    def get(self) -> tuple[T | None, float | None]:
        """The newest value within the limit, and its age in seconds; None for both until there is one."""
        with self._lock:
            old = self._read_at is None or time.monotonic() - self._read_at > self._fresh_s
            if old and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._refresh, name="metrics-snapshot", daemon=True)
                self._thread.start()
            thread = self._thread if old else None
        if thread is not None:
            thread.join(self._limit_s)
        with self._lock:
            return self._value, None if self._read_at is None else time.monotonic() - self._read_at

    def _refresh(self) -> None:
        value = self._read()
        with self._lock:
            self._value, self._read_at = value, time.monotonic()


class ClockCollector:
    """How far this machine's clock is from the database's; without a sample while the database does not answer.

    Every endpoint shows it, since every host has a clock.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._snapshot = Snapshot(self._read)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The figure without a look at the database, for the registry."""
        help_text = "Clock of the database minus that of the host that serves this endpoint."
        return [GaugeMetricFamily("firstread_clock_skew_seconds", help_text)]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The difference as it was at the last look."""
        (family,) = self.describe()
        skew_s, _ = self._snapshot.get()
        if skew_s is not None:
            family.add_metric([], skew_s)
        return [family]

    def _read(self) -> float | None:
        try:
            with self._db.read() as session:
                return skew_of(session).total_seconds()
        except SQLAlchemyError as error:
            log.warning("metrics: the database's clock cannot be read (%s)", type(error).__name__)
            return None


def _families() -> Families:
    return outcome_families() | {
        name: GaugeMetricFamily(name, help_text, labels=labels) for name, help_text, labels in FIGURES
    }


class StateCollector:
    """What the database, the broker and the disk hold. Never raises, never waits longer than two seconds."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._outcomes = OutcomeFigures()
        self._snapshot = Snapshot(self._read)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names without a look at the database, for the registry."""
        return list(_families().values())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families of the newest snapshot."""
        snapshot, age_s = self._snapshot.get()
        if snapshot is None:
            families = _families()
            families["firstread_database_up"].add_metric([], 0)
        else:
            families = dict(snapshot)
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
                families["firstread_silent_seconds"].add_metric([], _silent_s(session, self._settings.silent))
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
            disk = shutil.disk_usage(self._settings.spool_dir)
            families["firstread_disk_free_bytes"].add_metric([], disk.free)
            removal = retention_watermark_bytes(self._settings, disk.total)
            families["firstread_retention_watermark_bytes"].add_metric([], removal)
        except OSError as error:
            log.warning("metrics: no free space to be read (%s)", type(error).__name__)
        families["firstread_disk_watermark_bytes"].add_metric([], self._settings.min_free_mb * 2**20)
        if self._settings.tls_files is not None:
            read_tls_files(self._settings.tls_files, families)
        return families


def read_tls_files(files: TlsFiles, families: Families) -> None:
    """Fill the figures that the files of the listener's certificate hold."""
    from firstread.tls.certificates import CertificateError, read_certificate
    from firstread.tls.server import server_context

    is_good = False
    try:
        server_context(files)
        certificate = read_certificate(files.cert_file)
    except CertificateError as error:
        log.warning("metrics: %s", error)
    else:
        is_good = certificate.is_valid
        families["firstread_tls_certificate_left_seconds"].add_metric([], certificate.seconds_left)
    families["firstread_tls_certificate_up"].add_metric([], int(is_good))


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
    unseen = select(Flag.pipeline, func.count()).where(Flag.acknowledged_at.is_(None)).group_by(Flag.pipeline)
    open_flags = dict(session.execute(unseen).all())
    for pipeline, total in sorted(tallied(session, "flag").items()):
        families["firstread_flagged_studies"].add_metric([pipeline], total)
        families["firstread_unacknowledged_flags"].add_metric([pipeline], open_flags.get(pipeline, 0))
    _senders(session, families)
    _processes(session, families, now)


def _silent_s(session: Session, wanted: bool) -> float:
    silence = read_silence(session, wanted)
    if not silence.holds or silence.began_at is None:
        return 0.0
    return _age_s(now_of(session), silence.began_at)


def _senders(session: Session, families: Families) -> None:
    total = session.scalar(select(func.count()).select_from(SenderHabit)) or 0
    at_once = session.scalar(select(func.count()).select_from(SenderHabit).where(comes_whole())) or 0
    families["firstread_known_senders"].add_metric(["at_once"], at_once)
    families["firstread_known_senders"].add_metric(["default"], total - at_once)


def _states(session: Session, families: Families) -> None:
    revisions = select(func.count()).select_from(Revision)
    unrouted = revisions.where(Revision.state == RevisionState.CLOSED.value, Revision.routed_at.is_(None))
    receiving = revisions.where(Revision.state == RevisionState.RECEIVING.value)
    counts = {RevisionState.RECEIVING.value: session.scalar(receiving) or 0}
    counts |= dict.fromkeys((state.value for state in JobState), 0) | tallied(session, "state")
    unrouted_revisions = session.scalar(unrouted) or 0
    families["firstread_waiting_jobs"].add_metric(["", "unrouted"], unrouted_revisions)
    counts[JobState.WAITING.value] += unrouted_revisions
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
