"""Pauses of a process that takes no jobs for a while, because the machine would fail any of them."""

from __future__ import annotations

import threading
from typing import Final

from firstread.clock import monotonic

FIRST_S: Final = 1.0
LONGEST_S: Final = 25.0
"""Below the silence after which the supervisor takes a worker's consumer for dead."""


class Pause:
    """How long to wait before the next job: longer after each fault in a row. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._length_s = 0.0
        self._until = 0.0

    def left_s(self) -> float:
        """Seconds until jobs are taken again; 0 without a pause."""
        with self._lock:
            return max(0.0, self._until - monotonic())

    def begin(self) -> float:
        """Begin a pause after a fault, and say how long it is; the faults of several threads at once make one."""
        with self._lock:
            now = monotonic()
            if now >= self._until:
                self._length_s = min(LONGEST_S, max(FIRST_S, 2.0 * self._length_s))
                self._until = now + self._length_s
            return self._until - now

    def forget(self) -> None:
        """A job went well: the next fault begins with a short pause."""
        with self._lock:
            self._length_s = 0.0
