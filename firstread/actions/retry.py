"""What a person asks for: a study is scored again, or no longer waits."""

from __future__ import annotations

import logging

import redis
from kombu.exceptions import KombuError
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.priority import on_broker
from firstread.queue import make_app, ring
from firstread.records import Database, Job, Revision, Standing, Study, asked_for
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.states import ROUTING_FAILED, TERMINAL, JobState, RevisionState, move_job

log = logging.getLogger(__name__)


def retry_study(
    db: Database, settings: Settings, study_uid: str, pipeline: str | None, by: str, priority: int | None = None
) -> list[str]:
    """Let the newest closed revision of a study be scored again, with its attempts counted from zero.

    What was committed stays visible until the new run commits; flags and acknowledgements stay for good. A revision
    that no pipeline wanted, or that could not be routed, is routed again.

    Parameters
    ----------
    pipeline : str or None
        Only this pipeline's job.
    by : str
        Who asks; stored with the transition.
    priority : int or None
        Of the study from now on, whatever the rules say; a study that waits already is moved too.

    Returns
    -------
    list of str
        Pipelines that wait again; ``routing`` for a revision that will be routed again.
    """
    with db.write(effects.RETRY_COMMIT) as session:
        revision = _newest_closed(session, study_uid)
        if revision is None:
            return []
        revision.forced_pipeline = asked_for(session, revision.study_id) or revision.forced_pipeline
        names = []
        jobs = _jobs(session, revision, pipeline)
        unrouted = revision.reason == ROUTING_FAILED or (not jobs and pipeline is None)
        for job in jobs:
            if JobState(job.state) in TERMINAL and not unrouted:
                job.attempts = 0
                job.reason = job.detail = job.error = None
                job.lease_owner = job.lease_until = None
                move_job(session, job, JobState.WAITING, actor=by, reason="retry")
                names.append(job.pipeline)
        if unrouted and revision.routed_at is not None:
            revision.routed_at = None
            revision.reason = None
            names.append("routing")
        if names:
            revision.published_at = None
        study = session.get_one(Study, revision.study_id)
        if priority is not None:
            study.priority = priority
        bell = (revision.id, revision.study_id, revision.number)
        urgency = study.priority if study.priority is not None else on_broker(revision.priority, revision.old)
    if names or priority is not None:
        _ring_doorbell(settings, *bell, urgency)
    return names


def end_waiting(db: Database, study_uid: str, pipeline: str | None, by: str) -> list[str]:
    """End jobs that wait (for a package that never comes, say) as ``FAILED``. Returns their pipelines."""
    with db.write(effects.RETRY_COMMIT) as session:
        revision = _newest_closed(session, study_uid)
        names = []
        for job in _jobs(session, revision, pipeline) if revision else []:
            if job.state == JobState.WAITING.value:
                job.finished_at = now_of(session)
                job.reason = "ended_by_hand"
                move_job(session, job, JobState.FAILED, actor=by, reason=job.reason)
                names.append(job.pipeline)
        return names


def _newest_closed(session: Session, study_uid: str) -> Revision | None:
    """The newest closed revision of a study, locked after its study."""
    study = session.scalar(select(Study).where(Study.study_instance_uid == study_uid).with_for_update())
    if study is None:
        return None
    return session.scalar(
        select(Revision)
        .where(Revision.study_id == study.id, Revision.state == RevisionState.CLOSED.value)
        .order_by(Revision.number.desc())
        .limit(1)
        .with_for_update()
    )


def _jobs(session: Session, revision: Revision, pipeline: str | None) -> list[Job]:
    """The revision's jobs, and those of earlier ones whose results stand for it."""
    standing = select(Standing.job_id).where(Standing.revision_id == revision.id)
    query = (
        select(Job)
        .where(or_(Job.revision_id == revision.id, Job.id.in_(standing)))
        .order_by(Job.pipeline)
        .with_for_update()
    )
    if pipeline is not None:
        query = query.where(Job.pipeline == pipeline)
    return list(session.scalars(query))


def _ring_doorbell(settings: Settings, revision_id: int, study_id: int, number: int, priority: int) -> None:
    app = make_app(settings)
    try:
        ring(app, effects.RETRY_PUBLISH, revision_id=revision_id, study_key=study_id, number=number, priority=priority)
    except (KombuError, redis.RedisError, OSError) as error:
        log.warning("doorbell not rung; the sweeper will", extra={"reason": type(error).__name__})
    finally:
        app.close()
