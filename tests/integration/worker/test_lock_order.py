"""Locks on PostgreSQL are taken in one order, study before revision before job, so writers never deadlock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from firstread.actions.retry import end_waiting, retry_study
from firstread.clock import utcnow
from firstread.dicom.uids import stable_uid
from firstread.records import Database, Job, Revision, Study
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.builders.closed_revisions import put_probe
from tests.builders.probe_worker import ROW
from tests.builders.scoring import claim_next
from tests.builders.timing import until
from worker.pipelines import registry
from worker.process.sweeper import EndedProcess, Sweeper, give_back
from worker.routing.jobs import commit_routing, give_up
from worker.scoring.results import Report, commit_failure, commit_outcome

UID = stable_uid("probe", "s")


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))


@pytest.fixture
def pg(postgres_url: str) -> Iterator[Database]:
    db = Database(postgres_url)
    upgrade(db)
    yield db
    db.dispose()


@pytest.fixture
def settings(make_settings: Callable[..., Settings], pg: Database) -> Settings:
    return make_settings(database_url=pg.url, broker_url="redis://127.0.0.1:9/0")


def wait_for_blocked(db: Database) -> None:
    """Until a statement of another connection waits for a lock."""

    def blocked() -> int:
        with db.read() as session:
            return session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) or 0

    until(blocked, 20, "a statement waits for the study's lock")


def expire(db: Database, settings: Settings) -> None:
    with db.write() as session:
        session.execute(update(Job).values(lease_until=utcnow() - timedelta(hours=1)))
    Sweeper(db, settings)._expire()


Act = Callable[[Database, Settings, int], object]

ON_JOBS: dict[str, Act] = {
    "outcome": lambda db, settings, job_id: commit_outcome(
        db, settings, job_id=job_id, owner="w1", report=Report(reasons=("not_a_head",)), evidence_path=None
    ),
    "failure": lambda db, settings, job_id: commit_failure(
        db, job_id=job_id, owner="w1", reason="engine_error", error="", settings=settings
    ),
    "give back": lambda db, settings, job_id: give_back(
        db, EndedProcess("w1", "worker_died"), actor="t", settings=settings
    ),
    "expire": lambda db, settings, job_id: expire(db, settings),
    "retry": lambda db, settings, job_id: retry_study(db, settings, UID, None, "alice"),
    "end": lambda db, settings, job_id: end_waiting(db, UID, None, "alice"),
}
ON_REVISIONS: dict[str, Act] = {
    "routing": lambda db, settings, revision_id: commit_routing(
        db, revision_id, ["probe"], None, serving=["probe"], actor="t", settings=settings
    ),
    "give up": lambda db, settings, revision_id: give_up(db, revision_id, actor="t", error="", settings=settings),
}


@pytest.mark.parametrize("act", [*ON_JOBS, *ON_REVISIONS])
def test_a_transaction_that_waits_for_a_study_holds_no_lock_of_it(act: str, pg: Database, settings: Settings) -> None:
    """While one transaction has the study, another that wants to write must not have its revision or job already."""
    revision_id = put_probe(pg, settings, "s")
    if act in ON_JOBS:
        write, key = ON_JOBS[act], claim_next(pg, settings).job_id
    else:
        write, key = ON_REVISIONS[act], revision_id
    errors: list[BaseException] = []

    def work() -> None:
        try:
            write(pg, settings, key)
        except BaseException as error:  # noqa: BLE001  # the test shows it
            errors.append(error)

    with pg.write() as session:
        session.scalars(select(Study).with_for_update()).one()
        thread = threading.Thread(target=work)
        thread.start()
        wait_for_blocked(pg)
        session.scalars(select(Revision).with_for_update(nowait=True)).all()
        session.scalars(select(Job).with_for_update(nowait=True)).all()
    thread.join(30)
    assert not thread.is_alive() and not errors
