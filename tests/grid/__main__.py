"""Runs the grid and writes what became of each cell: ``python -m tests.grid [--place sqlite] [--only kill]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.grid.cells import Cell, Outcome, cells, run_cell
from tests.grid.place import PLACES

FILE = Path(__file__).resolve().parents[2] / "docs" / "reliability" / "grid.json"
DISK_MIB = 256


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a small file system of its own, where this runs as root; else any."""
    with tempfile.TemporaryDirectory(prefix="firstread-grid-") as name:
        if os.getuid() != 0:
            yield Path(name)
            return
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def wanted(cell: Cell, only: list[str]) -> bool:
    """Whether a cell is asked for; those that need root are left out without it."""
    needs_root = cell.fault in ("disk full", "spool read-only")
    return (os.getuid() == 0 or not needs_root) and (not only or any(part in cell.name for part in only))


def run(places: list[str], only: list[str], limit_s: float, file: Path, done: set[str]) -> list[Outcome]:
    """Every cell that is asked for and is not done, until the time is over."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + limit_s
    for name in places:
        todo = [cell for cell in cells(name) if wanted(cell, only) and cell.name not in done]
        if not todo:
            continue
        with small_disk() as folder, PLACES[name](folder) as place:
            for number, cell in enumerate(todo):
                if time.monotonic() > end:
                    print(f"{len(todo) - number} cells of {name} were left out: the time is over", flush=True)
                    break
                outcome = run_cell(place, cell, number)
                outcomes.append(outcome)
                print(f"{outcome.seconds:6.1f} s  {outcome.outcome:11}  {cell.name}", *outcome.faults, sep="\n    ")
                sys.stdout.flush()
                save(outcomes, file)
    return outcomes


def rows_of(file: Path) -> dict[str, dict[str, Any]]:
    """What the file holds, by cell."""
    return {row["cell"]: row for row in json.loads(file.read_text(encoding="utf-8"))} if file.exists() else {}


def save(outcomes: list[Outcome], file: Path) -> None:
    """Write the outcomes into the file, in the place of earlier ones of the same cells."""
    rows = rows_of(file)
    for outcome in outcomes:
        rows[outcome.cell.name] = {
            "cell": outcome.cell.name,
            "place": outcome.cell.place,
            "fault": outcome.cell.fault,
            "effect": outcome.cell.effect,
            "when": outcome.cell.when,
            "outcome": outcome.outcome,
            "seconds": outcome.seconds,
            "faults": list(outcome.faults),
            "on": datetime.now(UTC).date().isoformat(),
        }
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([rows[key] for key in sorted(rows)], indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", choices=sorted(PLACES), action="append", help="this one alone")
    parser.add_argument("--only", action="append", default=[], help="cells whose name holds this")
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no cell after this time")
    parser.add_argument("--out", type=Path, default=FILE, help="where the outcomes go; a page shows the default")
    parser.add_argument("--resume", action="store_true", help="leave out cells whose outcome is there already")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the store's server tells each request
    done = set(rows_of(options.out)) if options.resume else set()
    places = options.place or sorted(PLACES, reverse=True)
    outcomes = run(places, options.only, 60 * options.minutes, options.out, done)
    counts = {name: sum(o.outcome == name for o in outcomes) for name in ("held", "failed", "not reached")}
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
