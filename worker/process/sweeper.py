"""The sweeper: whatever closed and is not finished gets its doorbell rung again; leases that ran out go back.

It runs beside the worker's supervisor, so a broker that was flushed, a listener that could not publish, or a worker
that is gone leaves nothing behind.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

import redis
from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from firstread import effects
from firstread.priority import on_broker
from firstread.processes.lasting import lasting_thread
from firstread.processes.spawning import process_id
from firstread.queue import depth, make_app, redis_client, ring
from firstread.records import Database, Job, Revision, Study, lock_study_of_job, mark_published
from firstread.records.clock import now_of
from firstread.records.studies import ORDER, PRIORITY, WAITS_AS_OLD
from firstread.settings import Settings
from firstread.states import JobState, has_open_work
from worker.errors import NoServingPackage
from worker.metrics import SWEEPS
from worker.scoring.results import end_attempt

MOST_RINGS = 500
"""Doorbells a look: the rest waits for the next one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndedProcess:
    """A process that is gone, and why it went.

    ``asked`` says that somebody stopped it: the attempts of its jobs do not count then. After any other end they do:
    which job was at fault cannot be seen from outside, so every job in hand may have had a part in it.
    """

    owner: str
    reason: str
    asked: bool = False


class Sweeper:
    """Looks after what waits. One look is :meth:`sweep`; :meth:`start` repeats it in a thread."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._actor = process_id("sweeper")
        self._app: Celery = make_app(settings)
        self._ended: list[EndedProcess] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = lasting_thread(self._run, "sweeper", stopping=self._stop)
        self.queue_depth: int | None = None
        """Messages on the broker at the last look; None where it did not answer."""

    def start(self) -> None:
        """Begin to look, every ``sweep_s``."""
        self._thread.start()

    def close(self, limit_s: float = 10.0) -> None:
        """Stop after the look in hand."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(limit_s)
        try:
            self._give_back()
        except SQLAlchemyError as error:
            log.error("jobs not given back; their leases run out", extra={"reason": type(error).__name__})
        self._app.close()

    def give_back_of(self, process: EndedProcess) -> None:
        """Give back the jobs of a process that is gone, at once and until the database has taken it."""
        with self._lock:
            self._ended.append(process)
        self._wake.set()

    def sweep(self) -> None:
        """One look. Raises what the database raises; a broker that is away is no error."""
        self._give_back()
        self._expire()
        self._republish()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.sweep()
            except Exception as error:  # noqa: BLE001  # the boundary of this thread: recorded and counted
                SWEEPS.labels("error").inc()
                log.error("sweep failed", extra={"reason": type(error).__name__})
            self._wake.wait(self._settings.sweep_s)

    def _give_back(self) -> None:
        with self._lock:
            ended = list(self._ended)
        for process in ended:
            give_back(self._db, process, actor=self._actor, settings=self._settings)
            with self._lock:
                if process in self._ended:  # the thread and close() may both be at it
                    self._ended.remove(process)

    def _expire(self) -> None:
        """Leases that nobody renewed: the job waits again, or has failed where its attempts are used up."""
        with self._db.read() as session:
            late = (Job.state == JobState.SCORING.value, Job.lease_until < now_of(session))
            ids = session.scalars(select(Job.id).where(*late)).all()
        for job_id in ids:
            with self._db.write(effects.EXPIRE_COMMIT) as session:
                lock_study_of_job(session, job_id)
                job = session.scalar(select(Job).where(Job.id == job_id, *late).with_for_update(skip_locked=True))
                if job is None:
                    continue
                state = end_attempt(
                    session,
                    job,
                    session.get_one(Revision, job.revision_id),
                    actor=self._actor,
                    reason="lease_expired",
                    error=None,
                    settings=self._settings,
                )
            SWEEPS.labels("exhausted" if state is JobState.FAILED else "lease_lost").inc()
            log.warning("lease ran out", extra={"job": job_id, "outcome": state.value})

    def _republish(self) -> None:
        """Ring for what waits and was not rung for, or long ago.

        Never more messages than revisions that wait: a broker that holds as many already gets none, so that a night
        without a worker does not fill it.
        """
        self.queue_depth = self._depth()
        with self._db.read() as session:
            cutoff = now_of(session) - timedelta(seconds=self._settings.republish_s)
        due, waiting = find_due(self._db, cutoff)
        if not due or self.queue_depth is None:
            return
        room = max(0, waiting - self.queue_depth)
        for revision_id, study_id, number, priority in due[: min(room, MOST_RINGS)]:
            try:
                ring(
                    self._app,
                    effects.SWEEP_PUBLISH,
                    revision_id=revision_id,
                    study_key=study_id,
                    number=number,
                    priority=priority,
                )
            except (OperationalError, KombuError, redis.RedisError, OSError) as error:
                log.warning("doorbell not rung", extra={"reason": type(error).__name__})
                return
            mark_published(self._db, revision_id, effects.SWEEP_COMMIT)
            SWEEPS.labels("republished").inc()

    def _depth(self) -> int | None:
        try:
            with redis_client(self._settings, timeout_s=2.0) as client:
                return depth(client)
        except (redis.RedisError, OSError):
            return None


def give_back(db: Database, process: EndedProcess, *, actor: str, settings: Settings) -> int:
    """Take every job from a process that is gone. Returns how many."""
    of_owner = (Job.state == JobState.SCORING.value, Job.lease_owner == process.owner)
    with db.read() as session:
        job_ids = session.scalars(select(Job.id).where(*of_owner)).all()
    count = 0
    for job_id in job_ids:
        with db.write(effects.RETURN_COMMIT) as session:
            lock_study_of_job(session, job_id)
            job = session.scalar(select(Job).where(Job.id == job_id, *of_owner).with_for_update())
            if job is None:
                continue
            state = end_attempt(
                session,
                job,
                session.get_one(Revision, job.revision_id),
                actor=actor,
                reason="interrupted" if process.asked else process.reason,
                error=None,
                settings=settings,
                refund=process.asked,
            )
        count += 1
        SWEEPS.labels("exhausted" if state is JobState.FAILED else "lease_lost").inc()
        log.warning("job given back", extra={"job": job_id, "outcome": state.value, "reason": job.reason})
    return count


def find_due(db: Database, cutoff: datetime) -> tuple[list[tuple[int, int, int, int]], int]:
    """Closed revisions with work that nobody has in hand.

    Returns
    -------
    list of (revision, study, number, priority of the doorbell)
        Those not rung for since ``cutoff``, the most urgent first.
    int
        How many wait in all.
    """
    waits = (Job.state == JobState.WAITING.value, Job.reason.is_distinct_from(NoServingPackage.reason))
    open_work = has_open_work(*waits)
    query = (
        select(Revision.id, Revision.study_id, Revision.number, PRIORITY, WAITS_AS_OLD)
        .join(Study, Study.id == Revision.study_id)
        .where(open_work, or_(Revision.published_at.is_(None), Revision.published_at < cutoff))
        .order_by(*ORDER)
        .limit(MOST_RINGS)
    )
    with db.read() as session:
        due = [(row[0], row[1], row[2], on_broker(row[3], row[4])) for row in session.execute(query)]
        if not due:
            return [], 0
        total = session.scalar(select(func.count()).select_from(Revision).where(open_work))
    return due, total or 0
