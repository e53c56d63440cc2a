"""The row that says that a process lives: written at its start, renewed, and removed at an orderly end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from firstread.processes.lasting import lasting_thread
from firstread.records import Database, SchemaChanged, own_process, remove_process, write_heartbeat

RENEW_S = 5.0

log = logging.getLogger(__name__)


class ProcessRow:
    """This process's row in the database, and the thread that renews it every five seconds.

    Parameters
    ----------
    on_other_schema : callable, optional
        Called when a renewal finds that another version of the program has changed the schema.
    """

    def __init__(self, db: Database, key: str, kind: str, on_other_schema: Callable[[], None] = lambda: None) -> None:
        self._db = db
        self._on_other_schema = on_other_schema
        self._row = own_process(key, kind)
        self._stop = threading.Event()
        self._thread = lasting_thread(self._run, "heartbeat", stopping=self._stop)

    def start(self, **details: object) -> None:
        """Write the row. ``details`` are facts without patient data: state, models ..."""
        self._row.details = details
        write_heartbeat(self._db, self._row)
        self._thread.start()

    def update(self, **details: object) -> None:
        """Change the facts and write them at once."""
        self.set_details(**details)
        self._renew()

    def set_details(self, **details: object) -> None:
        """Change the facts; the next renewal writes them. Does nothing else, so that signal handlers may call it."""
        self._row.details = {**self._row.details, **details}

    def close(self) -> None:
        """Remove the row: an orderly end."""
        self._stop.set()
        self._thread.join(timeout=2 * RENEW_S)
        try:
            remove_process(self._db, self._row.id)
        except SQLAlchemyError as error:
            log.warning("process row not removed", extra={"reason": type(error).__name__})

    def _renew(self) -> None:
        try:
            write_heartbeat(self._db, self._row)
        except SchemaChanged as error:
            log.error("%s: install the version that changed it", error)
            self._on_other_schema()
        except Exception as error:  # noqa: BLE001  # whatever it is, the next renewal may do
            log.warning("heartbeat not written", extra={"reason": type(error).__name__})

    def _run(self) -> None:
        while not self._stop.wait(RENEW_S):
            self._renew()
