"""The row that says that a process lives: written at its start, renewed, and removed at an orderly end."""

from __future__ import annotations

import logging
import os
import socket
import threading

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from firstread.records import Database, Process
from firstread.records.clock import now_of

RENEW_S = 5.0

log = logging.getLogger(__name__)


class ProcessRow:
    """This process's row in the database, and the thread that renews it every five seconds."""

    def __init__(self, db: Database, key: str, kind: str) -> None:
        self._db = db
        self._key = key
        self._details: dict[str, object] = {}
        self._kind = kind
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self, **details: object) -> None:
        """Write the row. ``details`` are facts without patient data: state, models ..."""
        self._details = details
        with self._db.write() as session:
            now = now_of(session)
            session.merge(
                Process(
                    id=self._key,
                    kind=self._kind,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    started_at=now,
                    heartbeat_at=now,
                    details=details,
                )
            )
        self._thread.start()

    def update(self, **details: object) -> None:
        """Change the facts and write them at once."""
        self._details = {**self._details, **details}
        self._renew()

    def set_details(self, **details: object) -> None:
        """Change the facts; the next renewal writes them. Does nothing else, so that signal handlers may call it."""
        self._details = {**self._details, **details}

    def close(self) -> None:
        """Remove the row: an orderly end."""
        self._stop.set()
        self._thread.join(timeout=2 * RENEW_S)
        try:
            with self._db.write() as session:
                session.execute(delete(Process).where(Process.id == self._key))
        except SQLAlchemyError as error:
            log.warning("process row not removed", extra={"reason": type(error).__name__})

    def _renew(self) -> None:
        try:
            with self._db.write() as session:
                row = session.get(Process, self._key)
                if row is not None:
                    row.heartbeat_at = now_of(session)
                    row.details = dict(self._details)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next renewal may do
            log.warning("heartbeat not written", extra={"reason": type(error).__name__})

    def _run(self) -> None:
        while not self._stop.wait(RENEW_S):
            self._renew()
