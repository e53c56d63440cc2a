"""Tables of ``docs/reliability.md``, made of the file that ``python -m tests.grid`` writes."""

from __future__ import annotations

import json
from typing import Any

from firstread.effects import TABLE
from tools.docs.figures import ROOT, table

FILE = ROOT / "docs" / "reliability" / "grid.json"
PLACES = {"sqlite": "SQLite, own broker, folder", "postgresql": "PostgreSQL, Redis, S3"}
AT_EFFECTS = {
    ("kill", "before"): "killed before",
    ("kill", "after"): "killed after",
    ("error", "before"): "fails",
    ("full", "before"): "disk full",
    ("broker", "before"): "broker killed",
    ("database", "before"): "database killed",
}
MARKS = {"held": "held", "failed": "**failed**", "not reached": "not reached"}


def grid() -> str:
    """A row an effect, a column a fault at it, for each place; and the faults of the surroundings."""
    if not FILE.exists():
        return "Not run for this release; `python -m tests.grid` does it.\n"
    rows: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    parts = []
    for place, words in PLACES.items():
        own = [row for row in rows if row["place"] == place]
        if not own:
            parts.append(f"**{words}**: not run for this release.\n")
            continue
        parts.append(f"**{words}**\n\n{_at_effects(own)}{_surroundings(own)}\n{_counts(own)}\n")
    return "\n".join(parts)


def _at_effects(rows: list[dict[str, Any]]) -> str:
    by_cell = {(row["effect"], row["fault"], row["when"]): MARKS[row["outcome"]] for row in rows if row["effect"]}
    columns = [key for key in AT_EFFECTS if any(cell[1:] == key for cell in by_cell)]
    lines = [
        (f"`{name}`", TABLE[name].who, TABLE[name].what, *(by_cell.get((name, *key), "") for key in columns))
        for name in TABLE
        if any(cell[0] == name for cell in by_cell)
    ]
    return table(("step", "of", "what it is", *(AT_EFFECTS[key] for key in columns)), lines) if lines else ""


def _surroundings(rows: list[dict[str, Any]]) -> str:
    lines = [
        (row["fault"], f"{row['when']} KiB left" if row["fault"] == "disk full" else row["when"], MARKS[row["outcome"]])
        for row in rows
        if not row["effect"]
    ]
    return "\n" + table(("for two seconds", "", "outcome"), lines) if lines else ""


def _counts(rows: list[dict[str, Any]]) -> str:
    counts = [f"{sum(row['outcome'] == name for row in rows)} {name}" for name in MARKS]
    days = sorted({row["on"] for row in rows})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{len(rows)} cells, {when}: {', '.join(counts)}."
