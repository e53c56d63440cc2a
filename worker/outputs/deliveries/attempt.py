"""One attempt at one delivery."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from firstread.records import Database, Delivery, EscalationStep, Flag, Job, OutputObject, Revision
from firstread.settings import Settings
from worker.outputs.deliveries.holding import check_held
from worker.outputs.destinations.file import (
    OBJECT_KINDS,
    Destination,
    DicomDestination,
    EmailDestination,
    NotDelivered,
    StowDestination,
    WebhookDestination,
)
from worker.outputs.messages import UNREAD, flags_of, in_doubt, is_unread, message
from worker.outputs.objects.files import ensure_objects
from worker.outputs.senders.http import send_stow, send_webhook
from worker.outputs.senders.mail import send_email
from worker.outputs.senders.store import store_objects
from worker.pipelines.reasons import Caution


class Skipped(Exception):
    """A delivery that is no longer needed, must not go, or has nothing that could be sent; the text says which."""


def attempt(db: Database, settings: Settings, destination: Destination, delivery: Delivery) -> str:
    """Send; returns the status text. Raises :class:`NotDelivered`, :class:`Skipped` or :class:`Held`."""
    with db.read() as session:
        _check_needed(session, delivery)
        check_held(session, delivery, settings)
    if isinstance(destination, DicomDestination | StowDestination):
        return _send_objects(db, settings, destination, delivery)
    with db.read() as session:
        content = message(session, delivery, patient_data=destination.patient_data)
    if isinstance(destination, WebhookDestination):
        return send_webhook(destination, content)
    assert isinstance(destination, EmailDestination)
    return send_email(destination, content)


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
    if delivery.kind in OBJECT_KINDS:
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
    with db.write() as session:
        session.execute(
            update(Delivery).where(Delivery.id == delivery.id).values(payload={**delivery.payload, "objects": done})
        )
    summary = ", ".join(f"{row.kind} {done[str(row.sop_instance_uid)]}" for row in written)
    if any(not done[str(row.sop_instance_uid)].startswith("stored") for row in written):
        raise NotDelivered(summary)
    return summary


def _store(
    settings: Settings, destination: DicomDestination | StowDestination, rows: list[OutputObject]
) -> dict[str, str]:
    folder = settings.objects_dir
    if isinstance(destination, DicomDestination):
        files = [(str(r.sop_instance_uid), str(r.sop_class_uid), folder / str(r.path)) for r in rows]
        return store_objects(destination, files, settings.ae_title)
    return send_stow(destination, [(str(r.sop_instance_uid), (folder / str(r.path)).read_bytes()) for r in rows])
