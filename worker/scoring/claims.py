"""Which work is next, and whose it is.

A doorbell only says that there is work. The claim asks the database for the most urgent revision that waits, so that
urgent studies are first whatever order messages come in, and a lost or doubled message does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.clock import utcnow
from firstread.priority import claim_order, engine_rank
from firstread.records import Database, Job, Revision, Study
from firstread.records.clock import now_of
from firstread.records.studies import ORDER, is_self_test
from firstread.settings import Settings
from firstread.states import JobState, RevisionState, move_job
from firstread.storage.spool import Spool
from worker.metrics import WAIT_SECONDS
from worker.routing.jobs import orders_of
from worker.routing.router import Router

CRASH_REASONS = frozenset({"worker_died", "worker_stalled", "consumer_silent", "lease_expired"})
"""What a job waits for again after its process ended in the middle of it, by itself or from outside."""

SHARED_ENDS = 2
"""A job that was in hand at so many such ends runs alone, after those that wait with its own urgency."""

LOST_RACES = 50

Rank = tuple[int, bool]
"""Priority, and whether the study is old: lower ones first."""


@dataclass(frozen=True)
class JobClaim:
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
        return engine_rank(self.priority, self.old)

    @property
    def rank_before(self) -> Rank:
        """What :attr:`rank` is made of, to be compared with that of others."""
        return self.priority, self.old

    @property
    def log_fields(self) -> dict[str, object]:
        """Identity for logs, free of patient data."""
        return {"study": self.study_id, "revision": self.number, "job": self.job_id, "pipeline": self.pipeline}


@dataclass(frozen=True)
class _Candidate:
    """A row that may be next: lower urgency first, as on the broker."""

    key: int
    urgency: tuple[int, bool, bool, datetime]

    def goes_before(self, rank: Rank | None) -> bool:
        """Whether it is more urgent than a rank and need not run alone; always so without a rank."""
        priority, old, alone, _ = self.urgency
        return rank is None or ((priority, bool(old)) < rank and not alone)


_Queue = Select[int, int, bool, bool, datetime]
"""Key, and the parts of its urgency: priority, old, alone, time of the close."""


def _by_urgency(model: type[Revision] | type[Job], alone: ColumnElement[bool]) -> _Queue:
    """A query over revisions and studies in the order of :data:`firstread.records.studies.ORDER`.

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
    """Claims jobs for one worker process, and has revisions routed on the way.

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
        self.router = Router(db, settings, spool, owner, serving)
        self._owner = owner
        self._serving = serving

    def next(self, before: Rank | None = None) -> JobClaim | None:
        """The most urgent job that waits and that this process can serve, claimed; None if there is none.

        Revisions that nobody has routed yet are routed on the way, the most urgent first. The first job of such a one
        is claimed as it is written: nothing that waited a moment ago goes before it.

        Parameters
        ----------
        before : (int, bool), optional
            Only what is more urgent than this, and need not run alone.
        """
        lost_races = 0
        while lost_races < LOST_RACES:
            unrouted, waiting = self._candidates()
            if unrouted is None and waiting is None:
                return None
            claim = None
            if unrouted is not None and (waiting is None or unrouted.urgency <= waiting.urgency):
                if not unrouted.goes_before(before):
                    return None
                claim = self._route(unrouted)
            elif waiting is not None and not waiting.goes_before(before):
                return None
            else:
                claim = self._claim_waiting()
                lost_races += claim is None
            if claim is not None:
                WAIT_SECONDS.labels(claim.pipeline).observe(claim.seconds_since(claim.closed_at))
                return claim
        return None

    def _route(self, unrouted: _Candidate) -> JobClaim | None:
        """Route a revision, and claim the first job of it that this process can serve."""
        claims: list[JobClaim] = []
        priority, old, _, _ = unrouted.urgency

        def take(session: Session, job: Job, revision: Revision) -> None:
            claims.append(self._claim(session, job, revision, priority, old, alone=False))

        return claims[0] if self.router.route(unrouted.key, take) and claims else None

    def _candidates(self) -> tuple[_Candidate | None, _Candidate | None]:
        busy = self.router.busy()
        unrouted = (
            _by_urgency(Revision, case((Revision.id.is_(None), True), else_=False))
            .join(Study, Study.id == Revision.study_id)
            .where(Revision.state == RevisionState.CLOSED.value, Revision.routed_at.is_(None), Revision.id.not_in(busy))
            .limit(1)
        )
        with self._db.read() as session:
            first = session.execute(unrouted).first()
            second = session.execute(self._waiting()).first()
        return (
            _Candidate(first[0], claim_order(first[1], first[2], False, first[4])) if first else None,
            _Candidate(second[0], claim_order(second[1], second[2], second[3], second[4])) if second else None,
        )

    def _waiting(self) -> _Queue:
        return (
            _by_urgency(Job, _runs_alone(self._settings))
            .join(Revision, Revision.id == Job.revision_id)
            .join(Study, Study.id == Revision.study_id)
            .where(Job.state == JobState.WAITING.value, Job.pipeline.in_(sorted(self._serving())))
            .limit(1)
        )

    def _claim_waiting(self) -> JobClaim | None:
        with self._db.write(effects.CLAIM_COMMIT) as session:
            waiting = session.execute(self._waiting().with_for_update(skip_locked=True, of=Job)).first()
            if waiting is None:
                return None
            job_id, priority, old, alone, _ = waiting
            job = session.get_one(Job, job_id)
            revision = session.get_one(Revision, job.revision_id)
            return self._claim(session, job, revision, priority, old, alone)

    def _claim(self, session: Session, job: Job, revision: Revision, priority: int, old: bool, alone: bool) -> JobClaim:
        """Make a waiting job ours; it is locked, or of this very transaction."""
        now = now_of(session)
        job.attempts = (job.attempts or 0) + 1
        job.lease_owner = self._owner
        job.lease_until = now + timedelta(seconds=self._settings.lease_s)
        job.progress_at = job.started_at = now
        job.reason = job.detail = job.error = None
        move_job(session, job, JobState.SCORING, actor=self._owner, at=now)
        return JobClaim(
            job_id=job.id,
            revision_id=revision.id,
            study_id=revision.study_id,
            number=revision.number,
            pipeline=job.pipeline,
            forced=orders_of(session, self._settings, revision).name(job.pipeline),
            priority=priority,
            old=bool(old),
            attempt=job.attempts,
            alone=bool(alone),
            self_test=is_self_test(session, revision.study_id),
            closed_at=revision.closed_at or now,
            last_seen_at=revision.last_seen_at,
            shift=now - utcnow(),
        )
