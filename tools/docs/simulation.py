"""Tables of ``docs/capacity.md``: what is assumed, and what the simulation wrote."""

from __future__ import annotations

import json
from typing import Any

from tools.docs.figures import ROOT, table
from tools.simulation.arrivals import BUSY_WEEK, HOURS, KINDS, STUDIES_A_YEAR, WEEKDAYS

FILE = ROOT / "docs" / "performance" / "simulation.json"
NOT_YET = (
    "Not simulated for this release: `make bench` measures what it needs, and `python -m tools.simulation` runs it.\n"
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def assumptions() -> str:
    """Kinds of studies, and when they come."""
    rows = []
    for kind in KINDS:
        slices = "" if not kind.slices else f"{min(kind.slices)} to {max(kind.slices)}"
        priority = str(kind.priority) if kind.wanted else ""
        rows.append((kind.name, f"{100 * kind.share:.1f}", priority, slices, f"{kind.megabytes:.0f}"))
    kinds = table(("studies", "% of all", "priority", "slices that are scored", "MB, all series"), rows)
    total = sum(HOURS)
    hours = table([f"{hour:02d}" for hour in range(24)], [[f"{100 * share / total:.1f}" for share in HOURS]])
    mean = sum(WEEKDAYS) / len(WEEKDAYS)
    days = table(DAYS, [[f"{share / mean:.2f}" for share in WEEKDAYS]])
    return (
        f"{kinds}\nPercent of a day's studies by hour:\n\n{hours}\nA day's studies by those of a mean day:\n\n{days}\n"
        f"{STUDIES_A_YEAR:,} studies a year; the week that is simulated has {BUSY_WEEK:g} times those of a mean week.\n"
    )


def waits() -> str:
    """The wait that 95 (99) of 100 studies stay below, by priority and number of workers."""
    if not FILE.exists():
        return NOT_YET
    outcome = json.loads(FILE.read_text(encoding="utf-8"))
    priorities = sorted({priority for row in outcome["rows"] for priority in row["by_priority"]}, key=int)
    rows = []
    for row in outcome["rows"]:
        cells = (_waits(row["by_priority"].get(priority)) for priority in priorities)
        rows.append(
            (row["scenario"], str(row["workers"]), *cells, f"{row['longest_queue']:,}", f"{100 * row['busy']:.1f}")
        )
    head = (f"s, priority {priority}" for priority in priorities)
    check, loads = outcome["check"], outcome["costs"]["loads"]
    highest = max(load for pair in loads.values() for load in pair)
    return (
        table(("week", "workers", *head, "longest queue", "% of cores busy"), rows)
        + f"\nOf the backlog of the bench the simulation makes {check['backlog_simulated_per_h']:,.0f} heads an hour; "
        f"measured were {check['backlog_measured_per_h']:,.0f}. In the busiest hour "
        f"{outcome['cores_in_the_busiest_hour']:.2f} cores are at work. Costs are those of a machine with "
        f"{outcome['costs']['cores']} cores; its load average was {highest:.1f} at the most meanwhile.\n"
    )


def _waits(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['wait_p95_s']:.1f} ({row['wait_p99_s']:.1f})"


def settings() -> str:
    """What Celery, PostgreSQL and the store need."""
    if not FILE.exists():
        return NOT_YET
    outcome = json.loads(FILE.read_text(encoding="utf-8"))
    return table(("setting", "value", "why"), ((row["what"], row["value"], row["from"]) for row in outcome["settings"]))
