"""Tables of ``docs/performance.md``, made of the files that ``make bench`` writes."""

from __future__ import annotations

import json
from typing import Any

from tools.docs.figures import ROOT, table

QUERIES = ROOT / "docs" / "performance" / "queries.json"
ENGINES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def _runs() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(QUERIES.read_text(encoding="utf-8"))["runs"]
    return sorted(runs, key=lambda run: (run["studies"], run["engine"] != "sqlite"))


def _heading(run: dict[str, Any]) -> str:
    return f"{ENGINES[run['engine']]}, {run['studies']:,} studies"


def _seconds(row: dict[str, Any]) -> tuple[float, float, float]:
    return row["median_s"], row["fastest_s"], row["client_cpu_s"] + row.get("server_cpu_s", 0.0)


def queries() -> str:
    """Each documented query: class, limit, and milliseconds in each database: median, fastest, and processor."""
    runs = _runs()
    rows = []
    for name, first in {name: row for run in runs for name, row in run["queries"].items()}.items():
        cells = []
        for run in runs:
            row = run["queries"].get(name)
            cells.append("" if row is None else " / ".join(f"{1000 * seconds:.1f}" for seconds in _seconds(row)))
        rows.append((name, first["class"], f"{1000 * first['limit_s']:.0f}", *cells))
    return table(("query", "class", "limit, ms", *(_heading(run) for run in runs)), rows)


def query_databases() -> str:
    """The databases that the queries were asked of, and what else the machine did."""
    names = ("slice_score_row", "instance", "result", "job", "flag")
    rows = []
    for run in _runs():
        load = f"{run['load_before']:.1f} to {run['load_after']:.1f} on {run['machine']['cores']} cores"
        counts = (f"{run['rows'][name]:,}" for name in names)
        rows.append((_heading(run), run["version"], *counts, f"{run['migration_0014_s']:.0f}", load))
    columns = ("slice scores", "images", "results", "jobs", "flags", "s for the migration to 0014", "load average")
    return table(("database", "version", *columns), rows)
