"""The threads that keep time: heartbeat of this listener, and the look at what may close."""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from dicom_listener import metrics
from dicom_listener.studies.closing import HEARTBEAT_S, close_due, reap_lost
from dicom_listener.studies.doorbell import Doorbell
from firstread.records import Database, Process, write_heartbeat
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)
LOOK_S = 0.2
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
        self.lost = threading.Event()
        self.reconciled = threading.Event()
        self._patient_until = time.monotonic() + RECONCILE_LIMIT_S
        self._threads = [
            threading.Thread(target=self._loop, args=(self.look, LOOK_S), name="closer", daemon=True),
            threading.Thread(target=self._loop, args=(self.keep_alive, HEARTBEAT_S), name="heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin; the first heartbeat is the caller's."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the steps in hand."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=10.0)

    def look(self) -> None:
        """Close what is due and announce it."""
        if not self.reconciled.is_set() and time.monotonic() < self._patient_until:
            return
        for closed in close_due(self._db, self._settings):
            metrics.STUDY_CLOSES.labels(reason=closed.reason).inc()
            if closed.spared_s:
                metrics.EARLY_CLOSES.labels(outcome="closed").inc()
            LOGGER.info("study %s revision %s closed (%s)", closed.study_key, closed.number, closed.reason)
            self._doorbell.announce(closed)

    def keep_alive(self) -> None:
        """Write the heartbeat; give up on listeners that have none."""
        write_heartbeat(self._db, self._listener)
        if reap_lost(self._db):
            self.lost.set()

    def _loop(self, step: object, every_s: float) -> None:
        assert callable(step)
        failed = False
        while not self._stopping.wait(every_s):
            try:
                step()
                failed = False
            except SQLAlchemyError as error:
                if not failed:
                    LOGGER.error("database not available (%s); studies close later", type(error).__name__)
                failed = True
            except Exception:
                LOGGER.exception("a look at what may close failed")
