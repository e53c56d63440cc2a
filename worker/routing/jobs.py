"""Which pipelines a revision is the business of, and writing their jobs."""

from __future__ import annotations

import logging
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.records import Database, Job, Revision, Standing, senders_of
from firstread.records import Study as StudyRow
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.states import JobState, move_job
from worker.errors import NoServingPackage
from worker.metrics import UNWANTED
from worker.pipelines import registry
from worker.pipelines.base import Study
from worker.pipelines.reasons import Caution
from worker.pipelines.registry import Orders
from worker.routing.earlier_results import UNCHANGED, RoutingDecision, StandingResult, known_work
from worker.routing.identity import CARRIED, carry, correct, end_deliveries
from worker.routing.rejections import Rejected, apply

NO_PIPELINE = "no_pipeline"
UNKNOWN_PIPELINE = "unknown_pipeline"
ROUTING_FAILED = "routing_failed"

log = logging.getLogger(__name__)


class Overtaken(Exception):
    """Other work of the study was written while a revision was looked at: what stands is to be decided anew."""


def orders_of(session: Session, settings: Settings, revision: Revision) -> Orders:
    """Which pipelines people asked for: by the inbox folder, for the study's senders, or for every study."""
    sender: frozenset[str] = frozenset()
    if settings.force_pipelines_by_calling_ae:
        study_uid = session.get_one(StudyRow, revision.study_id).study_instance_uid
        sender = settings.forced_for(senders_of(session, study_uid))
    return Orders(revision.forced_pipeline, sender, frozenset(settings.force_pipelines))


def wanted_by(study: Study, orders: Orders) -> tuple[list[str], str | None]:
    """Names of the pipelines whose business a study is, or the reason why there is none."""
    names = [row.name for row in registry.REGISTRY if row.wants(study, orders)]
    if names:
        return names, None
    known = {row.name for row in registry.REGISTRY}
    if orders.folder is not None and orders.folder not in known:
        return [], UNKNOWN_PIPELINE
    return [], NO_PIPELINE


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
) -> bool:
    """Write the jobs of a revision, once; a pipeline whose earlier result stands gets none.

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
    with db.write() as session:
        revision = session.scalar(select(Revision).where(Revision.id == revision_id).with_for_update())
        if revision is None or revision.routed_at is not None:
            return False
        study = session.scalars(select(StudyRow).where(StudyRow.id == revision.study_id).with_for_update()).one()
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
        for name in names:
            if name in stands and _stands(session, revision, stands[name], settings, actor):
                continue
            waits_for = None if name in serving else NoServingPackage.reason
            job = Job(revision_id=revision_id, pipeline=name, created_at=now, reason=waits_for)
            move_job(session, job, JobState.WAITING, actor=actor, reason=waits_for)
    if reason is not None:
        UNWANTED.labels(reason).inc()
    log.info(
        "routed to %s%s",
        ", ".join(name for name in names if name not in stands) or "nobody",
        f"; an earlier result stands for {', '.join(stands)}" if stands else "",
        extra={**revision.describe(), "reason": reason or next((s.reason for s in stands.values()), None)},
    )
    return True


def _stands(session: Session, revision: Revision, stands: StandingResult, settings: Settings, actor: str) -> bool:
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
