"""Bounds that every door keeps for every input: memory and processor time of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.fuzz.door import Broken

LISTENER_MB: Final = 400
"""Of a listener process (docs/operations.md)."""
IDLE_LISTENER_MB: Final = 145
LISTENER_GROWTH_MB: Final = LISTENER_MB - IDLE_LISTENER_MB
"""A fuzzer is larger than a listener when it begins, so what counts is by how much it grows."""
CPU_S: Final = 10.0


def memory_mb(what: str, pid: int | str = "self") -> float:
    """``VmRSS`` or ``VmHWM`` of a process in MiB (proc(5)); 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:")), 0.0)


def forget_peak(pid: int | str = "self") -> None:
    """Let the peak of a process begin anew (proc(5), clear_refs)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


class Bounds:
    """Watches this process over many inputs.

    Parameters
    ----------
    growth_mb : float
        Most that one input may take beyond what was held before it, and most that all of them together may leave.
    """

    def __init__(self, growth_mb: float = LISTENER_GROWTH_MB, cpu_s: float = CPU_S) -> None:
        self._growth_mb = growth_mb
        self._cpu_s = cpu_s
        self._first_mb = memory_mb("VmRSS")

    @contextmanager
    def kept(self, clock: Callable[[], float] = time.process_time) -> Iterator[None]:
        """Raise :class:`Broken` where the block took more of memory or time."""
        forget_peak()
        before_mb, started = memory_mb("VmRSS"), clock()
        yield
        seconds, peak_mb = clock() - started, memory_mb("VmHWM")
        if seconds > self._cpu_s:
            raise Broken(f"more than {self._cpu_s:g} s of processor time")
        if peak_mb - before_mb > self._growth_mb:
            raise Broken(f"more than {self._growth_mb:g} MiB for one input")
        if memory_mb("VmRSS") - self._first_mb > self._growth_mb:
            raise Broken(f"more than {self._growth_mb:g} MiB kept after many inputs")
