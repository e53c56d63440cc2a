"""Which deliveries a committed run of a job asks for: rows in the very transaction that commits the results."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, object_session

from firstread.records import Delivery, Job, Revision
from firstread.records.clock import now_of
from firstread.selftest import is_self_test
from firstread.settings import Settings
from worker.outputs.destinations import EmailDestination, Rule, WebhookDestination
from worker.outputs.states import PENDING
from worker.outputs.summaries import QUIET, first_of_lists, only_old
from worker.outputs.watching import watch_of
from worker.pipelines.base import Finding, Outcome


def plan(session: Session, job: Job, outcome: Outcome | None, settings: Settings) -> list[Delivery]:
    """Add a row for each destination whose rule the run meets. Never raises for a file that is wrong.

    Parameters
    ----------
    session : Session
        The session that commits the results.
    job : Job
        With its new ``run`` and ``state``.
    outcome : Outcome or None
        None for a rejected or failed job.
    """
    file = watch_of(settings).current()
    if not file.destination or is_self_test(session, session.get_one(Revision, job.revision_id).study_id):
        return []
    findings = [f for f in outcome.findings if f.role == "active"] if outcome is not None else []
    told = [d for d in file.destination if d.name not in file.escalated and matches(d.when, job, findings)]
    old = only_old(session, job, findings)
    if old:
        told += first_of_lists(file, job, findings)
    rows = []
    for destination in told:
        once = isinstance(destination, EmailDestination) and not destination.repeat
        if once and _told_before(session, job, destination.name):
            continue
        in_summary = old and isinstance(destination, WebhookDestination | EmailDestination)
        rows.append(new_delivery(job, destination.name, destination.kind, summary=in_summary))
    session.add_all(rows)
    return rows


def new_delivery(job: Job, name: str, kind: str, escalation: int = 0, *, summary: bool = False) -> Delivery:
    """A row that is due at once, or with the next summary of its destination."""
    session = object_session(job)
    assert session is not None, "a job that is in no session has no deliveries"
    now = now_of(session)
    return Delivery(
        job_id=job.id,
        run=job.run,
        kind=kind,
        destination=name,
        escalation=escalation,
        summary=summary,
        state=PENDING,
        next_at=now + QUIET if summary else now,
        created_at=now,
    )


def matches(rule: Rule, job: Job, findings: list[Finding]) -> bool:
    """Whether a run meets a rule."""
    if job.state not in rule.states or (rule.pipelines and job.pipeline not in rule.pipelines):
        return False
    if rule.flagged and not any(f.flagged for f in findings):
        return False
    return not rule.findings or any(f.name in rule.findings and is_positive(f) for f in findings)


def is_positive(finding: Finding) -> bool:
    """Flagged, or at its threshold."""
    if finding.flagged:
        return True
    return (
        finding.probability is not None and finding.threshold is not None and finding.probability >= finding.threshold
    )


def _told_before(session: Session, job: Job, name: str) -> bool:
    """Whether this mailbox has, or is about to get, a mail about the study's pipeline."""
    study_id = select(Revision.study_id).where(Revision.id == job.revision_id).scalar_subquery()
    query = (
        select(Delivery.id)
        .join(Job, Job.id == Delivery.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(
            Revision.study_id == study_id,
            Job.pipeline == job.pipeline,
            Delivery.destination == name,
            Delivery.state.in_(("PENDING", "DELIVERED")),
        )
        .limit(1)
    )
    return session.scalar(query) is not None
