"""One attempt at one delivery."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from firstread import effects
from firstread.actions.links import make_link
from firstread.pipelines import flags_by_itself
from firstread.records import Database, Delivery, EscalationStep, Flag, Job, OutputObject, Result, Revision
from firstread.settings import Settings
from worker.outputs.deliveries.holding import check_held
from worker.outputs.destinations.file import (
    IDENTIFIED_KINDS,
    Destination,
    DicomDestination,
    EmailDestination,
    FhirDestination,
    Hl7Destination,
    NotDelivered,
    StowDestination,
    WebhookDestination,
)
from worker.outputs.hl7.codes import read_codes
from worker.outputs.hl7.fhir_bundle import make_bundle
from worker.outputs.hl7.observation_report import make_message
from worker.outputs.hl7.order import NoOrder, has_flag, read_order
from worker.outputs.hl7.scored_result import ScoredResult
from worker.outputs.messages import UNREAD, flags_of, in_doubt, is_unread, message
from worker.outputs.objects.files import ensure_objects
from worker.outputs.senders.fhir import send_bundle
from worker.outputs.senders.http import send_stow, send_webhook
from worker.outputs.senders.mail import send_email
from worker.outputs.senders.mllp import send_message
from worker.outputs.senders.store import store_objects
from worker.pipelines.reasons import Caution

FLAG_STANDS = "flag_stands"
"""A result without a flag is not told to a RIS that may have a flag of the same order: it would read as its end."""


class Skipped(Exception):
    """A delivery that is no longer needed, must not go, or has nothing that could be sent; the text says which."""


def attempt(db: Database, settings: Settings, destination: Destination, delivery: Delivery) -> str:
    """Send; returns the status text. Raises :class:`NotDelivered`, :class:`Skipped` or :class:`Held`."""
    with db.read() as session:
        _check_needed(session, delivery)
        check_held(session, delivery, settings)
    if isinstance(destination, DicomDestination | StowDestination):
        return _send_objects(db, settings, destination, delivery)
    if isinstance(destination, Hl7Destination | FhirDestination):
        return _send_report(db, settings, destination, delivery)
    with db.read() as session:
        content = message(session, delivery, patient_data=destination.patient_data)
    linked = linked_flag(content, delivery)
    if isinstance(destination, EmailDestination):
        return _send_mails(db, settings, destination, delivery, content, linked)
    assert isinstance(destination, WebhookDestination)
    content["link"] = _link(db, settings, linked, destination.name, destination.kind)
    with effects.DELIVERY_SEND:
        return send_webhook(destination, content)


def linked_flag(content: dict[str, Any], delivery: Delivery) -> int | None:
    """The flag that a message links to, the pipeline's leading one first; None where none is open."""
    if delivery.topic or content["event"] == UNREAD:
        return None
    flags = [flag for flag in content["flags"] if flag["acknowledged_at"] is None]
    flags.sort(key=lambda flag: not flags_by_itself(content["pipeline"], flag["finding"]))
    return int(flags[0]["flag"]) if flags else None


def _link(db: Database, settings: Settings, flag_id: int | None, recipient: str, kind: str) -> str | None:
    if flag_id is None or not settings.web_url:
        return None
    with db.write(effects.LINK_COMMIT) as session:
        return make_link(session, settings, flag_id, recipient, kind)


def _send_mails(
    db: Database,
    settings: Settings,
    destination: EmailDestination,
    delivery: Delivery,
    content: dict[str, Any],
    flag_id: int | None,
) -> str:
    """One mail to all, or one to each where it holds a link; who has got one gets no second one."""
    if flag_id is None or not settings.web_url:
        with effects.DELIVERY_SEND:
            return send_email(destination, content)
    payload = dict(delivery.payload)
    status = "SMTP 250"
    for address in destination.to:
        if address in payload.get("mailed", ()):
            continue
        link = _link(db, settings, flag_id, address, destination.kind)
        with effects.DELIVERY_SEND:
            status = send_email(destination, {**content, "link": link}, to=(address,))
        payload["mailed"] = [*payload.get("mailed", ()), address]
        with db.write(effects.LINK_COMMIT) as session:
            session.execute(update(Delivery).where(Delivery.id == delivery.id).values(payload=payload))
    return status


def is_superseded(session: Session, job: Job) -> bool:
    """Whether a later revision of the study corrected the identity of this job's images."""
    own = session.get_one(Revision, job.revision_id)
    later = select(Revision.warnings).where(Revision.study_id == own.study_id, Revision.number > own.number)
    return any(Caution.IDENTITY_CORRECTED in (warnings or ()) for warnings in session.scalars(later))


def _check_needed(session: Session, delivery: Delivery) -> None:
    """Raise :class:`Skipped` where a delivery has become needless or must not go.

    The notice of a study that nobody read ends with another attempt at it, an escalation with the acknowledgement.
    Objects do not go out under an identity that was corrected or is in doubt, nor do messages about results that raise
    no flag where the identity is in doubt.
    """
    job = session.get_one(Job, delivery.job_id)
    event = delivery.payload.get("event")
    if event == UNREAD and not is_unread(job, delivery):
        raise Skipped("tried again before this notice")
    if delivery.kind in IDENTIFIED_KINDS:
        if in_doubt(job):
            raise Skipped(str(Caution.IDENTITY_IN_DOUBT))
        if is_superseded(session, job):
            raise Skipped(str(Caution.IDENTITY_CORRECTED))
        return
    urgent = delivery.topic or delivery.escalation or event or flags_of(session, delivery)
    if in_doubt(job) and not urgent:
        raise Skipped(str(Caution.IDENTITY_IN_DOUBT))
    times = session.scalars(
        select(Flag.acknowledged_at)
        .join(EscalationStep, EscalationStep.flag_id == Flag.id)
        .where(EscalationStep.delivery_id == delivery.id)
    ).all()
    if times and all(time is not None for time in times):
        raise Skipped("acknowledged before this notice")


def _send_objects(
    db: Database, settings: Settings, destination: DicomDestination | StowDestination, delivery: Delivery
) -> str:
    rows = [row for row in ensure_objects(db, settings, delivery.job_id) if row.kind in destination.objects]
    written = [row for row in rows if row.path is not None and row.deleted_at is None]
    if not written:
        raise Skipped("no object: " + ", ".join(f"{row.kind} {row.reason or 'deleted'}" for row in rows))
    done = dict(delivery.payload.get("objects", {}))
    left = [row for row in written if not done.get(str(row.sop_instance_uid), "").startswith("stored")]
    statuses = _store(settings, destination, left) if left else {}
    done.update(statuses)
    with db.write(effects.DELIVERY_OBJECTS) as session:
        session.execute(
            update(Delivery).where(Delivery.id == delivery.id).values(payload={**delivery.payload, "objects": done})
        )
    summary = ", ".join(f"{row.kind} {done[str(row.sop_instance_uid)]}" for row in written)
    if any(not done[str(row.sop_instance_uid)].startswith("stored") for row in written):
        raise NotDelivered(summary)
    return summary


def _send_report(
    db: Database, settings: Settings, destination: Hl7Destination | FhirDestination, delivery: Delivery
) -> str:
    codes = read_codes(destination.codes)
    with db.read() as session:
        job = session.get_one(Job, delivery.job_id)
        rows = select(Result).where(Result.job_id == job.id, Result.run == delivery.run, Result.role == "active")
        findings = session.scalars(rows.order_by(Result.finding, Result.model_name)).all()
        try:
            order = read_order(session, settings, job)
        except NoOrder as error:
            raise Skipped(str(error)) from error
        if not any(finding.flagged for finding in findings) and has_flag(session, settings, job, order):
            raise Skipped(FLAG_STANDS)
        result = ScoredResult(delivery, job, findings, order)
        send: Callable[[], str]
        if isinstance(destination, FhirDestination):
            send = partial(send_bundle, destination, make_bundle(destination, codes, result), order.private())
        else:
            message = make_message(destination, codes, result, settings.zone)
            send = partial(send_message, destination, message, result.control_id, order.private())
    with effects.DELIVERY_SEND:
        return send()


def _store(
    settings: Settings, destination: DicomDestination | StowDestination, rows: list[OutputObject]
) -> dict[str, str]:
    folder = settings.objects_dir
    with effects.DELIVERY_SEND:
        if isinstance(destination, DicomDestination):
            files = [(str(r.sop_instance_uid), str(r.sop_class_uid), folder / str(r.path)) for r in rows]
            return store_objects(destination, files, settings.ae_title)
        return send_stow(destination, [(str(r.sop_instance_uid), (folder / str(r.path)).read_bytes()) for r in rows])
