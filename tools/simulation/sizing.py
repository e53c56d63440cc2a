"""Which settings of Celery, PostgreSQL and the store such a group needs, reckoned from what was simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from firstread.pipelines import PIPELINES
from firstread.queue import make_app
from firstread.settings import Settings
from tools.simulation.arrivals import BUSY_WEEK, KINDS, STUDIES_A_YEAR, WEEKDAYS, busiest_rate_per_s

POOL, OVERFLOW = 10, 20
"""Connections of a process at most, beside those (:class:`firstread.records.Database`); a test compares."""

PROCESSES = {"worker": 1, "supervisor with sweeper": 1}
"""Of a worker that have connections."""

OTHERS = 3
"""Listener, deliverer and whoever looks."""


def reckon(rows: list[dict[str, Any]], workers: int, folder: Path) -> list[dict[str, str]]:
    """Settings and what they follow from, for so many workers; ``folder`` has what the bench measured of databases."""
    busiest = busiest_rate_per_s()
    wanted = sum(kind.share for kind in KINDS if kind.wanted)
    longest = max(row["longest_queue"] for row in rows if row["workers"] == workers)
    study_mb = sum(kind.share * kind.megabytes for kind in KINDS)
    day_gb = study_mb * STUDIES_A_YEAR / 365 / 1000
    busy_day_gb = day_gb * BUSY_WEEK * max(WEEKDAYS) / (sum(WEEKDAYS) / len(WEEKDAYS))
    peak_mb_s = busiest * study_mb
    connections = (POOL + OVERFLOW) * (workers * len(PROCESSES) + OTHERS)
    threads = int(Settings.model_fields["worker_threads"].default)
    visibility_s = make_app(Settings()).conf.broker_transport_options["visibility_timeout"]
    heads = sum(kind.share for kind in KINDS if kind.slices)
    findings = len(next(pipeline for pipeline in PIPELINES if pipeline.name == "head_ct").findings)
    slices = [slices for kind in KINDS for slices in kind.slices]
    slice_rows = STUDIES_A_YEAR * heads * findings * sum(slices) / len(slices)
    reckoned = [
        _row(
            "Celery: messages",
            f"{busiest * wanted:.2f} doorbells/s, at most {longest:,} waiting",
            "the busiest hour, and the longest queue; the defaults (prefetch 1, late acknowledgement) stay",
        ),
        _row(
            "Celery: threads",
            f"`FIRSTREAD_WORKER_THREADS={threads}` a worker, {threads * workers} in all",
            "the default, as simulated",
        ),
        _row(
            "Celery: visibility timeout",
            f"{visibility_s:,.0f} s",
            "set by Firstread above the longest run that a lease allows; the wait in the queue is no part of it",
        ),
        _row(
            "PostgreSQL: `max_connections`", f"{connections}", f"{POOL + OVERFLOW} a process at most, {workers} workers"
        ),
        _row(
            "PostgreSQL: slice scores a year",
            f"{slice_rows / 1e6:,.0f} million rows",
            "heads, their slices and findings; look-ups do not grow with them (performance.md)",
        ),
        _row(
            "Store: images",
            f"{day_gb:,.0f} GB a day, {busy_day_gb:,.0f} on the busiest",
            "`FIRSTREAD_RETENTION_DAYS` times this is the room that the store needs",
        ),
        _row("Store: writing", f"{peak_mb_s:,.0f} MB/s in the busiest hour", "each image is written and synced once"),
    ]
    a_row = _bytes_a_slice_score(folder)
    if a_row:
        room = f"{slice_rows * a_row / 1e9:,.0f} GB a year"
        reckoned.append(
            _row("PostgreSQL: room", room, f"{a_row:,.0f} bytes a slice score, all other tables and indices included")
        )
    return reckoned


def _bytes_a_slice_score(folder: Path) -> float:
    """Of the largest database on PostgreSQL whose size the bench noted; 0 where there is none."""
    path = folder / "queries.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []
    sized = [run for run in runs if run["engine"] == "postgresql" and run.get("bytes")]
    if not sized:
        return 0.0
    largest = max(sized, key=lambda run: run["studies"])
    return float(largest["bytes"] / largest["rows"]["slice_score_row"])


def _row(what: str, value: str, why: str) -> dict[str, str]:
    return {"what": what, "value": value, "from": why}
