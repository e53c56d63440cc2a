"""Which deliveries a committed run of a job asks for: rows in the very transaction that commits the results."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, object_session

from firstread.records import Delivery, Job, Result, Revision, Study
from firstread.records.clock import now_of
from firstread.selftest import is_self_test
from firstread.settings import Settings
from firstread.states import DeliveryState, JobState
from worker.outputs.destinations import (
    OBJECT_KINDS,
    DestinationsFile,
    EmailDestination,
    Rule,
    WebhookDestination,
)
from worker.outputs.holding import hold_until, supersede
from worker.outputs.messages import UNREAD, flags_of
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
    revision = session.get_one(Revision, job.revision_id)
    if not file.destination or is_self_test(session, revision.study_id):
        return []
    if job.state == JobState.FAILED.value:
        return _plan_unread(session, job, revision, file)
    findings = [f for f in outcome.findings if f.role == "active"] if outcome is not None else []
    flags = outcome is not None and any(f.flagged and f.role != "shadow" for f in outcome.findings)
    if settings.deliver_after_s and job.state == JobState.DONE.value:
        supersede(session, job)
    told = [d for d in file.destination if d.name not in file.escalated and matches(d.when, job, findings)]
    old = only_old(session, job, findings)
    if old:
        told += first_of_lists(file, job, findings)
    rows = []
    for destination in told:
        once = isinstance(destination, EmailDestination) and not destination.repeat
        if once and _told_before(session, job, destination.name, flags=flags):
            continue
        in_summary = old and isinstance(destination, WebhookDestination | EmailDestination)
        rows.append(new_delivery(job, destination.name, destination.kind, summary=in_summary))
    session.add_all(rows)
    if settings.deliver_after_s and not flags:
        held = hold_until(session, job, settings)
        for row in rows:
            row.next_at = held
    return rows


def _plan_unread(session: Session, job: Job, revision: Revision, file: DestinationsFile) -> list[Delivery]:
    """Nobody read this study: whoever is told of a flag of the pipeline is told so, whatever the flag would have been.

    An escalation list has it at its first address. Where the study is an old one, the next summary tells of it.
    """
    old = revision.old and session.get_one(Study, revision.study_id).priority is None
    first = first_of_lists(file, job)
    rows = []
    for destination in file.destination:
        tells = isinstance(destination, WebhookDestination | EmailDestination)
        if destination.name in file.escalated:
            told = tells and destination in first
        else:
            told = matches(destination.when, job, []) or (tells and _tells_flags(destination.when, job))
        if told:
            row = new_delivery(job, destination.name, destination.kind, summary=old and tells)
            row.payload = {"event": UNREAD}
            rows.append(row)
    session.add_all(rows)
    return rows


def plan_objects(session: Session, job: Job, results: Sequence[Result], settings: Settings) -> list[Delivery]:
    """Add a row for each destination of objects whose rule a carried result meets; nobody else is told again."""
    file = watch_of(settings).current()
    findings = [
        Finding(
            name=row.finding,
            model_name=row.model_name,
            model_version=row.model_version,
            probability=row.probability,
            value=row.value,
            threshold=row.threshold,
            flagged=row.flagged,
        )
        for row in results
        if row.role == "active"
    ]
    rows = [
        new_delivery(job, destination.name, destination.kind)
        for destination in file.destination
        if destination.kind in OBJECT_KINDS
        and destination.name not in file.escalated
        and matches(destination.when, job, findings)
    ]
    if settings.deliver_after_s and not any(f.flagged for f in findings):
        held = hold_until(session, job, settings)
        for row in rows:
            row.next_at = held
    session.add_all(rows)
    return rows


def _tells_flags(rule: Rule, job: Job) -> bool:
    return JobState.DONE.value in rule.states and (not rule.pipelines or job.pipeline in rule.pipelines)


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
        state=DeliveryState.PENDING,
        next_at=now + QUIET if summary else now,
        last_status="waits for the next summary" if summary else None,
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


def _told_before(session: Session, job: Job, name: str, *, flags: bool) -> bool:
    """Whether this mailbox has, or is about to get, a mail about a result of the study's pipeline.

    A flag is only told by a mail about a flag: neither "not read" nor a result that did not flag stands for it.
    """
    study_id = select(Revision.study_id).where(Revision.id == job.revision_id).scalar_subquery()
    query = (
        select(Delivery)
        .join(Job, Job.id == Delivery.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(
            Revision.study_id == study_id,
            Job.pipeline == job.pipeline,
            Delivery.destination == name,
            Delivery.state.in_((DeliveryState.PENDING, DeliveryState.DELIVERED)),
            Delivery.topic == "",
        )
    )
    results = [row for row in session.scalars(query) if row.payload.get("event") != UNREAD]
    return any(flags_of(session, row) for row in results) if flags else bool(results)
