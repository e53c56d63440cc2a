"""Sending: one lane, a thread of its own, for each destination.

A lane takes the rows of its destination that are due, one after the other, and waits for no other lane, so a dead
destination holds up neither the others nor the scoring. Rows are claimed in the database, so that several processes
may run lanes at once; a claim that a killed process held comes back when it runs out.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from firstread import effects
from firstread.actions.silence import note_silence
from firstread.clock import monotonic
from firstread.processes.lasting import lasting_thread
from firstread.records import Database, Delivery, Flag, Job, Result, Revision
from firstread.records.clock import now_of
from firstread.records.migrate import head_revision
from firstread.records.silence import SILENT, Silence, read_silence
from firstread.settings import Settings
from firstread.states import DeliveryState
from worker.outputs.deliveries.attempt import Skipped, attempt
from worker.outputs.deliveries.escalation import escalate_flags, escalate_unread
from worker.outputs.deliveries.holding import Held
from worker.outputs.deliveries.rows import CLAIM_MARGIN_S, STATUS_LIMIT, backoff_s, claimed_until, end
from worker.outputs.deliveries.summaries import send_summary
from worker.outputs.destinations.file import Destination, DestinationsError, DestinationsFile, NotDelivered, Refused
from worker.outputs.destinations.watch import watch_of
from worker.outputs.messages import flags_of
from worker.outputs.metrics import DELIVERIES, DELIVERY_SECONDS, NOTIFICATION_SECONDS

KINDS = ("dicom", "stow", "webhook", "email", "hl7", "fhir")
TICK_S = 1.0
ORPHAN_S = 60.0
"""How long a destination must be missing from the file until deliveries to it end."""

log = logging.getLogger(__name__)


def run_deliveries(settings: Settings, stop_event: threading.Event) -> None:
    """Deliver until ``stop_event`` is set. Blocks; to be run in a thread or a process of its own.

    Every lane goes by the one watch on the file of destinations.
    """
    for kind in KINDS:
        DELIVERIES.labels(kind, DeliveryState.FAILED)  # at zero from the start, for the alert that counts its increase
    db = Database(settings.database_url)
    db.hold_to(head_revision())
    lanes: dict[str, threading.Thread] = {}
    watch = watch_of(settings)
    orphans = OrphanedDeliveries()
    try:
        while not stop_event.is_set():
            file = watch.current()
            watch.remember()
            for destination in file.destination:
                lane = lanes.get(destination.name)
                if lane is None or not lane.is_alive():
                    lanes[destination.name] = _start_lane(settings, db, destination.name, stop_event)
            try:
                silence = note_silence(db, settings.silent, "firstread deliver")
                escalate_flags(db, file, silence)
                escalate_unread(db, file, silence)
                orphans.end_missing(db, file)
            except SQLAlchemyError as error:
                log.warning("deliveries: the database does not answer (%s)", type(error).__name__)
            stop_event.wait(TICK_S)
        for lane in lanes.values():
            lane.join(timeout=CLAIM_MARGIN_S)
    finally:
        db.dispose()


def _start_lane(settings: Settings, db: Database, name: str, stop_event: threading.Event) -> threading.Thread:
    run = functools.partial(_run_lane, settings, db, name, stop_event)
    thread = lasting_thread(run, f"deliver-{name}", stopping=stop_event)
    thread.start()
    return thread


def _run_lane(settings: Settings, db: Database, name: str, stop_event: threading.Event) -> None:
    while not stop_event.is_set():
        try:
            destination = watch_of(settings).current().named(name)
            if destination is None:
                return
            worked = work_one(db, settings, destination)
        except SQLAlchemyError as error:
            log.warning("delivery to %s: %s", name, type(error).__name__)
            worked = False
        if not worked:
            stop_event.wait(TICK_S)


def work_one(db: Database, settings: Settings, destination: Destination) -> bool:
    """Claim and attempt the next delivery that is due for a destination; False where there is none.

    While a site is silent all of them end unsent.
    """
    if _keep_silent(db, settings, destination):
        return False
    delivery = _claim(db, destination)
    if delivery is None:
        return send_summary(db, destination)
    started = monotonic()
    again = True
    try:
        status = attempt(db, settings, destination, delivery)
        outcome = DeliveryState.DELIVERED
    except Held as held:
        _postpone(db, delivery.id, held.until)
        return True
    except Skipped as skipped:
        status, outcome = str(skipped), DeliveryState.SKIPPED
    except (NotDelivered, DestinationsError) as error:
        status, outcome, again = str(error), DeliveryState.FAILED, not isinstance(error, Refused)
    except Exception as error:
        log.exception("delivery %d to %s", delivery.id, destination.name)
        status, outcome = type(error).__name__, DeliveryState.FAILED
    DELIVERY_SECONDS.labels(destination.kind).observe(monotonic() - started)
    _conclude(db, destination, delivery.id, outcome, status, again=again)
    return True


def _keep_silent(db: Database, settings: Settings, destination: Destination) -> bool:
    """Whether nothing may be sent; what waits for the destination ends then, and what a silence left behind."""
    with db.read() as session:
        silence = read_silence(session, settings.silent)
        if not silence.holds and silence.ended_at is None:
            return False
        if session.scalar(select(Delivery.id).where(*_silenced(silence, destination)).limit(1)) is None:
            return silence.holds
    with db.write(effects.DELIVERY_SILENCED) as session:
        session.execute(
            update(Delivery)
            .where(*_silenced(silence, destination))
            .values(state=DeliveryState.SKIPPED, next_at=None, finished_at=now_of(session), last_status=SILENT)
        )
    return silence.holds


def _silenced(silence: Silence, destination: Destination) -> list[ColumnElement[bool]]:
    pending = [Delivery.destination == destination.name, Delivery.state == DeliveryState.PENDING]
    return pending if silence.holds else [*pending, Delivery.created_at <= silence.ended_at]


def _claim(db: Database, destination: Destination) -> Delivery | None:
    pending = (
        Delivery.destination == destination.name,
        Delivery.state == DeliveryState.PENDING,
        Delivery.summary.is_(False),
    )
    with db.read() as session:
        if session.scalar(select(Delivery.id).where(*pending, Delivery.next_at <= now_of(session)).limit(1)) is None:
            return None
    with db.write(effects.DELIVERY_CLAIM) as session:
        now = now_of(session)
        row = session.scalar(
            select(Delivery)
            .where(*pending, Delivery.next_at <= now)
            .order_by(Delivery.next_at, Delivery.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if row is None:
            return None
        if row.attempts >= destination.max_attempts:  # its last attempt was never concluded
            end(row, DeliveryState.FAILED, row.last_status or "killed while sending", now)
            DELIVERIES.labels(destination.kind, DeliveryState.FAILED).inc()
            return None
        row.attempts += 1
        row.next_at = claimed_until(destination, now)
        session.flush()
        session.expunge(row)
        return row


def _postpone(db: Database, delivery_id: int, until: datetime) -> None:
    """Postpone a result that is held back; this does not count as an attempt."""
    with db.write(effects.DELIVERY_POSTPONE) as session:
        row = session.get_one(Delivery, delivery_id)
        if row.state == DeliveryState.PENDING:
            row.attempts, row.next_at = max(0, row.attempts - 1), until


def _conclude(
    db: Database, destination: Destination, delivery_id: int, outcome: DeliveryState, status: str, *, again: bool
) -> None:
    """Write down how an attempt ended; after one that failed another is due, where ``again`` and its limit say so."""
    with db.write(effects.DELIVERY_CONCLUDE) as session:
        now = now_of(session)
        row = session.get_one(Delivery, delivery_id)
        if row.state != DeliveryState.PENDING:
            return
        if outcome == DeliveryState.FAILED and again and row.attempts < destination.max_attempts:
            row.last_status = status[:STATUS_LIMIT]
            row.next_at = now + timedelta(seconds=backoff_s(destination, row.attempts))
            DELIVERIES.labels(destination.kind, "retry").inc()
            log.warning("delivery %d to %s: attempt %d: %s", row.id, row.destination, row.attempts, row.last_status)
            return
        end(row, outcome, status, now)
        DELIVERIES.labels(destination.kind, outcome).inc()
        if outcome == DeliveryState.DELIVERED:
            _mark_notified(session, row)
        elif outcome == DeliveryState.FAILED:
            log.error("delivery %d to %s failed for good: %s", row.id, row.destination, row.last_status)


def _mark_notified(session: Session, delivery: Delivery) -> None:
    """The first successful notice of a flag sets its time."""
    now = now_of(session)
    job = session.get_one(Job, delivery.job_id)
    revision = session.get_one(Revision, job.revision_id)
    for flag in flags_of(session, delivery):
        first = update(Flag).where(Flag.id == flag.id, Flag.notified_at.is_(None)).values(notified_at=now)
        if session.scalar(first.returning(Flag.id)) is not None:
            seen_at = _first_seen(session, flag) or revision.last_seen_at
            NOTIFICATION_SECONDS.labels(flag.pipeline).observe((now - seen_at).total_seconds())


def _first_seen(session: Session, flag: Flag) -> datetime | None:
    """When the last image of the revision came that raised a flag first, as in the view ``study_flag``."""
    raised = (Result.finding == flag.finding, Result.flagged, Result.role != "shadow")
    return session.scalar(
        select(Revision.last_seen_at)
        .join(Job, Job.revision_id == Revision.id)
        .join(Result, Result.job_id == Job.id)
        .where(Revision.study_id == flag.study_id, Job.pipeline == flag.pipeline, *raised)
        .order_by(Result.created_at, Revision.number)
        .limit(1)
    )


class OrphanedDeliveries:
    """Deliveries to destinations that were taken out of the file: they end as ``FAILED`` after a while."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._missing_since: dict[str, float] = {}

    def end_missing(self, db: Database, file: DestinationsFile) -> None:
        """End what is due at a destination that the file in force has not named for ``ORPHAN_S`` seconds."""
        names = [d.name for d in file.destination]
        pending = (Delivery.state == DeliveryState.PENDING, Delivery.destination.not_in(names))
        with db.read() as session:
            missing = set(session.scalars(select(Delivery.destination).where(*pending).distinct()))
        now = self._clock()
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        gone = [name for name, since in self._missing_since.items() if now - since >= ORPHAN_S]
        if not gone:
            return
        with db.write(effects.DELIVERY_ORPHANS) as session:
            now_there = now_of(session)
            session.execute(
                update(Delivery)
                .where(
                    Delivery.state == DeliveryState.PENDING,
                    Delivery.destination.in_(gone),
                    Delivery.next_at <= now_there,
                )
                .values(
                    state=DeliveryState.FAILED,
                    next_at=None,
                    finished_at=now_there,
                    last_status="no such destination any more",
                )
            )
