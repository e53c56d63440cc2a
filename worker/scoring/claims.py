"""Which work is next, and whose it is.

A doorbell only says that there is work. The claim asks the database for the most urgent revision that waits, so that
urgent studies are first whatever order messages come in, and a lost or doubled message does no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, case, func, select, update
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.records import Database, Job, Revision
from firstread.records import Study as StudyRow
from firstread.records.clock import now_of
from firstread.records.urgency import ORDER
from firstread.selftest import is_self_test
from firstread.settings import Settings
from firstread.states import JobState, RevisionState, move_job
from firstread.storage.spool import Spool
from worker.errors import describe, reason_of
from worker.metrics import ERRORS, WAIT_SECONDS
from worker.pipelines.base import Study
from worker.pipelines.reasons import Caution
from worker.pipelines.registry import Orders
from worker.routing.jobs import ROUTING_FAILED, Overtaken, commit_routing, orders_of, wanted_by
from worker.routing.rejections import rejected_in
from worker.routing.standing import decide
from worker.scoring.reading import read_study

CRASH_REASONS = frozenset({"worker_died", "worker_stalled", "consumer_silent", "lease_expired"})
"""What a job waits for again after its process ended in the middle of it, by itself or from outside."""

SHARED_ENDS = 2
"""A job that was in hand at so many such ends runs alone, after those that wait with its own urgency."""

ROUTE_RETRY_S = 5.0
LOST_RACES = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A job that is ours, with what is needed to score it.

    ``alone`` is true where earlier attempts ended with their process: nothing else shall run beside it, so that a
    study that kills workers takes no other study's last attempt with it. ``self_test`` is true of the phantom of
    ``firstread doctor``, which no figure counts.
    """

    job_id: int
    revision_id: int
    study_id: int
    number: int
    pipeline: str
    forced: bool
    priority: int
    old: bool
    attempt: int
    alone: bool
    self_test: bool
    closed_at: datetime
    last_seen_at: datetime
    shift: timedelta = timedelta()
    """How far the database's clock was ahead of this machine's."""

    def seconds_since(self, at: datetime) -> float:
        """Seconds from a moment by the database's clock until now."""
        return max(0.0, (utcnow() + self.shift - at).total_seconds())

    @property
    def rank(self) -> int:
        """Place in the engine, 0 first: an old study's images come after fresh ones of its priority."""
        return 2 * self.priority + self.old

    @property
    def log_fields(self) -> dict[str, object]:
        """Identity for logs, free of patient data."""
        return {"study": self.study_id, "revision": self.number, "job": self.job_id, "pipeline": self.pipeline}


@dataclass(frozen=True)
class Candidate:
    """A row that may be next: lower urgency first, as on the broker."""

    key: int
    urgency: tuple[int, bool, bool, datetime]


Queue = Select[int, int, bool, bool, datetime]
"""Key, and the parts of its urgency: priority, old, alone, time of the close."""


def _queue(model: type[Revision] | type[Job], alone: ColumnElement[bool]) -> Queue:
    """A query over revisions and studies in the order of :data:`firstread.records.urgency.ORDER`.

    Of equal priority and age, those that run alone come last.
    """
    priority, old, *rest = ORDER
    columns = (model.id, priority, old, alone, func.coalesce(Revision.closed_at, utcnow()))
    return select(*columns).order_by(priority, old, alone, *rest)


def _runs_alone(settings: Settings) -> ColumnElement[bool]:
    """Whether a waiting job has ended so many workers, or has had all but one of its attempts, the last being such."""
    ends = max(1, min(SHARED_ENDS, settings.max_attempts - 1))
    return and_(func.coalesce(Job.reason, "").in_(sorted(CRASH_REASONS)), Job.attempts >= ends)


class Claimer:
    """Routes revisions and claims jobs for one worker process.

    Parameters
    ----------
    serving : callable
        Names of the pipelines that this process can serve at the moment.
    """

    def __init__(
        self, db: Database, settings: Settings, spool: Spool, owner: str, serving: Callable[[], Collection[str]]
    ) -> None:
        self._db = db
        self._settings = settings
        self._spool = spool
        self._owner = owner
        self._serving = serving
        self._lock = threading.Lock()
        self._routing: dict[int, float] = {}
        self.touch: Callable[[], None] = lambda: None
        """Told that routing makes progress, while it is at a study for long."""
        self._route_failures: dict[int, int] = {}
        self._studies: OrderedDict[int, Study] = OrderedDict()

    def next(self) -> Claim | None:
        """The most urgent job that waits and that this process can serve, claimed; None if there is none.

        Revisions that nobody has routed yet are routed on the way, the most urgent first.
        """
        lost_races = 0
        while lost_races < LOST_RACES:
            unrouted, waiting = self._candidates()
            if unrouted is None and waiting is None:
                return None
            if unrouted is not None and (waiting is None or unrouted.urgency <= waiting.urgency):
                self._route(unrouted.key)
                continue
            claim = self._claim()
            if claim is not None:
                WAIT_SECONDS.labels(claim.pipeline).observe(claim.seconds_since(claim.closed_at))
                return claim
            lost_races += 1
        return None

    def _candidates(self) -> tuple[Candidate | None, Candidate | None]:
        now = time.monotonic()
        with self._lock:
            busy = [key for key, until in self._routing.items() if until > now]
        unrouted = (
            _queue(Revision, case((Revision.id.is_(None), True), else_=False))
            .join(StudyRow, StudyRow.id == Revision.study_id)
            .where(Revision.state == RevisionState.CLOSED.value, Revision.routed_at.is_(None), Revision.id.not_in(busy))
            .limit(1)
        )
        with self._db.read() as session:
            first = session.execute(unrouted).first()
            second = session.execute(self._waiting()).first()
        return (
            Candidate(first[0], (first[1], first[2], False, first[4])) if first else None,
            Candidate(second[0], (second[1], second[2], second[3], second[4])) if second else None,
        )

    def _waiting(self) -> Queue:
        return (
            _queue(Job, _runs_alone(self._settings))
            .join(Revision, Revision.id == Job.revision_id)
            .join(StudyRow, StudyRow.id == Revision.study_id)
            .where(Job.state == JobState.WAITING.value, Job.pipeline.in_(sorted(self._serving())))
            .limit(1)
        )

    def _claim(self) -> Claim | None:
        with self._db.write() as session:
            found = session.execute(self._waiting().with_for_update(skip_locked=True, of=Job)).first()
            if found is None:
                return None
            job = session.get_one(Job, found[0])
            revision = session.get_one(Revision, job.revision_id)
            now = now_of(session)
            job.attempts += 1
            job.lease_owner = self._owner
            job.lease_until = now + timedelta(seconds=self._settings.lease_s)
            job.progress_at = job.started_at = now
            job.reason = job.detail = None
            move_job(session, job, JobState.SCORING, actor=self._owner)
            return Claim(
                job_id=job.id,
                revision_id=revision.id,
                study_id=revision.study_id,
                number=revision.number,
                pipeline=job.pipeline,
                forced=orders_of(session, self._settings, revision).name(job.pipeline),
                priority=found[1],
                old=bool(found[2]),
                attempt=job.attempts,
                alone=bool(found[3]),
                self_test=is_self_test(session, revision.study_id),
                closed_at=revision.closed_at or now,
                last_seen_at=revision.last_seen_at,
                shift=now - utcnow(),
            )

    def _route(self, revision_id: int) -> None:
        """Make the jobs of a revision. Failures are bounded: at last the revision is closed with a reason."""
        with self._lock:
            if self._routing.get(revision_id, 0.0) > time.monotonic():
                return
            self._routing[revision_id] = time.monotonic() + 3600.0
        again_s = 0.0
        try:
            with self._db.read() as session:
                revision = session.get_one(Revision, revision_id)
                orders, phantom = orders_of(session, self._settings, revision), is_self_test(session, revision.study_id)
            study = read_study(self._db, self._spool, revision_id, whole=True)
            rejected = rejected_in(study)
            study = study.without(rejected.left_out)
            names, reason = wanted_by(study, orders)
            if not names and rejected.left_out:
                reason = str(Caution.IMAGES_REJECTED)
            decision = decide(self._db, self._spool, revision_id, study, names, self._orders, self.touch)
            routed = commit_routing(
                self._db,
                revision_id,
                names,
                reason,
                serving=self._serving(),
                actor=self._owner,
                settings=self._settings,
                decision=decision,
                rejected=rejected,
            )
            if routed and not phantom:  # its rows go, and SQLite gives their numbers to the next study
                self._keep_study(revision_id, study)
        except (KeyboardInterrupt, SystemExit):
            raise
        except Overtaken:
            log.info("looked at again: the study got other work meanwhile", extra={"revision": revision_id})
        except BaseException as error:  # noqa: BLE001  # the task boundary of routing
            again_s = ROUTE_RETRY_S
            self._route_failed(revision_id, error)
        finally:
            with self._lock:
                if again_s:
                    self._routing[revision_id] = time.monotonic() + again_s
                else:
                    self._routing.pop(revision_id, None)
                    self._route_failures.pop(revision_id, None)

    def _orders(self, session: Session, revision: Revision) -> Orders:
        return orders_of(session, self._settings, revision)

    def _keep_study(self, revision_id: int, study: Study) -> None:
        """Spare the thread that scores a freshly routed revision a second reading of its headers."""
        with self._lock:
            self._studies[revision_id] = study
            while len(self._studies) > self._settings.worker_threads:
                self._studies.popitem(last=False)

    def take_study(self, revision_id: int) -> Study | None:
        """The study as it was read for routing a moment ago, or None."""
        with self._lock:
            return self._studies.pop(revision_id, None)

    def _route_failed(self, revision_id: int, error: BaseException) -> None:
        with self._lock:
            failures = self._route_failures[revision_id] = self._route_failures.get(revision_id, 0) + 1
        ERRORS.labels("", reason_of(error)).inc()
        log.error("routing failed: %s", describe(error), extra={"reason": reason_of(error), "attempt": failures})
        if failures >= self._settings.max_attempts:
            commit_routing(
                self._db, revision_id, [], ROUTING_FAILED, serving=(), actor=self._owner, settings=self._settings
            )
            return
        with self._db.write() as session:
            session.execute(update(Revision).where(Revision.id == revision_id).values(published_at=None))
