"""The way past jobs in hand: who is looked for, and who stands aside."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

import pytest

from tests.builders.deaths import deaths, dies_once, errors_of
from worker.errors import LeaseLost
from worker.scoring.claims import JobClaim, Rank
from worker.scoring.leases import Lease
from worker.scoring.urgent import UrgentLane


def claim(job_id: int, priority: int, old: bool = False) -> JobClaim:
    at = datetime(2026, 11, 29, tzinfo=UTC)
    return JobClaim(job_id, job_id, job_id, 1, "probe", False, priority, old, 1, False, False, at, at)


def test_nothing_is_taken_while_a_thread_is_free() -> None:
    lane = UrgentLane(lambda rank: False, threads=2)
    with lane.holding(claim(1, 5)):
        assert lane.least_urgent() is None
        with lane.holding(claim(2, 3)), lane.holding(claim(3, 1), beside=True):
            assert lane.least_urgent() == (5, False)
    assert lane.least_urgent() is None


def test_what_goes_before_the_least_urgent_in_hand_is_asked_for() -> None:
    asked: list[Rank] = []
    found = threading.Event()

    def take(rank: Rank) -> bool:
        asked.append(rank)
        found.set()
        return False

    lane = UrgentLane(take, threads=1)
    lane.start()
    with lane.holding(claim(1, 5, old=True)):
        assert found.wait(10)
    lane.close()
    assert set(asked) == {(5, True)}


def test_a_less_urgent_job_stands_aside_until_the_other_is_done() -> None:
    lane = UrgentLane(lambda rank: False, threads=1)
    routine, urgent = claim(1, 5), claim(2, 1)
    with lane.holding(routine):
        with lane.holding(urgent, beside=True):
            waits = threading.Thread(target=lane.stand_aside, args=(routine, Lease(1)))
            waits.start()
            lane.stand_aside(urgent, Lease(2))
            waits.join(0.2)
            assert waits.is_alive()
        waits.join(10)
        assert not waits.is_alive()
        lane.stand_aside(routine, Lease(1))


def test_it_does_not_stand_aside_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.scoring.urgent.ASIDE_S", 0.2)
    lane = UrgentLane(lambda rank: False, threads=1)
    with lane.holding(claim(2, 1)):
        start = time.monotonic()
        lane.stand_aside(claim(1, 5), Lease(1))
        assert time.monotonic() - start >= 0.2


def test_a_job_that_is_no_longer_ours_ends_its_wait() -> None:
    lane = UrgentLane(lambda rank: False, threads=1)
    lease = Lease(1)
    lease.lose()
    with lane.holding(claim(2, 1)), pytest.raises(LeaseLost):
        lane.stand_aside(claim(1, 5), lease)


def test_a_lane_that_dies_begins_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    dies_once(monkeypatch, UrgentLane, "_run")
    before = deaths("urgent")
    asked = threading.Event()

    def take(rank: Rank) -> bool:
        asked.set()
        return False

    lane = UrgentLane(take, threads=1)
    with caplog.at_level(logging.ERROR), lane.holding(claim(1, 5)):
        lane.start()
        assert asked.wait(10)
        lane.close()
    assert deaths("urgent") == before + 1
    assert len(errors_of(caplog, "urgent")) == 1
