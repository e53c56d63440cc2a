"""What libraries may say in our logs: that they spoke, and where; never their words, which repeat what senders wrote.

pydicom, highdicom and pynetdicom put values of data elements, names of patients among them, into warnings and log
messages, and say them again for every object.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

OURS = frozenset({"firstread", "firstread_cli", "dicom_listener", "worker", "training", "__main__"})
PLUMBING = frozenset({"celery", "kombu", "amqp", "redis", "watchfiles", "prometheus_client"})
"""Libraries that see messages and sockets, and no data of a study: their warnings keep their words."""

TALKERS = ("celery.app.trace", "celery.worker.strategy")
"""Parts of those that repeat what a task was given or raised."""

AGAIN_S = 3600.0
WITHHELD = "%s spoke at %s:%d; what it said is not repeated"

log = logging.getLogger(__name__)


class Foreign(logging.Filter):
    """Lets our own records pass, and of each place in a library one an hour, without its words.

    Parameters
    ----------
    silent : bool
        Nothing of libraries at all, for commands whose output a person reads.
    """

    def __init__(self, *, silent: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._silent = silent
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; a library's is changed on the way."""
        top = record.name.partition(".")[0]
        if top in OURS:
            return True
        if self._silent or record.levelno < logging.WARNING:
            return False
        if top in PLUMBING and not record.name.startswith(TALKERS):
            return True
        if getattr(record, "withheld", False):
            return True  # another handler has been here
        if not self._first(record):
            return False
        record.msg, record.args = WITHHELD, (record.name, Path(record.pathname).name, record.lineno)
        record.withheld = True
        return True

    def _first(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, record.pathname, record.lineno), self._clock()
        with self._lock:
            last = self._seen.get(key)
            if last is not None and now - last < AGAIN_S:
                return False
            self._seen[key] = now
            return True


class WarningNotes:
    """Takes the place of :func:`warnings.showwarning`: one line a place and class, without the words."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        key = (category.__name__, filename, lineno)
        if key not in self._seen:
            self._seen.add(key)
            log.info("%s at %s:%d; its words are not repeated", category.__name__, Path(filename).name, lineno)


def note_warnings() -> None:
    """Let Python's warnings be notes in the log of this process."""
    warnings.showwarning = WarningNotes()


def silence_libraries() -> None:
    """For a command: libraries say nothing on the terminal, and our own warnings are plain lines."""

    def nothing(*_args: Any, **_words: Any) -> None:
        """No word of a warning."""

    warnings.showwarning = nothing
    last = logging.StreamHandler()
    last.setLevel(logging.WARNING)
    last.addFilter(Foreign(silent=True))
    last.setFormatter(logging.Formatter("firstread: %(message)s"))
    logging.lastResort = last
