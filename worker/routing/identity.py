"""A patient or an order corrected: the same images under one new identity.

Nothing is scored again. The result is carried over to the revision with the corrected images, with the warning
``identity_corrected``; the study's own columns follow; objects are made and sent again under the new identity, and name
the earlier report as their predecessor. What was not sent yet under the earlier identity never is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from firstread.dicom.values import text
from firstread.records import Delivery, Flag, Job, Result, Revision, SliceScoreRow, Study
from firstread.records.clock import now_of
from firstread.records.slice_scores import insert_slice_scores
from firstread.report.evidence import renumbering
from firstread.settings import Settings
from firstread.states import UNDELIVERED, DeliveryState, JobState, move_job
from worker.outputs.deliveries.planning import plan_objects
from worker.outputs.destinations.file import IDENTIFIED_KINDS
from worker.pipelines.reasons import Caution, merge_codes

CARRIED = frozenset({JobState.DONE, JobState.REJECTED})
"""States of a job whose result can be carried over: the others have none yet, and their images are scored."""

_OF_THE_CHANGE = frozenset({Caution.PATIENT_MISMATCH, Caution.INSTANCE_CHANGED})


@dataclass(frozen=True)
class Identity:
    """What the study's columns hold of an identity."""

    patient_id: str | None
    accession_number: str | None


def identity_columns(ds: Dataset) -> Identity:
    """The columns as a header has them."""
    return Identity(text(ds, "PatientID", 128) or None, text(ds, "AccessionNumber", 64) or None)


def correct(session: Session, study: Study, identity: Identity) -> None:
    """Bring a study's columns up to date, and say so with its flags; what the new identity leaves out stays."""
    study.patient_id = identity.patient_id or study.patient_id
    study.accession_number = identity.accession_number or study.accession_number
    for flag in session.scalars(select(Flag).where(Flag.study_id == study.id).with_for_update()):
        flag.warnings = merge_codes(flag.warnings, [Caution.IDENTITY_CORRECTED])


def carry(session: Session, revision: Revision, old: Job, settings: Settings, *, actor: str) -> Job:
    """Give a revision the result of an earlier job, images for images, and plan its objects.

    Parameters
    ----------
    revision : Revision
        With the corrected images; its warnings are set.
    old : Job
        ``DONE`` or ``REJECTED``.
    """
    still_true = [code for code in old.warnings if code not in _OF_THE_CHANGE]
    new = [code for code in revision.warnings if code != Caution.INSTANCE_CHANGED]
    job = Job(
        revision_id=revision.id,
        pipeline=old.pipeline,
        run=1,
        reason=old.reason,
        detail=old.detail,
        next_step=old.next_step,
        warnings=merge_codes(still_true, new),
        series_notes=list(old.series_notes),
        series_instance_uid=old.series_instance_uid,
        statistics=dict(old.statistics),
        models=list(old.models),
        evidence_path=old.evidence_path,
        carried_from=old.id,
        created_at=now_of(session),
        started_at=old.started_at,
        finished_at=old.finished_at,
    )
    move_job(session, job, JobState(old.state), actor=actor, reason=str(Caution.IDENTITY_CORRECTED))
    results = _copy_results(session, old, job)
    _copy_slices(session, old, job)
    session.execute(update(Flag).where(Flag.job_id == old.id).values(job_id=job.id))
    session.flush()
    plan_objects(session, job, results, settings)
    return job


def end_deliveries(session: Session, study_id: int, revision_number: int, reason: str) -> int:
    """End what was not yet sent of objects with an earlier revision's identity; returns how many."""
    earlier = (
        select(Job.id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(Revision.study_id == study_id, Revision.number < revision_number)
    )
    ended = session.scalars(
        update(Delivery)
        .where(Delivery.job_id.in_(earlier), Delivery.kind.in_(IDENTIFIED_KINDS), Delivery.state.in_(UNDELIVERED))
        .values(state=DeliveryState.SKIPPED, next_at=None, finished_at=now_of(session), last_status=reason)
        .returning(Delivery.id)
        .execution_options(synchronize_session="fetch")
    )
    return len(ended.all())


def _copy_results(session: Session, old: Job, job: Job) -> Sequence[Result]:
    copies = []
    for row in session.scalars(
        select(Result).where(Result.job_id == old.id, Result.run == old.run).order_by(Result.id)
    ):
        values = {c.key: getattr(row, c.key) for c in Result.__mapper__.columns if c.key not in {"id", "job_id", "run"}}
        copies.append(Result(job_id=job.id, run=job.run, **values))
    session.add_all(copies)
    return copies


def _copy_slices(session: Session, old: Job, job: Job) -> None:
    instance_of = renumbering(session, job)
    rows = []
    query = select(SliceScoreRow).where(SliceScoreRow.job_id == old.id, SliceScoreRow.run == old.run)
    for row in session.scalars(query.order_by(SliceScoreRow.id)):
        values = {c.key: getattr(row, c.key) for c in SliceScoreRow.__mapper__.columns if c.key != "id"}
        instance_id = instance_of.get(row.instance_id, row.instance_id)
        rows.append(values | {"job_id": job.id, "run": job.run, "instance_id": instance_id})
    insert_slice_scores(session, rows)
