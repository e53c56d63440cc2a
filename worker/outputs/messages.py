"""What a webhook or a mail says of a result, as plain values; the words of a mail are in ``senders/mail.py``.

Patient data only where the destination is allowed to have it.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.pipelines import NOTICE
from firstread.records import Delivery, Flag, Job, Result, Revision, Study
from firstread.report.predictive_value import PredictiveValue
from firstread.states import JobState
from worker.pipelines.reasons import Caution

UNREAD = "not_read"
"""Event of a notice that a study failed for good, so that nobody and nothing has read it."""


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
    """Whether the job of a notice is still failed, and was not tried again since."""
    return job.state == JobState.FAILED and job.run == delivery.run


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
    event = "escalation" if delivery.escalation else "flag" if flags else "result"
    content: dict[str, Any] = {
        "event": delivery.topic or delivery.payload.get("event") or event,
        "delivery": delivery.id,
        "escalation": delivery.escalation,
        "study_key": study.id,
        "study_instance_uid": study.study_instance_uid,
        "revision": revision.number,
        "pipeline": job.pipeline,
        "state": job.state,
        "reason": job.reason,
        "detail": job.error if job.detail is None else job.detail,
        "warnings": list(job.warnings),
        "models": list(job.models),
        "findings": [_finding(row) for row in results],
        "flags": [_flag(flag) for flag in flags],
        "predictive_value": predictive_value(job),
        "sent_at": utcnow().isoformat(),
        "notice": NOTICE,
    }
    if patient_data and not in_doubt(job):
        content["patient_id"] = study.patient_id
        content["accession_number"] = study.accession_number
    return content


def predictive_value(job: Job) -> dict[str, Any] | None:
    """How often such a flag is right, as numbers and in words; None where the job flags nothing, or nothing says so."""
    value = PredictiveValue.of(job.pipeline, job.statistics)
    return None if value is None else value.as_dict()


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
        "flag": flag.id,
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
