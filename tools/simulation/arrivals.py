"""When studies come to a hospital group, and of which kinds: assumptions, all of them on the page of the simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from firstread.priority import priority_of
from tools.simulation.costs import Costs
from tools.simulation.queue import Study

STUDIES_A_YEAR = 2_000_000
HOUR_S, DAY_S = 3600.0, 86_400.0
WEEK_DAYS = 7

HOURS = (
    1.0,
    0.8,
    0.7,
    0.6,
    0.6,
    0.8,
    1.6,
    3.4,
    6.6,
    8.6,
    9.2,
    9.0,
    7.8,
    7.6,
    8.0,
    7.6,
    6.2,
    4.8,
    3.8,
    3.4,
    3.0,
    2.4,
    1.7,
    1.2,
)
"""Share of a day's studies that come in each hour, in percent before it is made to sum up to one."""

WEEKDAYS = (1.22, 1.16, 1.16, 1.12, 1.10, 0.64, 0.60)
"""A day's studies by the mean of its week, Monday first."""

BUSY_WEEK = 1.3
"""Studies of the busiest week of a year by the mean week."""

EMERGENCY_AE = "ER_CT"
RULES = {EMERGENCY_AE: 0}
"""Priorities by sender, as a site would set FIRSTREAD_PRIORITY_BY_CALLING_AE."""


@dataclass(frozen=True)
class Kind:
    """Studies that are alike.

    Attributes
    ----------
    share : float
        Of all studies.
    slices : tuple of int
        Of the series that is scored; each study has one of these numbers.
    megabytes : float
        Of a whole study, all series, as it is stored.
    """

    name: str
    share: float
    modality: str
    megabytes: float
    slices: tuple[int, ...] = ()
    calling_ae: str = ""
    refused: bool = False
    wanted: bool = True

    @property
    def priority(self) -> int:
        """As the listener gives it."""
        return priority_of([self.modality], calling_aes=[self.calling_ae], by_calling_ae=RULES)


KINDS = (
    Kind("head CT of an emergency room", 0.015, "CT", 110.0, (24, 30, 36, 42), EMERGENCY_AE),
    Kind("head CT of others", 0.025, "CT", 110.0, (24, 30, 36, 42)),
    Kind("other CT, which is refused", 0.085, "CT", 300.0, refused=True),
    Kind("chest film", 0.22, "DX", 18.0),
    Kind("skin lesion", 0.01, "XC", 6.0),
    Kind("of no pipeline", 0.645, "MR", 60.0, wanted=False),
)


def rate_per_s(at: float) -> float:
    """Studies a second of the whole group at a moment of the busy week, which begins on Monday at midnight."""
    day, hour = int(at // DAY_S) % WEEK_DAYS, int(at % DAY_S // HOUR_S)
    mean_day = BUSY_WEEK * STUDIES_A_YEAR / 365
    return mean_day * WEEKDAYS[day] / (sum(WEEKDAYS) / WEEK_DAYS) * HOURS[hour] / sum(HOURS) / HOUR_S


def busiest_rate_per_s() -> float:
    """Of the busiest hour."""
    return max(rate_per_s(DAY_S * day + HOUR_S * hour) for day in range(WEEK_DAYS) for hour in range(24))


def of_kind(kind: Kind, at: float, costs: Costs, rng: Random) -> Study:
    """One study of a kind. A lesion is taken for as dear as a film."""
    if kind.refused:
        return Study(at, kind.name, kind.priority, costs.refused_core_s)
    if kind.slices:
        slices = rng.choice(kind.slices)
        per_slice = costs.head_core_s / 30
        return Study(at, kind.name, kind.priority, per_slice * slices, slices)
    return Study(at, kind.name, kind.priority, costs.film_core_s)


def busy_week(costs: Costs, seed: int, until: float = WEEK_DAYS * DAY_S) -> Iterator[Study]:
    """Studies that some pipeline wants, as they are complete: a Poisson process whose rate changes by the hour.

    Thinning (Lewis and Shedler 1979): moments of the highest rate are kept as often as the rate of their hour says.
    """
    rng = Random(seed)
    wanted = [kind for kind in KINDS if kind.wanted]
    share = sum(kind.share for kind in wanted)
    highest = share * busiest_rate_per_s()
    at = 0.0
    while True:
        at += rng.expovariate(highest)
        if at >= until:
            return
        if rng.random() * highest <= share * rate_per_s(at):
            (kind,) = rng.choices(wanted, [kind.share for kind in wanted])
            yield of_kind(kind, at, costs, rng)
