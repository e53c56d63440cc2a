"""Which deliveries a committed run of a job asks for: rows in the same transaction as the results."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.records import Delivery, Flag, Job, Result, Revision, Study
from firstread.records.studies import is_self_test
from firstread.settings import Settings
from firstread.states import DeliveryState, JobState
from worker.outputs.deliveries.holding import hold_until, is_held, supersede
from worker.outputs.deliveries.rows import new_delivery
from worker.outputs.destinations.file import (
    IDENTIFIED_KINDS,
    DeliveryRule,
    Destination,
    DestinationsFile,
    EmailDestination,
    Escalation,
    WebhookDestination,
)
from worker.outputs.destinations.watch import watch_of
from worker.outputs.messages import UNREAD, flags_of
from worker.pipelines.base import Finding, Outcome


def plan_deliveries(session: Session, job: Job, outcome: Outcome | None, settings: Settings) -> list[Delivery]:
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
    if job.state == JobState.DONE.value:
        supersede(session, job)
    destinations = [d for d in file.destination if d.name not in file.escalated and matches(d.when, job, findings)]
    old = _only_old(session, job, findings)
    if old:
        destinations += _first_addresses(file, job, findings)
    rows = []
    for destination in destinations:
        once = isinstance(destination, EmailDestination) and not destination.repeat
        if once and _has_mail(session, job, destination.name, flags=flags):
            continue
        in_summary = old and isinstance(destination, WebhookDestination | EmailDestination)
        rows.append(new_delivery(job, destination.name, destination.kind, summary=in_summary))
    session.add_all(rows)
    if not flags:
        _hold_back(session, job, rows, settings)
    return rows


def _plan_unread(session: Session, job: Job, revision: Revision, file: DestinationsFile) -> list[Delivery]:
    """Nobody read this study: whoever gets flags of the pipeline gets a notice, whatever the flag would have been.

    Of an escalation list the first address gets it. Notices of an old study go with the next summary.
    """
    old = revision.old and session.get_one(Study, revision.study_id).priority is None
    first = _first_addresses(file, job)
    rows = []
    for destination in file.destination:
        notifies = isinstance(destination, WebhookDestination | EmailDestination)
        if destination.name in file.escalated:
            wanted = notifies and destination in first
        else:
            wanted = matches(destination.when, job, []) or (notifies and _may_get_flags(destination.when, job))
        if wanted:
            row = new_delivery(job, destination.name, destination.kind, summary=old and notifies)
            row.payload = {"event": UNREAD}
            rows.append(row)
    session.add_all(rows)
    return rows


def plan_objects(session: Session, job: Job, results: Sequence[Result], settings: Settings) -> list[Delivery]:
    """Add a row for each destination of objects whose rule a carried result meets; nothing else is sent again."""
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
        if destination.kind in IDENTIFIED_KINDS
        and destination.name not in file.escalated
        and matches(destination.when, job, findings)
    ]
    if not any(f.flagged for f in findings):
        _hold_back(session, job, rows, settings)
    session.add_all(rows)
    return rows


def _only_old(session: Session, job: Job, findings: Sequence[Finding]) -> bool:
    """Whether a run raised or confirmed flags, all of them of old studies."""
    names = [f.name for f in findings if f.flagged]
    if not names:
        return False
    study_id = select(Revision.study_id).where(Revision.id == job.revision_id).scalar_subquery()
    query = select(Flag.old).where(Flag.study_id == study_id, Flag.pipeline == job.pipeline, Flag.finding.in_(names))
    old = list(session.scalars(query))
    return bool(old) and all(old)


def _first_addresses(file: DestinationsFile, job: Job, findings: Sequence[Finding] | None = None) -> list[Destination]:
    """The first address of every escalation list that a flag belongs to; a summary goes to no later one.

    Without findings: that of every list of the pipeline.
    """
    flagged = {f.name for f in findings or () if f.flagged}

    def concerns(escalation: Escalation) -> bool:
        if escalation.pipelines and job.pipeline not in escalation.pipelines:
            return False
        return findings is None or not escalation.findings or bool(flagged & set(escalation.findings))

    named = [file.named(escalation.destinations[0]) for escalation in file.escalation if concerns(escalation)]
    return [destination for destination in named if destination is not None]


def _may_get_flags(rule: DeliveryRule, job: Job) -> bool:
    return JobState.DONE.value in rule.states and (not rule.pipelines or job.pipeline in rule.pipelines)


def _hold_back(session: Session, job: Job, rows: list[Delivery], settings: Settings) -> None:
    """Postpone the rows of a result that does not flag until the study is quiet."""
    if is_held(session, job, settings):
        held_until = hold_until(session, job, settings)
        for row in rows:
            row.next_at = held_until


def matches(rule: DeliveryRule, job: Job, findings: list[Finding]) -> bool:
    """Whether a run meets a rule."""
    if job.state not in rule.states or (rule.pipelines and job.pipeline not in rule.pipelines):
        return False
    if rule.flagged and not any(f.flagged for f in findings):
        return False
    return not rule.findings or any(f.name in rule.findings and is_positive(f) for f in findings)


def is_positive(finding: Finding) -> bool:
    """Flagged, or at its threshold; a finding without one is neither positive nor negative."""
    if finding.flagged:
        return True
    return (
        finding.probability is not None and finding.threshold is not None and finding.probability >= finding.threshold
    )


def _has_mail(session: Session, job: Job, name: str, *, flags: bool) -> bool:
    """Whether this mailbox has, or is about to get, a mail about a result of the study's pipeline.

    Only a mail about a flag counts as one for a flag: neither "not read" nor a result that did not flag does.
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
