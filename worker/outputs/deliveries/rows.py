"""The row of a delivery: made, claimed for an attempt, postponed, ended."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from sqlalchemy.orm import object_session

from firstread.records import Delivery, Job
from firstread.records.clock import now_of
from firstread.states import DeliveryState
from worker.outputs.destinations.file import Destination

CLAIM_MARGIN_S = 60.0
STATUS_LIMIT = 500
"""Characters of ``last_status``."""

SUMMARY_DELAY = timedelta(seconds=60)
"""How long a summary waits for further rows after its last one."""


def new_delivery(
    job: Job,
    name: str,
    kind: str,
    escalation: int = 0,
    *,
    run: int | None = None,
    topic: str = "",
    summary: bool = False,
) -> Delivery:
    """A row that is due at once, or with the next summary of its destination.

    Parameters
    ----------
    run : int or None
        The run of the job that it is about; by default the last one.
    topic : str
        What it is about, where that is not the result itself.
    """
    session = object_session(job)
    assert session is not None, "a job that is in no session has no deliveries"
    now = now_of(session)
    return Delivery(
        job_id=job.id,
        run=job.run if run is None else run,
        kind=kind,
        destination=name,
        escalation=escalation,
        topic=topic,
        summary=summary,
        state=DeliveryState.PENDING,
        next_at=now + SUMMARY_DELAY if summary else now,
        last_status="waits for the next summary" if summary else None,
        created_at=now,
    )


def claimed_until(destination: Destination, now: datetime) -> datetime:
    """When a claim comes back whose process was killed: connecting, handshakes, sending and the answer may each take
    the destination's limit.
    """
    return now + timedelta(seconds=4 * destination.timeout_s + CLAIM_MARGIN_S)


def backoff_s(destination: Destination, attempts: int) -> float:
    """Seconds until the next attempt: doubled each time, bounded, with 10 % at random so that lanes spread."""
    wait: float = min(destination.backoff_s * 2.0 ** (attempts - 1), destination.backoff_max_s)
    return wait * random.uniform(0.9, 1.1)


def end(row: Delivery, state: DeliveryState, status: str | None, at: datetime) -> None:
    """Bring a delivery to a final state."""
    row.state, row.next_at, row.finished_at = state, None, at
    row.last_status = status[:STATUS_LIMIT] if status is not None else None
