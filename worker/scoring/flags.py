"""Flags of a study: raised with the results that raise them, brought up to date by later ones, never withdrawn."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.pipelines import is_volume
from firstread.records import Flag, Instance, Job, Revision
from worker.pipelines.base import Finding, Outcome
from worker.pipelines.reasons import Caution


def flagged_findings(outcome: Outcome) -> list[Finding]:
    """The findings that raise a flag, one a name: the active model's before a member's, then the most probable."""
    best: dict[str, Finding] = {}
    for finding in outcome.findings:
        if not finding.flagged or finding.role == "shadow" or finding.probability is None:
            continue
        known = best.get(finding.name)
        if known is None or _rank(finding) > _rank(known):
            best[finding.name] = finding
    return list(best.values())


def _rank(finding: Finding) -> tuple[bool, float]:
    return finding.role == "active", finding.probability or 0.0


def raise_flags(session: Session, job: Job, revision: Revision, outcome: Outcome, old: bool) -> None:
    """Flags are monotone: a run adds a flag or brings its evidence up to date, and never withdraws one.

    What belongs to people (first time of flagging, notification, acknowledgement) is never touched again. Evidence of
    a later revision is not replaced by that of an earlier one that happens to finish later. A flag that was raised of
    a fresh study stays that of a fresh one.
    """
    key_uid = None
    if outcome.evidence.key_instance is not None:
        key_uid = session.scalar(select(Instance.sop_instance_uid).where(Instance.id == outcome.evidence.key_instance))
    volume_ml = next((f.value for f in outcome.findings if is_volume(f.name) and f.role == "active"), None)
    for finding in flagged_findings(outcome):
        flag = session.scalar(
            select(Flag)
            .where(Flag.study_id == revision.study_id, Flag.pipeline == job.pipeline, Flag.finding == finding.name)
            .with_for_update()
        )
        if flag is None:
            flag = Flag(
                study_id=revision.study_id,
                pipeline=job.pipeline,
                finding=finding.name,
                flagged_at=job.finished_at,
                old=old,
            )
            session.add(flag)
        elif _revision_number(session, flag.job_id) > revision.number:
            continue
        assert finding.probability is not None and finding.threshold is not None
        flag.job_id = job.id
        flag.probability = finding.probability
        flag.threshold = finding.threshold
        flag.model_name = finding.model_name
        flag.model_version = finding.model_version
        flag.series_instance_uid = job.series_instance_uid
        flag.key_sop_instance_uid = key_uid
        flag.volume_ml = volume_ml
        flag.evidence_path = job.evidence_path
        flag.old = flag.old and old
        flag.warnings = [code for code in job.warnings if flag.old or code != Caution.OLD_STUDY]


def _revision_number(session: Session, job_id: int) -> int:
    number = session.scalar(select(Revision.number).join(Job, Job.revision_id == Revision.id).where(Job.id == job_id))
    return number or 0
