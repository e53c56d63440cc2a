"""The threads that keep time: heartbeat of this listener, and the look at what may close."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from dicom_listener import metrics
from dicom_listener.studies.closing import HEARTBEAT_S, close_due, reap_lost, silent_listeners
from dicom_listener.studies.doorbell import Doorbell
from firstread.clock import monotonic
from firstread.processes.lasting import lasting_thread
from firstread.records import Database, Process, write_heartbeat
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_S = 0.2
"""Longest pause between two looks: another listener of this database may have written what makes a study due."""
SHORTEST_S = 0.01
RECONCILE_LIMIT_S = 60.0
"""Longest that closing waits for spool and rows to agree after a start."""


class Closer:
    """Keeps the heartbeat, and closes studies once it leads: one of the processes of a listener does.

    Several listeners on one database each have one that leads; row locks keep them apart.

    ``lost`` is set whenever another listener fell silent, or left deliveries open: files of it may lack their rows, and
    where its host is gone nobody else makes them.
    Nothing closes until ``reconciled`` is set, so that a revision does not miss what a killed process had received.
    """

    def __init__(self, db: Database, settings: Settings, listener: Process, doorbell: Doorbell) -> None:
        self._db = db
        self._settings = settings
        self._listener = listener
        self._doorbell = doorbell
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._failed: set[str] = set()
        self._silent: set[str] | None = None
        self.lost = threading.Event()
        self.reconciled = threading.Event()
        self._patient_until = 0.0
        self._leads = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Keep the heartbeat; the first one is the caller's."""
        self._run(self._beat, "heartbeat")

    def lead(self) -> None:
        """Close studies from now on, once spool and rows were compared."""
        self._leads = True
        self._patient_until = monotonic() + RECONCILE_LIMIT_S
        self._run(self._look_after, "closer")

    def compare_again(self) -> None:
        """Close nothing until spool and rows agree again: a process is gone that may have left files without rows."""
        self._patient_until = monotonic() + RECONCILE_LIMIT_S
        self.reconciled.clear()
        self.lost.set()

    def _run(self, work: Callable[[], None], name: str) -> None:
        thread = lasting_thread(work, name, stopping=self._stopping)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """End after the steps in hand."""
        self._stopping.set()
        self._woken.set()
        for thread in self._threads:
            thread.join(timeout=10.0)

    def wake(self) -> None:
        """Look now: the end of a delivery was written."""
        self._woken.set()

    def look(self) -> float:
        """Close what is due and announce it; seconds until the next look."""
        if not self.reconciled.is_set() and monotonic() < self._patient_until:
            return LOOK_S
        look = close_due(self._db, self._settings)
        for closed in look.closed:
            metrics.STUDY_CLOSES.labels(reason=closed.reason).inc()
            if closed.spared_s:
                metrics.EARLY_CLOSES.labels(outcome="closed").inc()
            LOGGER.info("study %s revision %s closed (%s)", closed.study_key, closed.number, closed.reason)
            self._doorbell.announce(closed)
        return min(LOOK_S, max(SHORTEST_S, look.next_s))

    def keep_alive(self) -> None:
        """Write the heartbeat; give up on listeners that have none, in the process that leads."""
        write_heartbeat(self._db, self._listener)
        if not self._leads:
            return
        silent, known = silent_listeners(self._db), self._silent
        self._silent = silent
        # those that were silent before this one began are the first round's
        if reap_lost(self._db) or (known is not None and silent - known):
            self.lost.set()

    def _look_after(self) -> None:
        wait_s = LOOK_S
        while not self._stopping.is_set():
            self._woken.wait(wait_s)
            self._woken.clear()
            if not self._stopping.is_set():
                wait_s = self._step("look", self.look) or LOOK_S

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            self._step("heartbeat", self.keep_alive)

    def _step(self, name: str, step: Callable[[], T]) -> T | None:
        """What a step gives; None where it failed, which is said once until it succeeds again."""
        try:
            given = step()
            self._failed.discard(name)
            return given
        except SQLAlchemyError as error:
            if name not in self._failed:
                LOGGER.error("database not available (%s); studies close later", type(error).__name__)
            self._failed.add(name)
        except Exception:
            LOGGER.exception("a look at what may close failed")
        return None
