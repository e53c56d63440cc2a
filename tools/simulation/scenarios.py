"""The weeks that are simulated, and how long studies wait in them, with one worker to eight."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from firstread.settings import Settings
from tools.simulation.arrivals import DAY_S, HOUR_S, KINDS, Kind, busiest_rate_per_s, busy_week, of_kind
from tools.simulation.costs import BACKLOG_SLICES, Costs, largest_batch
from tools.simulation.queue import Fleet, Outcome, Served, Study, simulate

WORKERS = (1, 2, 4, 8)
SEED = 20_261_129
OUTAGE = (DAY_S + 8 * HOUR_S, DAY_S + 12 * HOUR_S)
"""Tuesday morning from eight to twelve."""

OUTAGE_DAYS = 2
SCENARIOS = {"a busy week": (), "workers away on Tuesday from 8 to 12": (OUTAGE,)}


def fleet(workers: int, costs: Costs, away: tuple[tuple[float, float], ...] = ()) -> Fleet:
    """Workers as they are by default, each on a machine like that of the bench."""
    threads = int(Settings.model_fields["worker_threads"].default)
    return Fleet(workers, costs.cores, threads, largest_batch(), costs.batch_s, away)


def run(costs: Costs, workers: Iterable[int] = WORKERS, days: float = 7.0) -> list[dict[str, Any]]:
    """Every scenario with each number of workers: waits by priority, the longest queue, and how busy the cores are."""
    rows = []
    for name, away in SCENARIOS.items():
        studies = list(busy_week(costs, SEED, until=min(days, OUTAGE_DAYS if away else days) * DAY_S))
        for count in workers:
            outcome = simulate(studies, fleet(count, costs, away), SEED)
            rows.append(
                {
                    "scenario": name,
                    "workers": count,
                    "studies": len(outcome.served),
                    "longest_queue": outcome.longest_queue,
                    "busy": round(outcome.busy, 4),
                    "by_priority": by_priority(outcome.served),
                }
            )
    return rows


def by_priority(served: list[Served]) -> dict[str, dict[str, float]]:
    """Median, 95th and 99th percentile of the wait, and the 95th of the time to the result, in seconds."""
    rows: dict[str, dict[str, float]] = {}
    for priority in sorted({s.study.priority for s in served}):
        waits = sorted(s.wait_s for s in served if s.study.priority == priority)
        results = sorted(s.done_at - s.study.at for s in served if s.study.priority == priority)
        rows[str(priority)] = {
            "studies": len(waits),
            "wait_median_s": _quantile(waits, 0.5),
            "wait_p95_s": _quantile(waits, 0.95),
            "wait_p99_s": _quantile(waits, 0.99),
            "result_p95_s": _quantile(results, 0.95),
        }
    return rows


def _quantile(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def backlog_per_h(costs: Costs, studies: int = 60) -> float:
    """Heads an hour that one simulated worker makes of the backlog of the bench, to compare with what was measured."""
    head = Kind("head", 1.0, "CT", 0.0, (BACKLOG_SLICES,))
    waiting = [Study(0.0, head.name, head.priority, costs.head_core_s, BACKLOG_SLICES) for _ in range(studies)]
    outcome: Outcome = simulate(waiting, fleet(1, costs), SEED)
    return 3600 * studies / max(served.done_at for served in outcome.served)


def needed(costs: Costs) -> float:
    """Cores that are busy in the busiest hour, at a mean study of each kind."""
    rng = Random(SEED)
    core_s = 0.0
    for kind in KINDS:
        if kind.wanted:
            drawn = [of_kind(kind, 0.0, costs, rng) for _ in range(200)]
            rows = sum(study.rows for study in drawn) / len(drawn)
            network_s = costs.cores * rows * costs.batch_s(largest_batch()) / largest_batch()
            core_s += kind.share * (sum(study.core_s for study in drawn) / len(drawn) + network_s)
    return busiest_rate_per_s() * core_s
