"""The threads that keep time: heartbeat of this listener, and the look at what may close."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from dicom_listener import metrics
from dicom_listener.studies.closing import HEARTBEAT_S, close_due, reap_lost
from dicom_listener.studies.doorbell import Doorbell
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
    """Closes studies and keeps the heartbeat; one in every listener, row locks keep them apart.

    ``lost`` is set whenever deliveries of a listener that fell silent were found: files of it may lack their rows.
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
        self.lost = threading.Event()
        self.reconciled = threading.Event()
        self._patient_until = time.monotonic() + RECONCILE_LIMIT_S
        self._threads = [
            threading.Thread(target=self._look_after, name="closer", daemon=True),
            threading.Thread(target=self._beat, name="heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin; the first heartbeat is the caller's."""
        for thread in self._threads:
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
        if not self.reconciled.is_set() and time.monotonic() < self._patient_until:
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
        """Write the heartbeat; give up on listeners that have none."""
        write_heartbeat(self._db, self._listener)
        if reap_lost(self._db):
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
