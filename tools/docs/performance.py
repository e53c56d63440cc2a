"""Tables of ``docs/performance.md``, made of the files that ``make bench`` writes."""

from __future__ import annotations

import json
from typing import Any

from tools.docs.figures import ROOT, table

FOLDER = ROOT / "docs" / "performance"
QUERIES = FOLDER / "queries.json"
ENGINES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
WIDE = 6
"""Measures that stand side by side; more of them stand one below the other."""


def bench_part(name: str) -> str:
    """What a part of the bench measured: a row a subject, or a column where there are many measures."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return f"Not measured for this release; `python -m tests.bench {name}` does it.\n"
    part = json.loads(path.read_text(encoding="utf-8"))
    rows = {(row["subject"], row["measure"]): row for row in part["figures"]}
    subjects = list(dict.fromkeys(subject for subject, _ in rows))
    measures = list(dict.fromkeys(measure for _, measure in rows))
    units = {row["measure"]: row["unit"] for row in part["figures"]}
    words = {measure: _with_unit(measure, units[measure]) for measure in measures}
    if len(measures) > WIDE:
        lines = [(words[m], *(_cell(rows.get((s, m))) for s in subjects)) for m in measures]
        shown = table(("", *subjects), lines)
    else:
        lines = [(s, *(_cell(rows.get((s, m))) for m in measures)) for s in subjects]
        shown = table(("", *words.values()), lines)
    return f"{shown}\n{_facts(part)}\n"


def _with_unit(measure: str, unit: str) -> str:
    """The measure and its unit, unless it names it already; a count has none."""
    if unit in {"1/s", "1/h"}:
        rate = unit.removeprefix("1")
        return measure if rate in measure else f"{measure}{rate}"
    named = not unit or measure.startswith(f"{unit} ") or f" {unit} " in measure
    return measure if named else f"{measure}, {unit}"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "missing" in row:
        return str(row["missing"])
    if row["n"] == 1:
        return _number(row["median"])
    return f"{_number(row['median'])} ({_number(row['lowest'])} to {_number(row['highest'])})"


def _number(value: float) -> str:
    """Three digits that count, and no more than are there."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _facts(part: dict[str, Any]) -> str:
    """What the figures depend on."""
    most = max((row["n"] for row in part["figures"] if "n" in row), default=0)
    machine = part["machine"]
    return (
        f"Median of up to {most} (lowest to highest). {part['started_at'][:10]}, {machine['cores']} cores "
        f"({machine['processor']}), {machine['memory_gib']:.0f} GiB; load average {part['load_before']:.1f} to "
        f"{part['load_after']:.1f}, other programs took {part['cores_taken_by_others']:.1f} cores meanwhile."
    )


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
        rows.append((name, first["class"], _limit(name, runs), *cells))
    return table(("query", "class", "limit, ms", *(_heading(run) for run in runs)), rows)


def _limit(name: str, runs: list[dict[str, Any]]) -> str:
    """A query's limit in ms, and in databases of how many studies it holds where it does not in all."""
    found = {run["studies"]: run["queries"][name]["limit_s"] for run in runs if name in run["queries"]}
    held = {studies: limit_s for studies, limit_s in found.items() if limit_s is not None}
    words = f"{1000 * max(held.values()):.0f}" if held else "none"
    return words if len(held) == len(found) else f"{words}, at {', '.join(f'{n:,}' for n in held)} studies"


def query_databases() -> str:
    """The databases that the queries were asked of, and what else the machine did."""
    names = ("slice_score_row", "instance", "result", "job", "flag")
    rows = []
    for run in _runs():
        load = f"{run['load_before']:.1f} to {run['load_after']:.1f} on {run['machine']['cores']} cores"
        counts = (f"{run['rows'][name]:,}" for name in names)
        rows.append((_heading(run), run["version"], *counts, f"{run['migration_0014_s']:.0f}", load))
    columns = ("slice scores", "images", "results", "jobs", "flags", "s to migrate from 0013", "load average")
    return table(("database", "version", *columns), rows)
