"""What a webhook or a mail says of a result. Patient data only where the destination is allowed to have it."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.pipelines import NOTICE, flags_by_itself, headline_of, meaning_of, names
from firstread.records import Delivery, Flag, Job, Result, Revision, Study
from firstread.report.words import measured
from firstread.states import JobState
from worker.pipelines.reasons import TEXTS, Caution

UNREAD = "not_read"
"""Event of a notice that a study failed for good, so that nobody and nothing has read it."""

UNREAD_TEXT = (
    "Firstread tried and failed: nobody and nothing has read this study. This says nothing of what is in it.",
    "Please have it read by a person.",
)
MOST_LINES = 200
"""Flags that a mail of many lists."""

REJECTIONS = (Caution.IDENTITY_IN_DOUBT, Caution.IMAGES_REJECTED)
"""Warnings that a mail tells in words: the result may be another patient's, or of images that were taken back."""


def flags_of(session: Session, delivery: Delivery) -> list[Flag]:
    """The standing flags of the study that the delivered run raised or confirmed."""
    job = session.get_one(Job, delivery.job_id)
    revision = session.get_one(Revision, job.revision_id)
    raised = select(Result.finding).where(
        Result.job_id == job.id, Result.run == delivery.run, Result.role != "shadow", Result.flagged
    )
    query = select(Flag).where(
        Flag.study_id == revision.study_id, Flag.pipeline == job.pipeline, Flag.finding.in_(raised)
    )
    return list(session.scalars(query))


def is_unread(job: Job, delivery: Delivery) -> bool:
    """Whether the run of a notice still stands failed, and nobody had it tried again."""
    return job.state == JobState.FAILED.value and job.run == delivery.run


def in_doubt(job: Job) -> bool:
    """Whether the images of a job may be another patient's."""
    return Caution.IDENTITY_IN_DOUBT in (job.warnings or ())


def message(session: Session, delivery: Delivery, *, patient_data: bool) -> dict[str, Any]:
    """The content of a notice, as plain values that JSON can hold."""
    job = session.get_one(Job, delivery.job_id)
    revision = session.get_one(Revision, job.revision_id)
    study = session.get_one(Study, revision.study_id)
    results = session.scalars(
        select(Result)
        .where(Result.job_id == job.id, Result.run == delivery.run, Result.role == "active")
        .order_by(Result.finding)
    ).all()
    flags = flags_of(session, delivery)
    content: dict[str, Any] = {
        "event": delivery.payload.get("event")
        or ("escalation" if delivery.escalation else "flag" if flags else "result"),
        "delivery": delivery.id,
        "escalation": delivery.escalation,
        "study_key": study.id,
        "study_instance_uid": study.study_instance_uid,
        "revision": revision.number,
        "pipeline": job.pipeline,
        "state": job.state,
        "reason": job.reason,
        "detail": job.detail,
        "warnings": list(job.warnings),
        "models": list(job.models),
        "findings": [_finding(row) for row in results],
        "flags": [_flag(flag) for flag in flags],
        "sent_at": utcnow().isoformat(),
        "notice": NOTICE,
    }
    if delivery.topic:
        content["event"] = delivery.topic
    if patient_data and not in_doubt(job):
        content["patient_id"] = study.patient_id
        content["accession_number"] = study.accession_number
    return content


def _finding(row: Result) -> dict[str, Any]:
    return {
        "finding": row.finding,
        "probability": row.probability,
        "value": row.value,
        "unit": row.unit,
        "threshold": row.threshold,
        "flagged": row.flagged,
        "model": f"{row.model_name}/{row.model_version}",
    }


def _flag(flag: Flag) -> dict[str, Any]:
    return {
        "finding": flag.finding,
        "probability": flag.probability,
        "threshold": flag.threshold,
        "series_instance_uid": flag.series_instance_uid,
        "key_sop_instance_uid": flag.key_sop_instance_uid,
        "volume_ml": flag.volume_ml,
        "flagged_at": flag.flagged_at.isoformat(),
        "acknowledged_at": flag.acknowledged_at.isoformat() if flag.acknowledged_at else None,
    }


def as_json(content: dict[str, Any]) -> bytes:
    """The bytes that are signed and sent."""
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def subject(content: dict[str, Any]) -> str:
    """Subject of a mail: no patient data, ever, since subjects are shown on lock screens."""
    if content["event"] == "summary":
        return f"Firstread: {count_of(content)} of old studies"
    if content["event"] == Caution.IDENTITY_IN_DOUBT:
        return f"Firstread: IDENTITY IN DOUBT, study {content['study_key']}"
    if content["event"] == UNREAD:
        number = f" (notice {content['escalation'] + 1})" if content["escalation"] else ""
        return f"Firstread: NOT READ ({content['pipeline']}), study {content['study_key']}{number}"
    if content["event"] == "result":
        return f"Firstread: {content['pipeline']} {content['state']}, study {content['study_key']}"
    again = f" (notice {content['escalation'] + 1}, not acknowledged)" if content["escalation"] else ""
    return f"Firstread: {headline_of(content['pipeline'])}, study {content['study_key']}{again}"


def mail_text(content: dict[str, Any]) -> str:
    """Body of a mail, for a person in a hurry."""
    if content["event"] == "summary":
        return summary_text(content)
    lines = [subject(content), ""]
    if content["event"] == UNREAD:
        lines += [*UNREAD_TEXT, f"Reason: {content['reason'] or 'unknown'}"]
    if content["detail"] and content["state"] != "FAILED":
        lines += [content["detail"], ""]
    for finding in content["findings"]:
        if finding["probability"] is not None:
            flags = finding["flagged"] or flags_by_itself(content["pipeline"], finding["finding"])
            limit = f", threshold {finding['threshold']:.2f}" if flags and finding["threshold"] is not None else ""
            mark = "  FLAGGED" if finding["flagged"] else ""
            lines.append(f"{meaning_of(finding['finding'])}: {finding['probability']:.2f}{limit}{mark}")
        elif finding["value"] is not None:
            lines.append(f"{meaning_of(finding['finding'])}: {measured(finding['value'], finding['unit'])}")
    lines += [TEXTS[code] for code in REJECTIONS if code in content["warnings"]]
    if content["warnings"]:
        lines.append(f"Warnings: {', '.join(content['warnings'])}")
    lines += ["", f"StudyInstanceUID: {content['study_instance_uid']}", f"Revision: {content['revision']}"]
    if "patient_id" in content:
        lines.append(f"Patient ID: {content['patient_id'] or '-'}")
        lines.append(f"Accession number: {content['accession_number'] or '-'}")
    if content["event"] == UNREAD:
        uid = content["study_instance_uid"]
        read = f"A person has read it: firstread verdict {uid} --pipeline {content['pipeline']} --truth 0 (or 1)"
        return "\n".join([*lines, "", read, f"Try again: firstread retry {uid}", ""])
    command = acknowledge_command(content["study_instance_uid"], content["pipeline"])
    lines += ["", f"Acknowledge: {command}", "", NOTICE, ""]
    return "\n".join(lines)


def acknowledge_command(uid: str, pipeline: str) -> str:
    """What a person types to acknowledge a flag."""
    return f"firstread flags ack {uid}" + ("" if pipeline == names()[0] else f" --pipeline {pipeline}")


def count_of(content: dict[str, Any]) -> str:
    """How many flags a summary tells of, and how many studies that nobody read, in words."""
    flags = "1 flag" if content["count"] == 1 else f"{content['count']} flags"
    return f"{flags} and {len(content['not_read'])} not read" if content["not_read"] else flags


def summary_text(content: dict[str, Any]) -> str:
    """Body of a mail about flags of old studies."""
    lines = [
        subject(content),
        "",
        "These studies were made long before they came, so nobody is called. Each flag stands until somebody",
        "acknowledges it.",
        "",
    ]
    for flag in content["flags"][:MOST_LINES]:
        made = f"made {flag['made_at'][:10]}, " if flag["made_at"] else ""
        lines.append(
            f"study {flag['study_key']}, {made}{headline_of(flag['pipeline'])}: "
            f"{meaning_of(flag['finding'])} {flag['probability']:.2f}, threshold {flag['threshold']:.2f}"
        )
        if "patient_id" in flag:
            lines.append(f"    patient ID {flag['patient_id'] or '-'}, accession {flag['accession_number'] or '-'}")
        lines.append(f"    {acknowledge_command(flag['study_instance_uid'], flag['pipeline'])}")
    for study in content["not_read"][:MOST_LINES]:
        lines.append(f"study {study['study_key']}: NOT READ ({study['pipeline']}), {study['reason'] or 'unknown'}")
        lines.append(f"    firstread retry {study['study_instance_uid']}")
    if content["count"] > MOST_LINES:
        lines.append(f"and {content['count'] - MOST_LINES} more: firstread flags --open")
    return "\n".join([*lines, "", NOTICE, ""])
