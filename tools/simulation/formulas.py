"""Waiting times that have a formula: what the simulation is checked against."""

from __future__ import annotations

import math
from collections.abc import Sequence


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival waits in M/M/c, where ``load`` is the rate times the mean service (Erlang 1917).

    Raises
    ------
    ValueError
        Where the load is not below the number of servers: the queue grows without end.
    """
    if load >= servers:
        raise ValueError(f"a load of {load} on {servers} servers has no steady state")
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked / (1 - (load / servers) * (1 - blocked))


def mean_wait_s(servers: int, rate: float, mean_s: float, variation: float = 1.0) -> float:
    """Mean wait in M/G/c, first come first served, by Lee and Longton (1959).

    Parameters
    ----------
    variation : float
        Standard deviation of the service by its mean; the formula is exact for 1 (M/M/c), and for one server
        (Pollaczek and Khinchine).
    """
    exponential = erlang_c(servers, rate * mean_s) * mean_s / (servers - rate * mean_s)
    return (1 + variation**2) / 2 * exponential


def wait_quantile_s(servers: int, rate: float, mean_s: float, share: float) -> float:
    """The wait that a share of arrivals stays below in M/M/c."""
    waits = erlang_c(servers, rate * mean_s)
    return 0.0 if waits <= 1 - share else math.log(waits / (1 - share)) * mean_s / (servers - rate * mean_s)


def mean_waits_by_priority_s(rates: Sequence[float], means_s: Sequence[float], squares: Sequence[float]) -> list[float]:
    """Mean wait of each class in M/G/1 with priorities that interrupt nothing (Cobham 1954), the most urgent first.

    Parameters
    ----------
    squares : sequence of float
        Mean of the squared service time of each class.
    """
    residual = sum(rate * square for rate, square in zip(rates, squares, strict=True)) / 2
    waits, before = [], 0.0
    for rate, mean in zip(rates, means_s, strict=True):
        after = before + rate * mean
        waits.append(residual / ((1 - before) * (1 - after)))
        before = after
    return waits
