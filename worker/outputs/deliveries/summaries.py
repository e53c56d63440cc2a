"""Flags of old studies: at most one message an hour to a destination, however many there are.

The rows of a summary are deliveries like any other, one a job and destination; they are claimed, sent and concluded
together. A summary goes when no old study waits any more and its last row is a minute old, or when its first row has
waited for an hour; the next one goes an hour later at the earliest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.clock import monotonic
from firstread.pipelines import NOTICE
from firstread.records import Database, Delivery, Job, Revision, Study
from firstread.records.clock import now_of
from firstread.records.studies import WAITS_AS_OLD
from firstread.states import DeliveryState, JobState, has_open_work
from worker.errors import NoServingPackage
from worker.outputs.deliveries.rows import STATUS_LIMIT, backoff_s, claimed_until, end
from worker.outputs.destinations.file import (
    Destination,
    EmailDestination,
    NotDelivered,
    WebhookDestination,
)
from worker.outputs.messages import UNREAD, flags_of, is_unread, predictive_value
from worker.outputs.metrics import DELIVERIES, DELIVERY_SECONDS
from worker.outputs.senders.http import send_webhook
from worker.outputs.senders.mail import send_email
from worker.pipelines.reasons import Caution

INTERVAL = timedelta(hours=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """A summary that this process has claimed: the keys of its rows, the number of the attempt, and the message."""

    rows: tuple[int, ...]
    attempt: int
    content: dict[str, Any]


def send_summary(db: Database, destination: Destination) -> bool:
    """Send the summary of a destination if it is due; False where none is."""
    if not isinstance(destination, WebhookDestination | EmailDestination):
        return False
    summary = _claim(db, destination)
    if summary is None:
        return False
    started = monotonic()
    try:
        if not summary.content["flags"] and not summary.content["not_read"]:
            outcome, status = DeliveryState.SKIPPED, "acknowledged before this summary"
        elif isinstance(destination, WebhookDestination):
            with effects.DELIVERY_SEND:
                outcome, status = DeliveryState.DELIVERED, send_webhook(destination, summary.content)
        else:
            with effects.DELIVERY_SEND:
                outcome, status = DeliveryState.DELIVERED, send_email(destination, summary.content)
    except NotDelivered as error:
        outcome, status = DeliveryState.FAILED, str(error)
    except Exception as error:
        log.exception("summary to %s", destination.name)
        outcome, status = DeliveryState.FAILED, type(error).__name__
    DELIVERY_SECONDS.labels(destination.kind).observe(monotonic() - started)
    _conclude(db, destination, summary, outcome, status)
    return True


def _rows_of(destination: Destination) -> tuple[Any, ...]:
    return Delivery.destination == destination.name, Delivery.summary


def _claim(db: Database, destination: WebhookDestination | EmailDestination) -> Summary | None:
    with db.read() as session:
        if (
            session.scalar(
                select(Delivery.id).where(*_rows_of(destination), Delivery.state == DeliveryState.PENDING).limit(1)
            )
            is None
        ):
            return None
    with db.write(effects.SUMMARY_CLAIM) as session:
        rows = list(
            session.scalars(
                select(Delivery)
                .where(*_rows_of(destination), Delivery.state == DeliveryState.PENDING)
                .order_by(Delivery.id)
                .with_for_update(skip_locked=True)
            )
        )
        now = now_of(session)
        if not rows or not _is_due(session, destination, rows, now):
            return None
        attempt = max(row.attempts for row in rows) + 1
        if attempt > destination.max_attempts:
            for row in rows:
                end(row, DeliveryState.FAILED, row.last_status or "killed while sending", now)
            DELIVERIES.labels(destination.kind, DeliveryState.FAILED).inc()
            return None
        for row in rows:
            row.attempts = attempt
            row.next_at = claimed_until(destination, now)
        content = _content(session, rows, now, patient_data=destination.patient_data)
        return Summary(tuple(row.id for row in rows), attempt, content)


def _is_due(session: Session, destination: Destination, rows: Sequence[Delivery], now: datetime) -> bool:
    tried = [row.next_at for row in rows if row.attempts and row.next_at is not None]
    if tried:
        return min(tried) <= now
    last = session.scalar(
        select(Delivery.finished_at)
        .where(*_rows_of(destination), Delivery.state == DeliveryState.DELIVERED)
        .order_by(Delivery.finished_at.desc())
        .limit(1)
    )
    if last is not None and last > now - INTERVAL:
        return False
    if min(row.created_at for row in rows) <= now - INTERVAL:
        return True
    return max(row.next_at or now for row in rows) <= now and not _old_ones_wait(session)


def _old_ones_wait(session: Session) -> bool:
    in_work = (
        Job.state.in_([JobState.WAITING.value, JobState.SCORING.value]),
        Job.reason.is_distinct_from(NoServingPackage.reason),
    )
    query = select(Revision.id).join(Study, Study.id == Revision.study_id)
    query = query.where(WAITS_AS_OLD, has_open_work(*in_work)).limit(1)
    return session.scalar(query) is not None


def _content(session: Session, rows: Sequence[Delivery], now: datetime, *, patient_data: bool) -> dict[str, Any]:
    flags: dict[int, dict[str, Any]] = {}
    unread: list[dict[str, Any]] = []
    for row in rows:
        job = session.get_one(Job, row.job_id)
        revision = session.get_one(Revision, job.revision_id)
        study = session.get_one(Study, revision.study_id)
        if row.payload.get("event") == UNREAD and is_unread(job, row):
            names = {"study_key": study.id, "study_instance_uid": study.study_instance_uid, "pipeline": job.pipeline}
            unread.append({**names, "reason": job.reason})
        for flag in flags_of(session, row):
            if flag.acknowledged_at is not None:
                continue
            item = flags[flag.id] = {
                "study_key": study.id,
                "study_instance_uid": study.study_instance_uid,
                "made_at": revision.made_at.isoformat() if revision.made_at else None,
                "revision": revision.number,
                "pipeline": flag.pipeline,
                "finding": flag.finding,
                "probability": flag.probability,
                "threshold": flag.threshold,
                "volume_ml": flag.volume_ml,
                "predictive_value": predictive_value(job),
                "flagged_at": flag.flagged_at.isoformat(),
            }
            if patient_data and Caution.IDENTITY_IN_DOUBT not in flag.warnings:
                item |= {"patient_id": study.patient_id, "accession_number": study.accession_number}
    return {
        "event": "summary",
        "delivery": rows[0].id,
        "escalation": 0,
        "count": len(flags),
        "flags": list(flags.values()),
        "not_read": unread,
        "sent_at": now.isoformat(),
        "notice": NOTICE,
    }


def _conclude(db: Database, destination: Destination, summary: Summary, outcome: DeliveryState, status: str) -> None:
    again = outcome == DeliveryState.FAILED and summary.attempt < destination.max_attempts
    with db.write(effects.SUMMARY_CONCLUDE) as session:
        now = now_of(session)
        wait = timedelta(seconds=backoff_s(destination, summary.attempt))
        rows = session.scalars(
            select(Delivery).where(Delivery.id.in_(summary.rows), Delivery.state == DeliveryState.PENDING)
        ).all()
        for row in rows:
            if again:
                row.last_status, row.next_at = status[:STATUS_LIMIT], now + wait
                continue
            end(row, outcome, status, now)
            if outcome == DeliveryState.DELIVERED:
                for flag in flags_of(session, row):
                    flag.notified_at = flag.notified_at or now
    DELIVERIES.labels(destination.kind, "retry" if again else outcome).inc()
    if outcome == DeliveryState.FAILED:
        log.warning("summary to %s: attempt %d: %s", destination.name, summary.attempt, status[:STATUS_LIMIT])
