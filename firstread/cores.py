"""The processors of this machine, and work on the slices of a study that all of them do at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

MOST: Final = 4
"""Threads for one study: other studies are in hand beside it, and what lies between NumPy's calls runs by turns."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(function: Callable[..., T], *columns: Iterable[object]) -> list[T]:
    """``list(map(function, *columns))``, in threads: for functions that spend their time in NumPy and OpenCV.

    Threads end before this returns, so that a process may be forked after it. Where none can be started, the caller
    does the work.
    """
    rows = list(zip(*columns, strict=True))
    threads = min(MOST, cores(), len(rows))
    if threads > 1:
        with ThreadPoolExecutor(threads, thread_name_prefix="slices") as pool:
            try:
                waiting = [pool.submit(function, *row) for row in rows]
            except RuntimeError:  # the system gives no more threads
                waiting = []
            if waiting:
                return [future.result() for future in waiting]
    return [function(*row) for row in rows]
