"""Memory, descriptors, threads and disk while the soak goes on, and by how much they grow."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from scipy import stats

from firstread.settings import Settings

MB: Final = 1e6
WARM_S: Final = 60.0
"""A process fills its caches first; its samples count from then on."""
BLOCK_S: Final = 30.0
"""Samples within so long are one: neighbours tell the same."""
MEASURES: Final = {"memory": "MB", "descriptors": "", "threads": ""}
KINDS: Final = {
    "worker.decoder": "decoders",
    "worker.process": "worker",
    "firstread_cli.main up": "up",
    "firstread_cli.main listen": "listener",
    "dicom_listener.crew.member": "listener",
    "firstread_cli.main work": "worker",
    "firstread_cli.main deliver": "deliver",
    "firstread_cli.main web": "web",
    "valkey": "broker",
    "redis": "broker",
}
"""Part of a command line, and what the process is called; the first that fits."""


@dataclass(frozen=True)
class Sample:
    """One process at one time."""

    at_s: float
    kind: str
    pid: int
    memory: float
    descriptors: float
    threads: float


class Sampler(threading.Thread):
    """Looks at every process below one, and at the folders of a home.

    Parameters
    ----------
    pid : int
        Of ``firstread up``.
    finished : callable
        How many studies are finished.
    """

    def __init__(self, pid: int, settings: Settings, every_s: float, finished: Callable[[], int]) -> None:
        super().__init__(name="sampler", daemon=True)
        self._pid, self._settings, self._every_s, self._finished = pid, settings, every_s, finished
        self._began = time.monotonic()
        self._over = threading.Event()
        self.samples: list[Sample] = []
        self.disk: list[tuple[float, int, float, float]] = []
        """Seconds, finished studies, MB of what is kept of them, MB of everything else in the home."""

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while not self._over.wait(self._every_s):
            now = time.monotonic() - self._began
            with contextlib.suppress(psutil.NoSuchProcess):
                first = psutil.Process(self._pid)
                for process in (first, *first.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        self.samples.append(_sample(process, now))
            home = self._settings.home
            kept = sum(
                map(_size_mb, (self._settings.spool_dir, self._settings.evidence_dir, self._settings.objects_dir))
            )
            kept += sum(path.stat().st_size for path in home.glob("*.sqlite*")) / MB
            self.disk.append((now, self._finished(), kept, _size_mb(home) - kept))

    def stop(self) -> None:
        """No more."""
        self._over.set()
        self.join()


def _sample(process: psutil.Process, now: float) -> Sample:
    with process.oneshot():
        return Sample(
            now,
            _kind_of(process.cmdline()),
            process.pid,
            process.memory_info().rss / MB,
            process.num_fds(),
            process.num_threads(),
        )


def _kind_of(command: list[str]) -> str:
    line = " ".join(command)
    return next((kind for part, kind in KINDS.items() if part in line), "other")


def _size_mb(folder: Path) -> float:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total / MB


@dataclass(frozen=True)
class Slope:
    """Growth an hour with its 95 % interval; NaN where there is too little to tell."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, groups: list[list[tuple[float, float]]]) -> Slope:
        """One slope for several processes, each with a level of its own, by least squares over blocks of time.

        Parameters
        ----------
        groups : list of list of (float, float)
            Seconds and values, a group a process.
        """
        xs: list[float] = []
        ys: list[float] = []
        used = 0
        for points in (_blocks(group) for group in groups):
            if len(points) >= 2:
                used += 1
                mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
                xs += [x - mean_x for x, _ in points]
                ys += [y - mean_y for _, y in points]
        spread, free = sum(x * x for x in xs), len(xs) - used - 1
        if free < 1 or not spread:
            return cls(math.nan, math.nan, math.nan)
        slope = sum(x * y for x, y in zip(xs, ys, strict=True)) / spread
        left = sum((y - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
        half = float(stats.t.ppf(0.975, free)) * math.sqrt(left / free / spread)
        return cls(3600 * slope, 3600 * (slope - half), 3600 * (slope + half))

    def as_json(self) -> dict[str, float] | None:
        """Rounded; None where there is none."""
        if math.isnan(self.value):
            return None
        return {name: round(getattr(self, name), 2) for name in ("value", "low", "high")}


def _blocks(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of blocks of :data:`BLOCK_S`."""
    blocks: dict[int, list[tuple[float, float]]] = {}
    for x, y in points:
        blocks.setdefault(int(x // BLOCK_S), []).append((x, y))
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in blocks.values()]


def growth(samples: list[Sample], warm_s: float = WARM_S) -> dict[str, dict[str, Any]]:
    """By kind of process: how many there were, and of each measure the most, the last and the slope."""
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted({sample.kind for sample in samples}):
        ours: dict[int, list[Sample]] = {}
        for sample in samples:
            if sample.kind == kind:
                ours.setdefault(sample.pid, []).append(sample)
        found[kind] = {"processes": len(ours)}
        for measure in MEASURES:
            groups = [
                [(s.at_s, float(getattr(s, measure))) for s in of_one if s.at_s - of_one[0].at_s >= warm_s]
                for of_one in ours.values()
            ]
            values = [float(getattr(s, measure)) for of_one in ours.values() for s in of_one]
            found[kind][measure] = {"most": round(max(values), 1), "an_hour": Slope.of(groups).as_json()}
    return found


def disk_growth(disk: list[tuple[float, int, float, float]]) -> dict[str, Any]:
    """What a study takes for good, and whether anything else grows."""
    if len(disk) < 2 or disk[-1][1] == disk[0][1]:
        return {}
    studies = disk[-1][1] - disk[0][1]
    others = Slope.of([[(at_s, other) for at_s, _, _, other in disk if at_s >= WARM_S]])
    return {
        "mb_a_study": round((disk[-1][2] - disk[0][2]) / studies, 3),
        "everything_else_mb": {"most": round(max(row[3] for row in disk), 1), "an_hour": others.as_json()},
    }
