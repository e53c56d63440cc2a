"""The sign of life of a process that has nothing else to say in its row."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from firstread.processes.spawning import process_id
from firstread.records import Database, own_process, remove_process, write_heartbeat

BEAT_S: Final = 5.0

log = logging.getLogger(__name__)


def beat(db: Database, kind: str, stop: threading.Event, goes_on: Callable[[], bool] = lambda: True) -> bool:
    """Write heartbeats until ``stop`` is set, and take the row away; blocks.

    Returns
    -------
    bool
        False, with the row left to show what has died, as soon as ``goes_on`` says so.
    """
    row = own_process(process_id(kind), kind)
    while not stop.is_set():
        try:
            write_heartbeat(db, row)
        except SQLAlchemyError as error:
            log.warning("no sign of life: the database does not answer (%s)", type(error).__name__)
        if not goes_on():
            return False
        stop.wait(BEAT_S)
    try:
        remove_process(db, row.id)
    except SQLAlchemyError as error:
        log.warning("row of this process not removed (%s)", type(error).__name__)
    return True
