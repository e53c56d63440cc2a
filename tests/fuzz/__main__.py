"""``python -m tests.fuzz DOOR --seconds N``: run the fuzzer of a door; ends with 1 where a promise was broken."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import facts
from tests.fuzz.door import MODULES

ROOT: Final = Path(__file__).resolve().parents[2]
OUT: Final = ROOT / "build" / "fuzz"
START_S: Final = 600
WAYS: Final = ("bytes", "structures")


def run(name: str, seconds: int, seed: int, out: Path) -> dict[str, Any]:
    """One door, for so many seconds; the counts of both ways."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("crash-*"), *folder.glob("*.json")):
        old.unlink()
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(seconds), str(folder), str(seed)]
    log = folder / "log.txt"
    with log.open("wb") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=_environ(), stdout=file, stderr=file, timeout=seconds + START_S, check=False
        )
    crashes = [path.name for path in folder.glob("crash-*")]
    if done.returncode or crashes:
        print(f"{name}: the process that was fuzzed ended with {done.returncode}, {crashes}; see {log}")
    ways = {way: _counts(folder / f"{way}.json") for way in WAYS}
    return {"door": name, "guided": has_atheris(), "ended": done.returncode, "crashes": crashes, **ways}


def _counts(path: Path) -> dict[str, Any]:
    """What one way counted; nothing where it did not begin."""
    nothing = {"inputs": 0, "seconds": 0.0, "outcomes": {}, "faults": {}}
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else nothing


def has_atheris() -> bool:
    """Whether the coverage-guided fuzzer is installed."""
    return importlib.util.find_spec("atheris") is not None


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def is_good(row: dict[str, Any]) -> bool:
    """Whether nothing was found."""
    return not (row["ended"] or row["crashes"] or row["bytes"]["faults"] or row["structures"]["faults"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("doors", nargs="*", metavar="DOOR", help=f"{', '.join(MODULES)}; default: all")
    parser.add_argument("--seconds", type=int, default=600, help="for each door; 0 runs none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="what is found, and fuzz.json with the counts")
    parser.add_argument(
        "--report", type=Path, help="where the figures of docs/reliability.md go, of all doors in --out"
    )
    options = parser.parse_args()
    unknown = set(options.doors) - set(MODULES)
    if unknown:
        parser.error(f"no door {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    path = options.out / "fuzz.json"
    rows = {row["door"]: row for row in (json.loads(path.read_text())["doors"] if path.is_file() else [])}
    good = True
    for name in (options.doors or MODULES) if options.seconds else ():
        with facts(name, quick=options.seconds < 60) as measured:
            row = run(name, options.seconds, options.seed, options.out)
        good = good and is_good(row)
        counts = [f"{row[way]['inputs']} {way} {row[way]['outcomes']}" for way in WAYS]
        print(f"{name}: {'; '.join(counts)}: {'good' if is_good(row) else 'BROKEN'}", flush=True)
        rows[name] = row | {"facts": measured}
        path.write_text(json.dumps({"doors": list(rows.values())}, indent=1) + "\n", encoding="utf-8")
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        report = together([rows[name] for name in MODULES if name in rows])
        options.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The report of doors that were run one after the other, with the facts of the machine over all of them."""
    found = sorted((row["facts"] for row in rows if "facts" in row), key=lambda measured: measured["started_at"])
    loads = [measured[name] for measured in found for name in ("load_before", "load_after")]
    others = sum(measured["cores_taken_by_others"] * measured["seconds"] for measured in found)
    return {
        "started_at": found[0]["started_at"],
        "machine": found[0]["machine"],
        "load_before": min(loads),
        "load_after": max(loads),
        "cores_taken_by_others": round(others / sum(measured["seconds"] for measured in found), 2),
        "doors": [reported(row) for row in rows],
    }


def reported(row: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a door."""
    ways = {way: {name: row[way][name] for name in ("inputs", "seconds")} for way in WAYS}
    outcomes = {outcome for way in WAYS for outcome in row[way]["outcomes"]} - {"BROKEN"}
    broken = {signature for way in WAYS for signature in row[way]["faults"]}
    return {
        "door": row["door"],
        "guided": row["guided"],
        **ways,
        "outcomes": len(outcomes),
        "broken": len(broken) + len(row["crashes"]),
    }


if __name__ == "__main__":
    sys.exit(main())
