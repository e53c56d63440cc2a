"""Images that the department took back: left out of what is scored from then on, and never the end of a flag.

A rejection note lies among the instances of its study, so every later revision finds it again. What a note says of
earlier results is written once: they carry warnings, and where the identity is in doubt (an incorrect worklist entry),
what was not sent yet is not sent under that name, and whoever was notified gets a second notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from firstread.dicom.rejection import EXPIRED, WRONG_WORKLIST, RejectionNote, rejection_note
from firstread.records import Delivery, Flag, Instance, Job, RejectionRow, Result, Revision, RevisionInstance
from firstread.records.clock import now_of
from firstread.states import UNDELIVERED, DeliveryState
from worker.outputs.deliveries.rows import new_delivery
from worker.outputs.destinations.file import IDENTIFIED_KINDS
from worker.pipelines.base import StudyImages
from worker.pipelines.reasons import Caution, merge_codes

IDENTITY_IN_DOUBT = str(Caution.IDENTITY_IN_DOUBT)


@dataclass
class Rejected:
    """The notes of a revision, by the keys of their instances, and the images that they reject, with the code."""

    notes: dict[int, RejectionNote] = field(default_factory=dict)
    uids: dict[int, str] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Warnings of results of what is left."""
        return [str(Caution.IMAGES_REJECTED)] if self.left_out else []


def rejected_in(study: StudyImages) -> Rejected:
    """Read the rejection notes of a revision. A note that images expired rejects nothing."""
    rejected = Rejected()
    for instance in study.instances:
        note = rejection_note(instance.ds)
        if note is not None:
            rejected.notes[instance.key] = note
            rejected.uids[instance.key] = instance.SOPInstanceUID
    for note in sorted(rejected.notes.values(), key=lambda note: note.code):
        if note.code == EXPIRED:
            continue
        for instance in study.instances:
            if instance.key not in rejected.notes and note.names(instance.SeriesInstanceUID, instance.SOPInstanceUID):
                # Codes go up: an incorrect worklist entry, the highest, decides.
                rejected.left_out[instance.key] = note.code
    return rejected


def apply(session: Session, revision: Revision, rejected: Rejected) -> None:
    """Write down what a revision's notes say: its own left-out images, and what follows for earlier results.

    Parameters
    ----------
    revision : Revision
        Locked, as is its study.
    """
    for key, code in rejected.left_out.items():
        session.execute(
            update(RevisionInstance)
            .where(RevisionInstance.revision_id == revision.id, RevisionInstance.instance_id == key)
            .values(left_out=code)
        )
    for key, note in rejected.notes.items():
        _note(session, revision, key, rejected.uids[key], note)
    if not rejected.left_out:
        return
    revision.warnings = merge_codes(revision.warnings, rejected.warnings)
    in_doubt = WRONG_WORKLIST in rejected.left_out.values()
    codes = [str(Caution.IMAGES_REJECTED), *([IDENTITY_IN_DOUBT] if in_doubt else [])]
    touched = _warn(session, revision, set(rejected.left_out), codes)
    if in_doubt and touched:
        _hold_back(session, touched)
        _notify(session, revision.study_id, touched)


def _note(session: Session, revision: Revision, key: int, uid: str, note: RejectionNote) -> None:
    known = select(RejectionRow.id).where(
        RejectionRow.study_id == revision.study_id, RejectionRow.sop_instance_uid == uid, RejectionRow.code == note.code
    )
    if session.scalar(known) is None:
        session.add(
            RejectionRow(
                study_id=revision.study_id,
                instance_id=key,
                sop_instance_uid=uid,
                code=note.code,
                images=len(note.references),
                at=now_of(session),
            )
        )


def _warn(session: Session, revision: Revision, images: set[int], codes: list[str]) -> list[int]:
    """Put warnings on the results, and the flags, of revisions that looked at rejected images; returns their jobs."""
    pairs = {(i.series_instance_uid, i.sop_instance_uid) for i in _instances(session, Instance.id.in_(images))}
    same = _instances(
        session, Instance.study_id == revision.study_id, Instance.sop_instance_uid.in_({sop for _, sop in pairs})
    )
    looked = (
        select(RevisionInstance.revision_id)
        .where(
            RevisionInstance.instance_id.in_(
                [i.id for i in same if (i.series_instance_uid, i.sop_instance_uid) in pairs]
            ),
            RevisionInstance.left_out.is_(None),
        )
        .distinct()
    )
    query = select(Revision).where(Revision.study_id == revision.study_id, Revision.id.in_(looked))
    jobs: list[int] = []
    for earlier in session.scalars(query.where(Revision.id != revision.id)):
        for job in session.scalars(select(Job).where(Job.revision_id == earlier.id).with_for_update()):
            job.warnings = merge_codes(job.warnings, codes)
            jobs.append(job.id)
        earlier.warnings = merge_codes(earlier.warnings, codes)
    for flag in session.scalars(select(Flag).where(Flag.job_id.in_(jobs)).with_for_update()):
        flag.warnings = merge_codes(flag.warnings, codes)
    return jobs


def _instances(session: Session, *conditions: ColumnElement[bool]) -> list[Instance]:
    return list(session.scalars(select(Instance).where(*conditions)))


def _hold_back(session: Session, jobs: list[int]) -> None:
    """End what was not sent: objects, which have the name in them, and messages about results that raise no flag."""
    raised = select(Result.job_id).where(Result.job_id.in_(jobs), Result.flagged, Result.role != "shadow")
    quiet = Delivery.job_id.not_in(raised) & (Delivery.escalation == 0) & (Delivery.topic == "")
    session.execute(
        update(Delivery)
        .where(Delivery.job_id.in_(jobs), Delivery.state.in_(UNDELIVERED), Delivery.kind.in_(IDENTIFIED_KINDS) | quiet)
        .values(state=DeliveryState.SKIPPED, next_at=None, finished_at=now_of(session), last_status=IDENTITY_IN_DOUBT)
        .execution_options(synchronize_session="fetch")
    )


def _notify(session: Session, study_id: int, jobs: list[int]) -> None:
    """One message to each webhook and mailbox that was notified of these results, once a study."""
    of_study = select(Job.id).join(Revision, Revision.id == Job.revision_id).where(Revision.study_id == study_id)
    notified = set(
        session.scalars(
            select(Delivery.destination).where(Delivery.job_id.in_(of_study), Delivery.topic == IDENTITY_IN_DOUBT)
        )
    )
    sent = session.scalars(
        select(Delivery)
        .where(
            Delivery.job_id.in_(jobs), Delivery.state == DeliveryState.DELIVERED, Delivery.kind.not_in(IDENTIFIED_KINDS)
        )
        .order_by(Delivery.id.desc())
    )
    for delivery in sent:
        if delivery.destination in notified:
            continue
        notified.add(delivery.destination)
        job = session.get_one(Job, delivery.job_id)
        session.add(new_delivery(job, delivery.destination, delivery.kind, run=delivery.run, topic=IDENTITY_IN_DOUBT))
