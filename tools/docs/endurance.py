"""Tables of ``docs/reliability.md`` that ``python -m tests.fuzz`` and ``python -m tests.soak`` write the figures of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tools.docs.figures import ROOT, table

FUZZ: Final = ROOT / "docs" / "reliability" / "fuzz.json"
SOAK: Final = ROOT / "docs" / "reliability" / "soak.json"
DOORS: Final = {
    "upper_layer": "upper layer: conversations with a listening socket",
    "data_set": "data set: files of the inbox, then what a worker reads of them",
    "jpeg": "JPEG, in decoder processes",
    "jpeg_ls": "JPEG-LS, in decoder processes",
    "jpeg_2000": "JPEG 2000, in decoder processes",
    "rle": "RLE, in decoder processes",
    "zip": "zip archives of the inbox",
    "picture": "pictures of the inbox",
    "package": "model packages",
    "destinations": "files of destinations and settings",
    "stow": "bodies of STOW-RS requests",
    "http": "`/metrics`",
    "page": "the worklist page",
}


def fuzzing() -> str:
    """Each door with how much it was given, and what broke."""
    if not FUZZ.exists():
        return "Not run for this release; `python -m tests.fuzz` does it.\n"
    report = _read(FUZZ)
    rows = []
    for row in report["doors"]:
        rows.append(
            (
                DOORS[row["door"]],
                f"{row['structures']['inputs']:,}",
                f"{row['bytes']['inputs']:,}",
                f"{(row['structures']['seconds'] + row['bytes']['seconds']) / 60:.1f}",
                str(row["outcomes"]),
                str(row["broken"]),
            )
        )
    head = ("door", "structures", "bytes", "minutes", "different outcomes", "promises broken")
    return f"{table(head, rows)}\n{_when(report)}\n"


def soak() -> str:
    """What was done, what agreed, and what grew."""
    if not SOAK.exists():
        return "Not run for this release; `python -m tests.soak` does it.\n"
    report = _read(SOAK)
    killed = ", ".join(f"{kind} {n} times" for kind, n in sorted(report["killed"].items())) or "nothing"
    went = "no PACS here" if report["pacs_gone"] is None else f"the PACS went {report['pacs_gone']} times"
    waits = ", ".join(f"{kind} {seconds:g} s" for kind, seconds in report["median_wait_s"].items())
    first = (
        f"{report['minutes']:g} minutes, {report['senders']} senders that pause {report['pause_s']:g} s between two "
        f"studies, {report['models']}: "
        f"{report['studies']:,} studies, {report['images_acknowledged']:,} acknowledgements; killed: {killed}; {went}. "
        f"From a study's close to its score, median: {waits}.\n"
    )
    counts = [(what, str(there), str(here)) for what, (there, here) in report["counts"].items()]
    agree = table(("what", "expected, or counted outside", "found"), counts)
    lines = [
        (kind, str(row["processes"]), *(_grown(row[measure]) for measure in ("memory", "descriptors", "threads")))
        for kind, row in report["growth"].items()
    ]
    grown = table(("process", "how many, one after the other", "memory, MB", "descriptors", "threads"), lines)
    parts = [first, agree, "At most, and growth an hour with its 95 % interval:\n", grown]
    if report["disk"]:
        other = report["disk"]["everything_else_mb"]
        parts.append(
            f"Disk: {report['disk']['mb_a_study']:g} MB a study that stay until retention takes them; everything else "
            f"in the home, MB: {_grown(other)}.\n"
        )
    faults = report["faults"]
    parts.append("Every count agreed.\n" if not faults else "**Faults:** " + "; ".join(faults) + "\n")
    return "\n".join([*parts, _when(report) + "\n"])


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _grown(measure: dict[str, Any]) -> str:
    slope = measure["an_hour"]
    if slope is None:
        return f"{measure['most']:g} (too short to tell growth)"
    return f"{measure['most']:g}; {slope['value']:+g} ({slope['low']:+g} to {slope['high']:+g})"


def _when(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return (
        f"{report['started_at'][:10]}, {machine['cores']} cores ({machine['processor']}); load average "
        f"{report['load_before']:.1f} to {report['load_after']:.1f}, other programs took "
        f"{report['cores_taken_by_others']:.1f} cores meanwhile."
    )
