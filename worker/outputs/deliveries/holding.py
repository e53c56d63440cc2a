"""Holding back results that do not flag until a study has been quiet (``FIRSTREAD_DELIVER_AFTER_S``).

A study that comes in pieces makes a result for each; only the last one is sent. Flags go at once. A study that was
closed at once, since its sender's come whole, is held for the grace that it was spared, whatever the setting.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from firstread.records import Delivery, Job, Result, Revision
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.states import DeliveryState, JobState, RevisionState

SUPERSEDED = "superseded"
LOOK_AGAIN_S = 5.0
LONGEST_S = 600.0
"""How much longer than the hold itself a result waits for a later one that is on its way."""


class Held(Exception):
    """Not yet; ``until`` says when to look again."""

    def __init__(self, until: datetime) -> None:
        super().__init__(until.isoformat())
        self.until = until


def hold_until(session: Session, job: Job, settings: Settings) -> datetime:
    """When a result that does not flag may go out: the set time after the study's last image.

    Never before the end of the grace that the close of its revision did not wait for.
    """
    quiet_at = _last_image(session, job) + timedelta(seconds=settings.deliver_after_s)
    own = session.get_one(Revision, job.revision_id)
    if own.closed_at is None or not own.spared_s:
        return quiet_at
    return max(quiet_at, own.closed_at + timedelta(seconds=own.spared_s))


def is_held(session: Session, job: Job, settings: Settings) -> bool:
    """Whether results of a job that do not flag are held back at all."""
    return settings.deliver_after_s > 0 or session.get_one(Revision, job.revision_id).spared_s > 0


def check_held(session: Session, delivery: Delivery, settings: Settings) -> None:
    """Raise :class:`Held` for a result that does not flag while the study is not quiet, or a later result is due."""
    job = session.get_one(Job, delivery.job_id)
    if not is_held(session, job, settings) or delivery.payload.get("at_once") or not _may_be_held(session, delivery):
        return
    now, due = now_of(session), hold_until(session, job, settings)
    if now < due:
        raise Held(due)
    if now < due + timedelta(seconds=LONGEST_S) and _later_is_on_its_way(session, job):
        raise Held(now + timedelta(seconds=LOOK_AGAIN_S))


def supersede(session: Session, job: Job) -> None:
    """End what is still held of earlier results of the study's pipeline, since a new one is there."""
    revision = session.get_one(Revision, job.revision_id)
    earlier = (
        select(Job.id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(
            Revision.study_id == revision.study_id,
            Job.pipeline == job.pipeline,
            or_(Revision.number < revision.number, Job.id == job.id),
        )
    )
    session.execute(
        update(Delivery)
        .where(
            Delivery.job_id.in_(earlier),
            Delivery.state == DeliveryState.PENDING,
            Delivery.attempts == 0,
            Delivery.escalation == 0,
            Delivery.topic == "",
            Delivery.summary.is_(False),
            Delivery.next_at > now_of(session),
            Delivery.job_id.not_in(select(Result.job_id).where(Result.job_id.in_(earlier), Result.flagged)),
        )
        .values(state=DeliveryState.SKIPPED, next_at=None, finished_at=now_of(session), last_status=SUPERSEDED)
        .execution_options(synchronize_session="fetch")
    )


def _may_be_held(session: Session, delivery: Delivery) -> bool:
    if delivery.topic or delivery.escalation or delivery.summary or delivery.payload.get("event"):
        return False
    flagged = select(Result.id).where(
        Result.job_id == delivery.job_id, Result.run == delivery.run, Result.flagged, Result.role != "shadow"
    )
    return session.scalar(flagged.limit(1)) is None


def _last_image(session: Session, job: Job) -> datetime:
    own = session.get_one(Revision, job.revision_id)
    last = session.scalar(select(func.max(Revision.last_seen_at)).where(Revision.study_id == own.study_id))
    return last or own.last_seen_at


def _later_is_on_its_way(session: Session, job: Job) -> bool:
    own = session.get_one(Revision, job.revision_id)
    unfinished = (JobState.WAITING.value, JobState.SCORING.value)
    later = (
        select(Revision.id)
        .outerjoin(Job, (Job.revision_id == Revision.id) & (Job.pipeline == job.pipeline))
        .where(
            Revision.study_id == own.study_id,
            Revision.number > own.number,
            or_(Revision.state != RevisionState.CLOSED.value, Revision.routed_at.is_(None), Job.state.in_(unfinished)),
        )
    )
    return session.scalar(later.limit(1)) is not None
