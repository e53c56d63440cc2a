"""What processes take of the machine: processor seconds and memory, of a process and all that descends from it."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType

import psutil

MB = 1e6
LOOK_S = 0.25


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def busy_s() -> float:
    """Seconds of all processors that were not idle, since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


def family(pid: int) -> list[psutil.Process]:
    """A process and those that descend from it."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(pid: int) -> float:
    """Processor seconds of a family, those of members that have ended included."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def own_cpu_s() -> float:
    """Processor seconds of this process and all that it has started."""
    return cpu_s(os.getpid())


def memory_mb(pid: int) -> tuple[float, float]:
    """Memory of a family in MB: shared pages divided by those who share them, and the largest member's resident size.

    The first is the sum of ``Pss`` of ``/proc/PID/smaps_rollup`` (proc(5)).
    """
    shared, largest = 0.0, 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            largest = max(largest, process.memory_info().rss)
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    shared += int(line.split()[1]) * 1024
    return shared / MB, largest / MB


class PeakMemory:
    """The most that a family has held while the block ran, looked at four times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.family_mb = 0.0
        self.largest_mb = 0.0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            together, largest = memory_mb(self._pid)
            self.family_mb = max(self.family_mb, together)
            self.largest_mb = max(self.largest_mb, largest)
            if self._over.wait(LOOK_S):
                return
