"""Results into the database: scores, flags, warnings and state in one transaction, behind a fence.

The fence: the job must still be ours. A worker whose lease was taken writes nothing at all. A run that was committed
is the job's ``run``; a retry counts one up and hides nothing until it commits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.pipelines import pipeline_of_finding
from firstread.records import Database, Job, Result, Revision, judged_flags, lock_study_of_job
from firstread.records.clock import now_of
from firstread.records.slice_scores import insert_slice_scores
from firstread.records.studies import is_self_test
from firstread.report.predictive_value import PredictiveValue
from firstread.settings import Settings
from firstread.states import JobState, move_job
from worker.errors import LeaseLost
from worker.outputs.deliveries.planning import plan_deliveries
from worker.pipelines.base import Outcome, SeriesNote
from worker.pipelines.finite import check_outcome
from worker.pipelines.reasons import Caution, merge_codes
from worker.routing.jobs import fail_job
from worker.scoring.flags import raise_flags


@dataclass
class Report:
    """What one run of a pipeline gave: an outcome, or the reasons why nothing is suitable.

    Exactly one of ``outcome`` and ``reasons`` is set. ``models`` are the packages that served (``name/version``),
    ``engines`` what ran each of them.
    """

    outcome: Outcome | None = None
    reasons: tuple[str, ...] = ()
    detail: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[SeriesNote, ...] = ()
    statistics: dict[str, float] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    engines: Mapping[str, str] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)


def commit_outcome(
    db: Database, settings: Settings, *, job_id: int, owner: str, report: Report, evidence_path: str | None
) -> JobState:
    """Commit one run of a job: everything, or nothing.

    Raises
    ------
    LeaseLost
        If the job is no longer ours.
    NonFiniteScore
        If a model gave NaN or Inf.
    """
    if report.outcome is not None:
        check_outcome(report.outcome)
    value = _predictive_value(db, report.outcome)
    with db.write(effects.RESULT_COMMIT) as session:
        # A study is locked before its jobs, here as everywhere: flags belong to it, so two of its jobs commit one
        # after the other, and what was said of its images meanwhile is read behind the lock.
        study = lock_study_of_job(session, job_id)
        job, revision = own_job(session, job_id, owner)
        old = revision.old and (study is None or study.priority is None)
        outcome = report.outcome
        if outcome is not None and is_self_test(session, revision.study_id):
            outcome, value = replace(outcome, findings=[replace(f, flagged=False) for f in outcome.findings]), None
        job.series_notes = [_note(note) for note in report.notes]
        job.stage_seconds = {name: round(seconds, 4) for name, seconds in report.stage_seconds.items()}
        job.models = list(report.models)
        job.warnings = merge_codes(
            revision.warnings,
            report.warnings,
            outcome.warnings if outcome else (),
            [Caution.OLD_STUDY] if old else (),
            [Caution.FEW_FLAGS_RIGHT] if value is not None and value.is_low else (),
        )
        numbers = value.numbers() if value is not None else {}
        job.statistics = _finite({**report.statistics, **(outcome.statistics if outcome else {}), **numbers})
        job.run += 1
        job.detail = report.detail or None
        job.next_step = (outcome.next_step if outcome else "") or None
        job.finished_at = now = now_of(session)
        job.lease_owner = job.lease_until = None
        if outcome is None:
            job.reason = ", ".join(report.reasons) or "nothing_suitable"
            job.series_instance_uid = None
            job.evidence_path = None
            state = JobState.REJECTED
        else:
            job.reason = None
            job.series_instance_uid = outcome.SeriesInstanceUID
            job.evidence_path = evidence_path
            _add_results(session, job, outcome, report.engines)
            raise_flags(session, job, revision, outcome, old)
            state = JobState.DONE
        move_job(session, job, state, actor=owner, reason=job.reason, at=now)
        session.flush()
        plan_deliveries(session, job, outcome, settings)
    return state


def _predictive_value(db: Database, outcome: Outcome | None) -> PredictiveValue | None:
    """How often such a flag is right, with what people have said of this model's flags here; None without a flag."""
    if outcome is None or outcome.predictive_value is None:
        return None
    value = outcome.predictive_value
    flag = next((f for f in outcome.findings if f.flagged and f.role == "active" and f.name == value.finding), None)
    if flag is None:
        return None
    with db.read() as session:
        pipeline = pipeline_of_finding(flag.name) or ""
        return value.judged_here(*judged_flags(session, pipeline, flag.name, flag.model_name, flag.model_version))


def own_job(session: Session, job_id: int, owner: str) -> tuple[Job, Revision]:
    """The job and its revision, locked. Raises :class:`LeaseLost` unless ``owner`` is scoring it."""
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None or job.lease_owner != owner or job.state != JobState.SCORING.value:
        raise LeaseLost(f"job {job_id}")
    return job, session.get_one(Revision, job.revision_id)


def _note(note: SeriesNote) -> dict[str, Any]:
    return {
        "SeriesInstanceUID": note.SeriesInstanceUID,
        "chosen": note.chosen,
        "reasons": list(note.reasons),
        "n_instances": note.n_instances,
    }


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def engine_of(name: str, version: str, engines: Mapping[str, str]) -> str | None:
    """What ran a package, or the packages of an ensemble (``a+b``, ``1+2``): each engine once, joined by ``+``."""
    keys = (f"{n}/{v}" for n, v in zip(name.split("+"), version.split("+"), strict=False))
    return "+".join(dict.fromkeys(engines[key] for key in keys if key in engines)) or None


def _add_results(session: Session, job: Job, outcome: Outcome, engines: Mapping[str, str]) -> None:
    now = job.finished_at or now_of(session)
    for finding in outcome.findings:
        session.add(
            Result(
                job_id=job.id,
                run=job.run,
                model_name=finding.model_name,
                model_version=finding.model_version,
                role=finding.role,
                finding=finding.name,
                probability=finding.probability,
                value=finding.value,
                unit=finding.unit,
                threshold=finding.threshold,
                flagged=finding.flagged and finding.role != "shadow",
                engine=engine_of(finding.model_name, finding.model_version, engines),
                created_at=now,
            )
        )
    rows = [
        {
            "job_id": job.id,
            "run": job.run,
            "instance_id": score.instance_key,
            "frame": score.frame,
            "instance_number": score.instance_number,
            "model_name": score.model_name,
            "model_version": score.model_version,
            "role": score.role,
            "finding": score.finding,
            "probability": float(score.probability),
        }
        for score in outcome.slice_scores
    ]
    insert_slice_scores(session, rows)


def commit_failure(
    db: Database, *, job_id: int, owner: str, reason: str, error: str, settings: Settings, refund: bool = False
) -> JobState:
    """End an attempt without results: back to ``WAITING``, or ``FAILED`` where the attempts are used up.

    Parameters
    ----------
    error : str
        Class and place of the error, without patient data.
    refund : bool
        The attempt does not count: the fault is not the study's.

    Raises
    ------
    LeaseLost
        If the job is no longer ours.
    """
    with db.write(effects.FAILURE_COMMIT) as session:
        lock_study_of_job(session, job_id)
        job, revision = own_job(session, job_id, owner)
        return end_attempt(
            session, job, revision, actor=owner, reason=reason, error=error, settings=settings, refund=refund
        )


def end_attempt(
    session: Session,
    job: Job,
    revision: Revision,
    *,
    actor: str,
    reason: str,
    error: str | None,
    settings: Settings,
    refund: bool = False,
) -> JobState:
    """Take a ``SCORING`` job from whoever had it; see :func:`commit_failure`. The doorbell is rung by the sweeper.

    The job is locked, and its study before it.
    """
    job.lease_owner = job.lease_until = None
    job.reason = reason
    job.error = error
    if refund:
        job.attempts = max(0, job.attempts - 1)
    if job.attempts >= settings.max_attempts:
        fail_job(session, job, actor=actor, reason=reason, settings=settings)
        return JobState.FAILED
    if reason != "no_serving_package":
        revision.published_at = None
    move_job(session, job, JobState.WAITING, actor=actor, reason=reason)
    return JobState.WAITING
