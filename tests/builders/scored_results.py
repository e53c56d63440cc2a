"""Results of a job without a database, as messages to a RIS are made of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from firstread.records import Delivery, Job, Result
from worker.outputs.hl7.order import Order, names_of
from worker.outputs.hl7.scored_result import ScoredResult

AT = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
SELDOM = {"flags_right_by_card": 0.03, "flags_right_prevalence": 0.027}


def order_of(**changes: Any) -> Order:
    values: dict[str, Any] = {
        "patient_id": "7",
        "issuer": "",
        "names": names_of("Müller|Lüdenscheidt^Eva"),
        "birth_date": "19500102",
        "sex": "F",
        "accession_number": "A-1",
        "study_instance_uid": "1.2.3",
        "studied_at": "20261120081500",
    }
    return Order(**values | changes)


def scored_result(
    p: float = 0.93,
    threshold: float | None = 0.5,
    pipeline: str = "head_ct",
    leading: str = "any",
    delivery: int = 1,
    change: Callable[[Job], None] = lambda job: None,
    **of_order: Any,
) -> ScoredResult:
    """A result of one leading finding, one hint and one measure."""
    job = Job(
        pipeline=pipeline, models=["bleed_net/1.0"], warnings=[], statistics={}, detail=None, finished_at=AT, run=1
    )
    change(job)
    flagged = threshold is not None and p >= threshold
    model = {"model_name": "bleed_net", "model_version": "1.0", "role": "active"}
    findings = [
        Result(finding=leading, probability=p, threshold=threshold, flagged=flagged, **model),
        Result(finding="subdural", probability=0.8, flagged=False, **model),
        Result(finding="bleed_volume", value=12.5, unit="mL", flagged=False, **model),
    ]
    return ScoredResult(Delivery(id=delivery, created_at=AT), job, findings, order_of(**of_order))
