"""What shall be sent about a run of a job, decided in the very transaction that commits its results."""

from __future__ import annotations

from sqlalchemy.orm import Session

from firstread.records import Job
from firstread.settings import Settings
from worker.pipelines.base import Outcome


def plan(session: Session, job: Job, outcome: Outcome | None, settings: Settings) -> None:
    """Add the rows of deliveries and objects that this run calls for.

    Called once a committed run, with the job in its new state and its results and flags flushed; ``outcome`` is None
    for a rejected study. No destination is configured here, so nothing is added.
    """
