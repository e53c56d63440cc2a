"""Threads that a process cannot do without: one that an exception ended begins again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

LOGGER = logging.getLogger(__name__)
PAUSE_S: Final = 1.0
PAUSE_LIMIT_S: Final = 60.0
GOOD_S: Final = 60.0
"""After so long a run the next pause is short again."""


def lasting_thread(
    run: Callable[[], object], name: str, pause_s: float = PAUSE_S, stopping: threading.Event | None = None
) -> threading.Thread:
    """A daemon thread that runs ``run`` until it returns, and again where it raises, after a pause that grows.

    Each death is logged and counted by ``name``. Once ``stopping`` is set no pause holds up the end, and nothing begins
    again. What is no ``Exception`` counts too: a library written in Rust ends in one.
    """
    # imported here, since the folder of metrics must be set before
    from firstread.processes.metrics import THREAD_DEATHS

    deaths = THREAD_DEATHS.labels(name)  # at zero from the start, for the alert that counts its increase
    stopped = stopping or threading.Event()

    def again_and_again() -> None:
        pause = pause_s
        while True:
            started = time.monotonic()
            try:
                run()
                return
            except SystemExit:
                raise
            except BaseException:
                LOGGER.exception("the thread %s died; it begins again in %g s", name, pause)
                deaths.inc()
            if time.monotonic() - started > GOOD_S:
                pause = pause_s
            if stopped.wait(pause):
                return
            pause = min(2 * pause, PAUSE_LIMIT_S)

    return threading.Thread(target=again_and_again, name=name, daemon=True)
