"""What every part of the bench measures: figures of one kind, and the facts of the machine that they hold for."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.processes import busy_s, cores, own_cpu_s

FORMAT = 1


@dataclass(frozen=True)
class Figure:
    """One thing measured several times.

    Attributes
    ----------
    subject : str
        What was measured: a product, an engine, a database; a row of the page.
    measure : str
        What of it; a column of the page.
    unit : str
        Of the values: ``1/s``, ``1/h``, ``s``, ``ms``, ``MB``, ``%``.
    values : tuple of float
        Every repeat, in order.
    missing : str
        Why there is no value, such as a program that is not installed.
    """

    subject: str
    measure: str
    unit: str
    values: tuple[float, ...] = ()
    missing: str = ""

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.missing):
            raise ValueError(f"{self.subject}, {self.measure}: either values or the reason why there are none")

    @property
    def median(self) -> float:
        """Of the values."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        """With median, lowest, highest and N, so that a reader need not compute them."""
        row: dict[str, Any] = {"subject": self.subject, "measure": self.measure, "unit": self.unit}
        if self.missing:
            return row | {"missing": self.missing}
        rounded = [float(f"{value:.5g}") for value in self.values]
        spread = {"median": statistics.median(rounded), "lowest": min(rounded), "highest": max(rounded)}
        return row | spread | {"n": len(rounded), "values": rounded}


@dataclass
class Collected:
    """Repeats as they come, grouped by what they are of; the order of the first ones is kept."""

    unit_of: dict[tuple[str, str], str] = field(default_factory=dict)
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, subject: str, measure: str, unit: str, *values: float) -> None:
        """One or more repeats of a figure."""
        self.unit_of[subject, measure] = unit
        self.values.setdefault((subject, measure), []).extend(values)

    def lacks(self, subject: str, measure: str, unit: str, reason: str) -> None:
        """A figure that cannot be measured here, and why."""
        self.unit_of[subject, measure] = unit
        self.reasons[subject, measure] = reason

    def figures(self) -> list[Figure]:
        """All of them."""
        return [
            Figure(*key, unit, tuple(self.values.get(key, ())), "" if key in self.values else self.reasons[key])
            for key, unit in self.unit_of.items()
        ]


def machine() -> dict[str, Any]:
    """What figures depend on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": cores(),
        "processor": model or platform.machine(),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


@contextmanager
def facts(part: str, *, quick: bool) -> Iterator[dict[str, Any]]:
    """The facts of a measurement, filled in at its end: machine, time, load, and what other programs took meanwhile."""
    row: dict[str, Any] = {"format": FORMAT, "part": part, "quick": quick, "machine": machine()}
    row |= {"started_at": datetime.now(UTC).isoformat(timespec="seconds"), "load_before": round(os.getloadavg()[0], 2)}
    started, all_before, own_before = time.monotonic(), busy_s(), own_cpu_s()
    yield row
    seconds = time.monotonic() - started
    others = max(0.0, (busy_s() - all_before) - (own_cpu_s() - own_before))
    row["seconds"] = round(seconds, 1)
    row["load_after"] = round(os.getloadavg()[0], 2)
    row["cores_taken_by_others"] = round(others / seconds, 2) if seconds else 0.0


def write(folder: Path, row: dict[str, Any], figures: list[Figure]) -> Path:
    """Write what a part measured; returns the file."""
    path = folder / f"{row['part']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [figure.as_json() for figure in figures]
    text = json.dumps(row | {"figures": rows}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def shown(figure: Figure) -> str:
    """A line for the terminal."""
    name = f"{figure.subject}: {figure.measure}"
    if figure.missing:
        return f"  {name:<72} {figure.missing}"
    spread = f"({min(figure.values):.4g} to {max(figure.values):.4g}, N = {len(figure.values)})"
    return f"  {name:<72} {figure.median:10.4g} {figure.unit:<5} {spread}"
