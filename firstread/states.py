"""States of revisions, jobs and deliveries; which moves a revision and a job may make, each recorded as a row."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, select, union_all
from sqlalchemy.orm import Session, aliased

from firstread.records import Job, Revision, Transition
from firstread.records.clock import now_of


class RevisionState(StrEnum):
    """Whether the set of a revision's instances still grows."""

    RECEIVING = "RECEIVING"
    CLOSED = "CLOSED"


class JobState(StrEnum):
    """Where a pipeline's work on a revision stands."""

    WAITING = "WAITING"
    SCORING = "SCORING"
    DONE = "DONE"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


class DeliveryState(StrEnum):
    """What became of a message to a destination."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    """Attempts used up; a person may retry or cancel it."""
    SKIPPED = "SKIPPED"
    """Nothing was left to send: no object could be made, say, or the flag was acknowledged first."""
    CANCELLED = "CANCELLED"
    """Given up by a person."""


UNDELIVERED = (DeliveryState.PENDING, DeliveryState.FAILED)
"""Deliveries that a person or the next attempt may still bring to an end."""

TERMINAL = frozenset({JobState.DONE, JobState.REJECTED, JobState.FAILED})

REVISION_MOVES: dict[RevisionState | None, frozenset[RevisionState]] = {
    None: frozenset({RevisionState.RECEIVING}),
    RevisionState.RECEIVING: frozenset({RevisionState.CLOSED}),
    RevisionState.CLOSED: frozenset(),
}

JOB_MOVES: dict[JobState | None, frozenset[JobState]] = {
    None: frozenset({JobState.WAITING, JobState.DONE, JobState.REJECTED, JobState.FAILED}),
    JobState.WAITING: frozenset({JobState.SCORING, JobState.FAILED}),
    JobState.SCORING: frozenset({JobState.DONE, JobState.REJECTED, JobState.FAILED, JobState.WAITING}),
    JobState.DONE: frozenset({JobState.WAITING}),
    JobState.FAILED: frozenset({JobState.WAITING, JobState.REJECTED}),
    JobState.REJECTED: frozenset({JobState.WAITING}),
}
"""``DONE -> WAITING`` is a retry by hand too: a person asks for the study to be scored again by another model.

A job that begins as ``DONE`` or ``REJECTED`` carries over an earlier result, to images whose identity was corrected.
One that begins as ``FAILED`` is of a revision that could not be routed; ``FAILED -> REJECTED`` is such a job when the
revision is routed after all, and its pipeline turns out not to want it."""

ROUTING_FAILED = "routing_failed"
"""Reason of a revision that could not be read to be routed, and of its jobs."""


class IllegalMove(Exception):
    """A state change that is not allowed."""


def has_open_work(*of_job: ColumnElement[bool]) -> ColumnElement[bool]:
    """Condition that a revision is closed and not routed yet, or has a job of which all of ``of_job`` is true.

    Such revisions are looked for by their own state and by the jobs', so that those that are done cost nothing.
    """
    other = aliased(Revision)
    unrouted = select(other.id).where(other.state == RevisionState.CLOSED.value, other.routed_at.is_(None))
    return Revision.id.in_(union_all(unrouted, select(Job.revision_id).where(*of_job)))


def move_revision(
    session: Session, revision: Revision, to: RevisionState, *, actor: str, reason: str | None = None
) -> datetime:
    """Move a revision and write the transition. Raises :class:`IllegalMove`; returns the time of the move."""
    current = RevisionState(revision.state) if revision.state else None
    if to not in REVISION_MOVES[current]:
        raise IllegalMove(f"revision {current} -> {to}")
    revision.state = to.value
    return _record(session, "revision", revision, current, to, actor, reason)


def move_job(
    session: Session, job: Job, to: JobState, *, actor: str, reason: str | None = None, at: datetime | None = None
) -> datetime:
    """Move a job and write the transition. Raises :class:`IllegalMove`; returns the time of the move.

    ``at`` is the present moment by the database's clock, where the caller has just asked for it.
    """
    current = JobState(job.state) if job.state else None
    if to not in JOB_MOVES[current]:
        raise IllegalMove(f"job {current} -> {to}")
    job.state = to.value
    return _record(session, "job", job, current, to, actor, reason, at)


def _record(
    session: Session,
    subject: str,
    row: Revision | Job,
    current: StrEnum | None,
    to: StrEnum,
    actor: str,
    reason: str | None,
    at: datetime | None = None,
) -> datetime:
    if row.id is None:
        session.add(row)
        session.flush()
    at = at or now_of(session)
    session.add(
        Transition(
            subject=subject,
            subject_id=row.id,
            from_state=current.value if current else None,
            to_state=to.value,
            reason=reason,
            actor=actor,
            at=at,
        )
    )
    return at
