"""The two halves of a worker inside a test: what claims jobs, and what scores them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from firstread.records import Database
from firstread.settings import Settings
from firstread.storage.store import spool_of
from worker.engine.device import EngineThread
from worker.engine.serving import Serving
from worker.scoring.claims import Claimer, JobClaim
from worker.scoring.leases import LeaseKeeper
from worker.scoring.scorer import Scorer


def claimer_of(db: Database, settings: Settings, owner: str = "w1", pipelines: Iterable[str] = ("probe",)) -> Claimer:
    """What claims the jobs of these pipelines for a worker."""
    able = frozenset(pipelines)
    return Claimer(db, settings, spool_of(settings), owner, lambda: able)


def claim_next(db: Database, settings: Settings, owner: str = "w1") -> JobClaim:
    """Claim the probe's next job; there has to be one."""
    claim = claimer_of(db, settings, owner).next()
    assert claim is not None
    return claim


@contextmanager
def scorer_of(
    db: Database, settings: Settings, serving: Serving, pipelines: Iterable[str] = ("probe",)
) -> Iterator[Scorer]:
    """The worker ``w1`` with an engine of its own, which ends with the block."""
    engine = EngineThread(batch_wait_s=0, limit_s=5)
    engine.serve(serving.models)
    engine.start()
    try:
        yield Scorer(
            db=db,
            settings=settings,
            owner="w1",
            claimer=claimer_of(db, settings, pipelines=pipelines),
            keeper=LeaseKeeper(db, "w1", settings.lease_s),
            engine=engine,
            serving=serving,
        )
    finally:
        engine.close()
