"""Studies that nobody read, along the escalation lists: until a person's verdict stands, or it is tried again.

The first notice is planned with the failure (:mod:`worker.outputs.planning`); each later one is a delivery whose
``escalation`` is its place on the list.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from firstread.records import Database, Delivery, Job, Revision, Verdict
from firstread.records.clock import now_of
from firstread.states import JobState
from worker.outputs.destinations import DestinationsFile, Escalation
from worker.outputs.messages import UNREAD
from worker.outputs.metrics import ESCALATIONS
from worker.outputs.planning import new_delivery


def escalate_unread(db: Database, file: DestinationsFile) -> int:
    """Make the notices that are due beyond the first of each list; returns how many."""
    made = 0
    for escalation in file.escalation:
        with db.read() as session:
            waiting = [job_id for job_id in _failed(session, escalation) if _due(session, escalation, job_id)]
        for job_id in waiting:
            made += _next_notice(db, file, escalation, job_id)
    return made


def _failed(session: Session, escalation: Escalation) -> list[int]:
    """Failed jobs of the last while of which no person has said anything since."""
    judged = (
        select(Verdict.id)
        .where(
            Verdict.study_id == Revision.study_id, Verdict.pipeline == Job.pipeline, Verdict.at >= Job.finished_at
        )
        .exists()
    )  # fmt: skip
    query = (
        select(Job.id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(
            Job.state == JobState.FAILED.value,
            Job.finished_at >= now_of(session) - timedelta(seconds=escalation.max_age_s),
            ~judged,
        )
    )
    if escalation.pipelines:
        query = query.where(Job.pipeline.in_(escalation.pipelines))
    return list(session.scalars(query))


def _due(session: Session, escalation: Escalation, job_id: int) -> int | None:
    """Place on the list of the notice that is due; None where none is."""
    job = session.get_one(Job, job_id)
    rows = session.scalars(
        select(Delivery).where(
            Delivery.job_id == job_id,
            Delivery.run == job.run,
            Delivery.destination.in_(escalation.destinations),
            Delivery.summary.is_(False),
        )
    ).all()
    told = [row for row in rows if row.payload.get("event") == UNREAD]
    if not told:
        return None
    last = max(told, key=lambda row: row.escalation)
    late = last.created_at + timedelta(seconds=escalation.ack_timeout_s) <= now_of(session)
    level = last.escalation + 1
    return level if late and level < len(escalation.destinations) else None


def _next_notice(db: Database, file: DestinationsFile, escalation: Escalation, job_id: int) -> int:
    try:
        with db.write() as session:
            job = session.get_one(Job, job_id, with_for_update=True)
            level = _due(session, escalation, job_id)
            if job.state != JobState.FAILED.value or level is None:
                return 0
            destination = file.named(escalation.destinations[level])
            assert destination is not None, "checked when the file was read"
            row = new_delivery(job, destination.name, destination.kind, level)
            row.payload = {"event": UNREAD}
            session.add(row)
            ESCALATIONS.labels(job.pipeline).inc()
            return 1
    except IntegrityError:
        return 0  # another process made it first
