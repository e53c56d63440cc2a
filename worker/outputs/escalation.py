"""Escalation lists: a flag that nobody acknowledges in time goes to the next address."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from firstread.records import Database, Delivery, EscalationStep, Flag, Job
from firstread.records.clock import now_of
from worker.outputs.destinations import DestinationsFile, Escalation
from worker.outputs.metrics import ESCALATIONS
from worker.outputs.planning import new_delivery


def escalate(db: Database, file: DestinationsFile) -> int:
    """Make the notices that are due on every list; returns how many.

    The clock of a level runs from the making of its notice, so an address that cannot be reached is passed over too.
    """
    made = 0
    for escalation in file.escalation:
        with db.read() as session:
            waiting = [flag.id for flag, level in due(session, escalation) if level < len(escalation.destinations)]
        for flag_id in waiting:
            made += _next_level(db, file, escalation, flag_id)
    return made


def due(session: Session, escalation: Escalation) -> list[tuple[Flag, int]]:
    """Flags of fresh studies without an acknowledgement, each with the level that it is due for."""
    now = now_of(session)
    flags = select(Flag).where(
        Flag.acknowledged_at.is_(None),
        Flag.old.is_(False),
        Flag.flagged_at >= now - timedelta(seconds=escalation.max_age_s),
    )
    if escalation.pipelines:
        flags = flags.where(Flag.pipeline.in_(escalation.pipelines))
    if escalation.findings:
        flags = flags.where(Flag.finding.in_(escalation.findings))
    found = []
    for flag in session.scalars(flags.order_by(Flag.flagged_at)):
        last = _last_step(session, escalation, flag.id)
        if last is None:
            found.append((flag, 0))
        elif last.at + timedelta(seconds=escalation.ack_timeout_s) <= now:
            found.append((flag, last.level + 1))
    return found


def _last_step(session: Session, escalation: Escalation, flag_id: int) -> EscalationStep | None:
    return session.scalar(
        select(EscalationStep)
        .where(EscalationStep.flag_id == flag_id, EscalationStep.escalation == escalation.name)
        .order_by(EscalationStep.level.desc())
        .limit(1)
    )


def _next_level(db: Database, file: DestinationsFile, escalation: Escalation, flag_id: int) -> int:
    try:
        with db.write() as session:
            flag = session.get_one(Flag, flag_id, with_for_update=True)
            level = next((n for f, n in due(session, escalation) if f.id == flag_id), None)
            if flag.acknowledged_at is not None or level is None or level >= len(escalation.destinations):
                return 0
            destination = file.named(escalation.destinations[level])
            assert destination is not None, "checked when the file was read"
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
