"""An urgent study behind routine ones: it is scored beside those in hand, and does not wait for their end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select

from firstread.records import Database, Job
from firstread.settings import Settings
from firstread.states import JobState
from tests.builders.closed_revisions import job_of, put_probe
from tests.builders.probe_worker import ROW, probe_serving
from tests.builders.scoring import scorer_of
from tests.builders.timing import until
from worker.pipelines import registry

ROUTINE_S = 12.0
"""Far longer than the urgent study takes on any machine."""


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))


def test_an_urgent_study_does_not_wait_for_routine_ones_in_hand(
    make_settings: Callable[..., Settings], db: Database
) -> None:
    settings = make_settings(database_url=db.url, worker_threads=2)
    routine = [put_probe(db, settings, f"r{n}", f"slow:{ROUTINE_S}") for n in range(4)]
    with scorer_of(db, settings, probe_serving()) as scorer:
        scorer.urgent.start()
        threads = [threading.Thread(target=scorer.answer, daemon=True) for _ in range(settings.worker_threads)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: scorer.urgent.least_urgent() is not None)
            start = time.monotonic()
            urgent = put_probe(db, settings, "u", "flag", priority=1)
            same = put_probe(db, settings, "same", "flag", priority=5)
            until(lambda: (job := job_of(db, urgent)) is not None and job.state == JobState.DONE)
            assert time.monotonic() - start < ROUTINE_S / 2
            with db.read() as session:
                states = {job.revision_id: job.state for job in session.scalars(select(Job))}
            assert [states.get(key) for key in routine[:2]] == [JobState.SCORING] * 2
            assert states.get(same) is None, "no more urgent than those in hand: it waits for a thread"
        finally:
            scorer.stopping.set()
            scorer.urgent.close()
            for thread in threads:
                thread.join(3 * ROUTINE_S)
