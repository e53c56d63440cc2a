"""The thread that renews leases."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from firstread.records import Database, Job
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.states import JobState
from tests.builders.closed_revisions import put_probe
from tests.builders.deaths import deaths, dies_once, errors_of
from tests.builders.timing import until
from worker.scoring.leases import LeaseKeeper


def test_a_keeper_that_dies_begins_again_and_renews(
    sqlite_db: Database,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dies_once(monkeypatch, LeaseKeeper, "_run")
    revision_id = put_probe(sqlite_db, make_settings(), "leased")
    with sqlite_db.write() as session:
        job = Job(revision_id=revision_id, pipeline="probe", state=JobState.SCORING.value, lease_owner="w1")
        job.created_at = now_of(session)
        session.add(job)
        session.flush()
        job_id = job.id
    before = deaths("lease-keeper")
    keeper = LeaseKeeper(sqlite_db, "w1", lease_s=0.2)

    def renewed() -> bool:
        with sqlite_db.read() as session:
            return session.get_one(Job, job_id).lease_until is not None

    with caplog.at_level(logging.ERROR):
        keeper.start()
        with keeper.hold(job_id) as lease:
            until(renewed)
            lease.check()
        keeper.close()
    assert deaths("lease-keeper") == before + 1
    assert len(errors_of(caplog, "lease-keeper")) == 1
