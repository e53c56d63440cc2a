"""Escalation lists: flags that nobody acknowledges, and studies that nobody read, go to the next address.

The first notice of a flag is made here. That of a study that nobody read is planned with the failure
(:mod:`worker.outputs.deliveries.planning`); each later one is a delivery whose ``escalation`` is its place on the list.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from firstread import effects
from firstread.records import Database, Delivery, EscalationStep, Flag, Job, Revision, Verdict
from firstread.records.clock import now_of
from firstread.records.silence import Silence
from firstread.states import JobState
from worker.outputs.deliveries.rows import new_delivery
from worker.outputs.destinations.file import Destination, DestinationsFile, Escalation
from worker.outputs.messages import UNREAD
from worker.outputs.metrics import ESCALATIONS

SPOKEN = Silence()
"""Where nothing is silent, nor ever was."""


def escalate_flags(db: Database, file: DestinationsFile, silence: Silence = SPOKEN) -> int:
    """Make the notices of flags that are due on every list; returns how many.

    In a silence the first of each list is made, so that it can be counted; it is not sent. A flag of a silence that is
    over is told to nobody.

    The clock of a level runs from the making of its notice, so an address that cannot be reached is passed over too.
    """
    notices = 0
    for escalation in file.escalation:
        with db.read() as session:
            due = _due_flags(session, escalation, silence)
        for flag_id in due:
            notices += _notify_of_flag(db, file, escalation, silence, flag_id)
    return notices


def escalate_unread(db: Database, file: DestinationsFile, silence: Silence = SPOKEN) -> int:
    """Make the notices of studies that nobody read, beyond the first of each list; returns how many.

    A list ends with a person's verdict on the study, or when the job is tried again.
    """
    notices = 0
    if silence.holds:
        return notices
    for escalation in file.escalation:
        with db.read() as session:
            due = _due_unread(session, escalation, silence)
        for job_id in due:
            notices += _notify_of_unread(db, file, escalation, silence, job_id)
    return notices


def _due_flags(
    session: Session, escalation: Escalation, silence: Silence, flag_id: int | None = None
) -> dict[int, int]:
    """Flags of fresh studies without an acknowledgement, each with the level of the list that it is due for."""
    now = now_of(session)
    last = (
        select(EscalationStep.flag_id, func.max(EscalationStep.level).label("level"))
        .where(EscalationStep.escalation == escalation.name)
        .group_by(EscalationStep.flag_id)
        .subquery()
    )
    query = (
        select(Flag.id, EscalationStep.level, EscalationStep.at)
        .outerjoin(last, last.c.flag_id == Flag.id)
        .outerjoin(
            EscalationStep,
            (EscalationStep.flag_id == Flag.id)
            & (EscalationStep.escalation == escalation.name)
            & (EscalationStep.level == last.c.level),
        )
        .where(
            Flag.acknowledged_at.is_(None),
            Flag.old.is_(False),
            Flag.flagged_at >= now - timedelta(seconds=escalation.max_age_s),
        )
        .order_by(Flag.flagged_at)
    )
    if escalation.pipelines:
        query = query.where(Flag.pipeline.in_(escalation.pipelines))
    if escalation.findings:
        query = query.where(Flag.finding.in_(escalation.findings))
    if flag_id is not None:
        query = query.where(Flag.id == flag_id)
    if not silence.holds and silence.ended_at is not None:
        query = query.where(Flag.flagged_at > silence.ended_at)
    levels: dict[int, int] = {}
    for key, level, at in session.execute(query):
        if at is None:
            levels[key] = 0
        elif silence.holds:
            continue
        elif at + timedelta(seconds=escalation.ack_timeout_s) <= now and level + 1 < len(escalation.destinations):
            levels[key] = level + 1
    return levels


def _notify_of_flag(
    db: Database, file: DestinationsFile, escalation: Escalation, silence: Silence, flag_id: int
) -> int:
    """Make the notice of one flag, unless it is no longer due; returns how many."""
    try:
        with db.write(effects.ESCALATION_COMMIT) as session:
            flag = session.get_one(Flag, flag_id, with_for_update=True)
            level = _due_flags(session, escalation, silence, flag_id).get(flag_id)
            if level is None:
                return 0
            destination = _address(file, escalation, level)
            job = session.get_one(Job, flag.job_id)
            row = session.scalar(
                select(Delivery).where(
                    Delivery.job_id == job.id,
                    Delivery.run == job.run,
                    Delivery.destination == destination.name,
                    Delivery.kind == destination.kind,
                    Delivery.escalation == level,
                    Delivery.topic == "",
                )
            )
            if row is None:
                row = new_delivery(job, destination.name, destination.kind, level)
                session.add(row)
                session.flush()
            session.add(
                EscalationStep(
                    flag_id=flag_id, escalation=escalation.name, level=level, delivery_id=row.id, at=now_of(session)
                )
            )
            if level:
                ESCALATIONS.labels(flag.pipeline).inc()
            return 1
    except IntegrityError:
        return 0  # another process made this level first


def _due_unread(
    session: Session, escalation: Escalation, silence: Silence, job_id: int | None = None
) -> dict[int, int]:
    """Failed jobs of which no person has said anything since, each with the level of the list that it is due for."""
    now = now_of(session)
    judged = select(Verdict.id).where(
        Verdict.study_id == Revision.study_id, Verdict.pipeline == Job.pipeline, Verdict.at >= Job.finished_at
    )
    query = (
        select(Job.id, Delivery.escalation, Delivery.created_at, Delivery.payload)
        .join(Revision, Revision.id == Job.revision_id)
        .join(Delivery, (Delivery.job_id == Job.id) & (Delivery.run == Job.run))
        .where(
            Job.state == JobState.FAILED,
            Job.finished_at >= now - timedelta(seconds=escalation.max_age_s),
            ~judged.exists(),
            Delivery.destination.in_(escalation.destinations),
            Delivery.summary.is_(False),
        )
        .order_by(Job.id, Delivery.escalation)
    )
    if escalation.pipelines:
        query = query.where(Job.pipeline.in_(escalation.pipelines))
    if job_id is not None:
        query = query.where(Job.id == job_id)
    if silence.ended_at is not None:
        query = query.where(Job.finished_at > silence.ended_at)
    last = {
        key: (level, created_at)
        for key, level, created_at, payload in session.execute(query)
        if payload.get("event") == UNREAD
    }
    return {
        key: level + 1
        for key, (level, created_at) in last.items()
        if created_at + timedelta(seconds=escalation.ack_timeout_s) <= now and level + 1 < len(escalation.destinations)
    }


def _notify_of_unread(
    db: Database, file: DestinationsFile, escalation: Escalation, silence: Silence, job_id: int
) -> int:
    """Make the next notice of one failed job, unless it is no longer due; returns how many."""
    try:
        with db.write(effects.ESCALATION_COMMIT) as session:
            job = session.get_one(Job, job_id, with_for_update=True)
            level = _due_unread(session, escalation, silence, job_id).get(job_id)
            if level is None:
                return 0
            destination = _address(file, escalation, level)
            row = new_delivery(job, destination.name, destination.kind, level)
            row.payload = {"event": UNREAD}
            session.add(row)
            ESCALATIONS.labels(job.pipeline).inc()
            return 1
    except IntegrityError:
        return 0  # another process made it first


def _address(file: DestinationsFile, escalation: Escalation, level: int) -> Destination:
    destination = file.named(escalation.destinations[level])
    assert destination is not None, "checked when the file was read"
    return destination
