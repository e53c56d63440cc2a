"""The simulation waits as formulas say, and serves as the real queue does."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from random import Random

import pytest

from tools.simulation.formulas import erlang_c, mean_wait_s, mean_waits_by_priority_s, wait_quantile_s
from tools.simulation.queue import Fleet, Outcome, Study, simulate

N = 15_000


def _poisson(rate: float, mean_s: float, kind: str, seed: int, priorities: tuple[int, ...] = (5,)) -> list[Study]:
    """Arrivals of one rate; service is exponential, constant, or of two lengths that differ by nine to one."""
    rng = Random(seed)
    draws: dict[str, Callable[[], float]] = {
        "exponential": lambda: rng.expovariate(1 / mean_s),
        "constant": lambda: mean_s,
        "two lengths": lambda: mean_s * (0.2 if rng.random() < 0.5 else 1.8),
    }
    at, studies = 0.0, []
    for _ in range(N):
        at += rng.expovariate(rate)
        studies.append(Study(at, kind, rng.choice(priorities), draws[kind]()))
    return studies


def _mean_wait_s(outcome: Outcome, priority: int | None = None) -> float:
    waits = [s.wait_s for s in outcome.served if priority in (None, s.study.priority)]
    return statistics.fmean(waits[len(waits) // 20 :])  # the first ones find an empty house


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize(("kind", "variation"), [("exponential", 1.0), ("constant", 0.0), ("two lengths", 0.8)])
def test_mean_wait_is_that_of_m_g_c(servers: int, kind: str, variation: float) -> None:
    rate, mean_s = 0.75 * servers, 1.0
    outcome = simulate(_poisson(rate, mean_s, kind, seed=1), Fleet(servers, cores=1, threads=1), seed=2)
    expected = mean_wait_s(servers, rate, mean_s, variation)
    # For several servers and a service that is not exponential the formula is itself an approximation.
    assert _mean_wait_s(outcome) == pytest.approx(expected, rel=0.15)
    assert outcome.busy == pytest.approx(0.75, rel=0.03)


def test_95th_percentile_is_that_of_m_m_c() -> None:
    outcome = simulate(_poisson(3.2, 1.0, "exponential", seed=3), Fleet(4, cores=1, threads=1), seed=4)
    waits = sorted(served.wait_s for served in outcome.served)
    assert waits[int(0.95 * len(waits))] == pytest.approx(wait_quantile_s(4, 3.2, 1.0, 0.95), rel=0.15)


def test_waits_by_priority_are_those_of_cobham() -> None:
    studies = _poisson(0.8, 1.0, "exponential", seed=5, priorities=(0, 3, 7))
    outcome = simulate(studies, Fleet(1, cores=1, threads=1))
    expected = mean_waits_by_priority_s([0.8 / 3] * 3, [1.0] * 3, [2.0] * 3)
    for priority, wait_s in zip((0, 3, 7), expected, strict=True):
        assert _mean_wait_s(outcome, priority) == pytest.approx(wait_s, rel=0.15)


def test_formulas_agree_where_they_meet() -> None:
    assert erlang_c(1, 0.6) == pytest.approx(0.6)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)  # by hand: load 1 on two servers
    assert mean_waits_by_priority_s([0.5], [1.0], [2.0])[0] == pytest.approx(mean_wait_s(1, 0.5, 1.0))
    with pytest.raises(ValueError, match="no steady state"):
        erlang_c(2, 2.0)


def test_one_seed_gives_one_outcome() -> None:
    studies = _poisson(3.0, 1.0, "exponential", seed=6)[:1000]
    fleet = Fleet(4, cores=1, threads=2)  # which worker takes a study matters where it shares its core
    assert simulate(studies, fleet, seed=7).served == simulate(studies, fleet, seed=7).served
    assert simulate(studies, fleet, seed=7).served != simulate(studies, fleet, seed=8).served


def test_threads_share_the_cores_of_a_worker() -> None:
    """Three studies of two core-seconds at once on two cores: six core-seconds take three seconds."""
    outcome = simulate([Study(0.0, "head", 3, 2.0) for _ in range(3)], Fleet(1, cores=2, threads=3))
    assert [served.done_at for served in outcome.served] == pytest.approx([3.0] * 3)
    assert outcome.busy == pytest.approx(1.0)


def test_rows_of_several_studies_fill_a_batch_and_the_urgent_ones_are_in_it_first() -> None:
    """Two cores, 32 rows in 1 s: 24 urgent rows and 8 of the 24 routine ones go first, 16 rows remain."""
    sizes: list[int] = []

    def batch_s(rows: int) -> float:
        sizes.append(rows)
        return rows / 32

    studies = [Study(0.0, "routine", 5, 0.0, rows=24), Study(0.0, "urgent", 0, 0.0, rows=24)]
    first = Study(0.0, "first", 3, 0.0, rows=32)  # in the device when the two others ask
    outcome = simulate([first, *studies], Fleet(1, cores=2, threads=3, batch_s=batch_s))
    assert sizes == [32, 32, 16]
    done = {served.study.kind: served.done_at for served in outcome.served}
    assert done == pytest.approx({"first": 1.0, "urgent": 2.0, "routine": 2.5})


def test_studies_are_claimed_in_the_order_of_the_real_queue() -> None:
    studies = [
        Study(0.0, "in hand", 5, 10.0),
        Study(1.0, "old", 3, 1.0, old=True),
        Study(2.0, "late", 3, 1.0),
        Study(1.5, "early", 3, 1.0),
        Study(3.0, "urgent", 0, 1.0),
    ]
    outcome = simulate(sorted(studies, key=lambda s: s.at), Fleet(1, cores=1, threads=1))
    assert [served.study.kind for served in outcome.served] == ["in hand", "urgent", "early", "late", "old"]


def test_nothing_is_claimed_while_workers_are_away() -> None:
    studies = [Study(float(n), "head", 5 if n else 6, 1.0) for n in range(1, 6)]
    outcome = simulate(studies, Fleet(2, cores=1, threads=1, away=((0.0, 100.0),)))
    assert min(served.claimed_at for served in outcome.served) == 100.0
    assert outcome.longest_queue == 5
    assert len(outcome.served) == 5
