"""Memory of a worker that has nothing in hand: what studies left behind goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from typing import Final, Protocol

from firstread.processes.lasting import lasting_thread

LOOK_S: Final = 2.0
ARENAS: Final = 2
_M_ARENA_MAX: Final = -8
"""Of mallopt(3), in glibc's malloc.h."""


def share_arenas() -> None:
    """Let all threads allocate from few arenas of glibc, where it is the libc; it would make eight a core.

    What a thread freed lies in its own arena, of no use to others. To be called before there are threads of ours. What
    the environment says of arenas counts.
    """
    libc = ctypes.CDLL(None)
    said = "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", "")
    if hasattr(libc, "gnu_get_libc_version") and not said:
        libc.mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Collect what nobody holds any more, and give free pages of the heap back (malloc_trim(3)), where libc can.

    glibc keeps what is freed below something that is still in use, in each thread's arena.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def settle() -> None:
    """After the start: what is loaded by now stays, so the collector need not look at it again, study after study."""
    give_back()
    gc.freeze()


class Jobs(Protocol):
    """What is in hand; :class:`worker.scoring.leases.LeaseKeeper` is one."""

    @property
    def taken(self) -> int:
        """Jobs ever taken."""
        ...

    def progress(self) -> dict[int, float]:
        """Those in hand."""
        ...


class Tidier:
    """A thread that gives memory back whenever jobs are done and none is in hand.

    Parameters
    ----------
    jobs : Jobs
    look_s : float
        Between two looks; in a pause between two studies that is shorter nothing happens.
    """

    def __init__(self, jobs: Jobs, look_s: float = LOOK_S) -> None:
        self._jobs = jobs
        self._look_s = look_s
        self._seen = self._tidied = 0
        self._stop = threading.Event()
        self._thread = lasting_thread(self._run, "tidier", stopping=self._stop)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def look(self) -> bool:
        """Tidy up where nothing came since the last look, nothing is in hand and something was; whether it did."""
        taken, quiet = self._jobs.taken, self._jobs.taken == self._seen and not self._jobs.progress()
        self._seen = taken
        if not quiet or taken == self._tidied:
            return False
        self._tidied = taken
        give_back()
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._look_s):
            self.look()
