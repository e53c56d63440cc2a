"""Which pipelines a revision is the business of, and writing their jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.dicom.modality import modality_of
from firstread.records import (
    Database,
    Delivery,
    Instance,
    Job,
    Revision,
    RevisionInstance,
    Standing,
    lock_revision,
    senders_of,
)
from firstread.records import Study as StudyRow
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.states import ROUTING_FAILED, JobState, move_job
from worker.errors import NoServingPackage
from worker.metrics import JOBS, UNWANTED
from worker.outputs.deliveries.planning import plan_deliveries
from worker.pipelines import registry
from worker.pipelines.base import StudyImages
from worker.pipelines.reasons import Caution
from worker.pipelines.registry import Orders
from worker.routing.earlier_results import UNCHANGED, RoutingDecision, StandingResult, known_work
from worker.routing.identity import CARRIED, carry, correct, end_deliveries
from worker.routing.rejections import Rejected, apply

NO_PIPELINE = "no_pipeline"
UNKNOWN_PIPELINE = "unknown_pipeline"

log = logging.getLogger(__name__)


class Overtaken(Exception):
    """Other work of the study was written while a revision was looked at, so what stands must be decided again."""


def orders_of(session: Session, settings: Settings, revision: Revision) -> Orders:
    """Which pipelines people asked for: by the inbox folder, for the study's senders, or for every study."""
    sender: frozenset[str] = frozenset()
    if settings.force_pipelines_by_calling_ae:
        study_uid = session.get_one(StudyRow, revision.study_id).study_instance_uid
        sender = settings.forced_for(senders_of(session, study_uid))
    return Orders(revision.forced_pipeline, sender, frozenset(settings.force_pipelines))


def wanted_by(study: StudyImages, orders: Orders) -> tuple[list[str], str | None]:
    """Names of the pipelines whose business a study is, or the reason why there is none."""
    names = [row.name for row in registry.REGISTRY if row.wants(study, orders)]
    if names:
        return names, None
    known = {row.name for row in registry.REGISTRY}
    if orders.folder is not None and orders.folder not in known:
        return [], UNKNOWN_PIPELINE
    return [], NO_PIPELINE


def guess_pipelines(modalities: Collection[str], orders: Orders) -> list[str]:
    """Names of the pipelines whose business a study may be that cannot be read: asked for, or by its modalities."""
    if orders.folder is not None:
        return [row.name for row in registry.REGISTRY if row.name == orders.folder]
    kinds, rows = frozenset(modalities), registry.REGISTRY
    names = [row.name for row in rows if kinds & row.described.modalities]
    if not names:
        names = [row.name for row in rows if row.name in orders.sender]
    return names or [row.name for row in rows if kinds & row.described.alone and kinds <= row.described.alone]


def give_up(db: Database, revision_id: int, *, actor: str, error: str, settings: Settings) -> list[str]:
    """End the routing of a revision that cannot be read: a ``FAILED`` job for each pipeline that would have been asked.

    So the study is shown, notified and escalated as every other that nobody read.

    Parameters
    ----------
    error : str
        Class and place of the error.

    Returns
    -------
    list of str
        Names of the pipelines; none where nobody asked for one and the modalities name none, or if another worker was
        first.
    """
    with db.write(effects.ROUTE_FAIL_COMMIT) as session:
        locked = lock_revision(session, revision_id)
        if locked is None or locked[1].routed_at is not None:
            return []
        _, revision = locked
        now = now_of(session)
        revision.routed_at = now
        revision.reason = ROUTING_FAILED
        failed = _failed_jobs(session, revision_id)
        names = guess_pipelines(_modalities(session, revision_id), orders_of(session, settings, revision))
        for name in names:
            if name in failed:
                continue
            job = Job(revision_id=revision_id, pipeline=name, created_at=now, error=error)
            fail_job(session, job, actor=actor, reason=ROUTING_FAILED, settings=settings)
    UNWANTED.labels(ROUTING_FAILED).inc()
    for name in names:
        JOBS.labels(name, JobState.FAILED.value).inc()
    return names


def fail_job(session: Session, job: Job, *, actor: str, reason: str, settings: Settings) -> None:
    """Move a job to ``FAILED``, and plan the notices that nobody read the study, once a run.

    The study of the job is locked.
    """
    job.reason = reason
    job.finished_at = now_of(session)
    move_job(session, job, JobState.FAILED, actor=actor, reason=reason)
    planned = select(Delivery.id).where(Delivery.job_id == job.id, Delivery.run == job.run)
    if session.scalar(planned.limit(1)) is None:
        plan_deliveries(session, job, None, settings)


def _failed_jobs(session: Session, revision_id: int) -> dict[str, Job]:
    """Jobs that were made when an earlier routing of a revision failed, by pipeline; locked."""
    query = select(Job).where(
        Job.revision_id == revision_id, Job.state == JobState.FAILED.value, Job.reason == ROUTING_FAILED
    )
    return {job.pipeline: job for job in session.scalars(query.with_for_update())}


def _modalities(session: Session, revision_id: int) -> frozenset[str]:
    query = (
        select(Instance.modality, Instance.sop_class_uid)
        .join(RevisionInstance, RevisionInstance.instance_id == Instance.id)
        .where(RevisionInstance.revision_id == revision_id)
        .distinct()
    )
    return frozenset(modality_of(modality, sop_class) for modality, sop_class in session.execute(query))


def commit_routing(
    db: Database,
    revision_id: int,
    names: Collection[str],
    reason: str | None,
    *,
    serving: Collection[str],
    actor: str,
    settings: Settings,
    decision: RoutingDecision | None = None,
    rejected: Rejected | None = None,
    take: Callable[[Session, Job, Revision], None] | None = None,
) -> bool:
    """Write the jobs of a revision, once; a pipeline whose earlier result stands gets none.

    Parameters
    ----------
    take : callable, optional
        Claims the first job that can be served, in the same transaction.

    Returns
    -------
    bool
        False if another worker did so first.

    Raises
    ------
    Overtaken
        If the study got other work since the decision.
    """
    stands = decision.stands if decision is not None else {}
    with db.write(effects.ROUTE_COMMIT) as session:
        locked = lock_revision(session, revision_id)
        if locked is None or locked[1].routed_at is not None:
            return False
        study, revision = locked
        if decision is not None and decision.known != known_work(session, revision.study_id):
            raise Overtaken(f"revision {revision_id}")
        now = now_of(session)
        revision.routed_at = now
        revision.reason = reason
        if decision is not None:
            revision.warnings = list(dict.fromkeys([*(revision.warnings or ()), *decision.warnings]))
            if decision.identity is not None:
                correct(session, study, decision.identity)
                end_deliveries(session, study.id, revision.number, str(Caution.IDENTITY_CORRECTED))
        if rejected is not None:
            apply(session, revision, rejected)
        failed = _failed_jobs(session, revision_id)
        for name in names:
            if name in stands and name not in failed and _let_stand(session, revision, stands[name], settings, actor):
                continue
            waits_for = None if name in serving else NoServingPackage.reason
            job = failed.pop(name, None) or Job(revision_id=revision_id, pipeline=name, created_at=now)
            job.reason, job.detail, job.error = waits_for, None, None
            move_job(session, job, JobState.WAITING, actor=actor, reason=waits_for, at=now)
            if take is not None and waits_for is None:
                take(session, job, revision)
                take = None
        for job in failed.values():
            job.reason, job.detail, job.error = reason or NO_PIPELINE, None, None
            move_job(session, job, JobState.REJECTED, actor=actor, reason=job.reason)
    if reason is not None:
        UNWANTED.labels(reason).inc()
    log.info(
        "routed to %s%s",
        ", ".join(name for name in names if name not in stands) or "nobody",
        f"; an earlier result stands for {', '.join(stands)}" if stands else "",
        extra={**revision.describe(), "reason": reason or next((s.reason for s in stands.values()), None)},
    )
    return True


def _let_stand(session: Session, revision: Revision, stands: StandingResult, settings: Settings, actor: str) -> bool:
    """Let an earlier result stand for a revision; False where its images are to be scored all the same."""
    if stands.reason == UNCHANGED:
        session.add(
            Standing(
                revision_id=revision.id,
                pipeline=session.get_one(Job, stands.job_id).pipeline,
                job_id=stands.job_id,
                reason=stands.reason,
                at=now_of(session),
            )
        )
        return True
    old = session.scalars(select(Job).where(Job.id == stands.job_id).with_for_update()).one()
    if JobState(old.state) not in CARRIED:
        return False
    carry(session, revision, old, settings, actor=actor)
    return True
