"""The file of destinations in force: read again when it changes, one watch for everything that a process sends.

A change counts once the file has not changed for ``SETTLE_S``, by its own time of change or by ours, so that a file
that is being written is not taken for an empty one. A file that is wrong changes nothing: the last good one stays in
force, after a restart too.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from firstread.settings import Settings
from worker.outputs.destinations.file import DestinationsError, DestinationsFile, kept_path, parse, read_file
from worker.outputs.metrics import DELIVERIES

LOOK_S = 0.5
SETTLE_S = 2.0
NO_FILE = (0, 0, 0)

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class DestinationsWatch:
    """The site's file of destinations, for every lane, the planning and the escalation of one process.

    Parameters
    ----------
    settings : Settings
        Home and path of the file.
    clock : callable
        Monotonic seconds.
    wall : callable
        Seconds of the clock that files bear.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._next = clock() + LOOK_S
        self._read = self._candidate = _stamp(settings)
        self._since = clock()
        self.complaint = ""
        """What is wrong with the file as it is on disk; empty where it is in force."""
        self._file = self._first()

    def current(self) -> DestinationsFile:
        """The file in force. Never raises, and looks at the disk at most twice a second."""
        with self._lock:
            now = self._clock()
            if now >= self._next:
                self._next = now + LOOK_S
                self._look(now)
            return self._file

    def remember(self) -> None:
        """Keep the file in force for a start at which the site's own is wrong."""
        path = self._settings.destinations_file
        if path is None or self.complaint or _stamp(self._settings) != self._read:
            return
        last_good = kept_path(self._settings, path)
        try:
            content = path.read_bytes()
            if _stamp(self._settings) != self._read or (last_good.is_file() and last_good.read_bytes() == content):
                return
            partial = last_good.with_name(f"{last_good.name}.{os.getpid()}.part")
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
            partial.rename(last_good)
        except OSError as error:
            log.warning("the file of destinations was not kept (%s)", error.strerror)

    def _first(self) -> DestinationsFile:
        try:
            return read_file(self._settings)
        except DestinationsError as error:
            self._complain(error)
        path = self._settings.destinations_file
        if path is not None:
            try:
                return parse(kept_path(self._settings, path))
            except DestinationsError:
                log.error("destinations: there is no last good file; nothing is sent")
        return DestinationsFile()

    def _look(self, now: float) -> None:
        stamp = _stamp(self._settings)
        if stamp != self._candidate:
            # a process that looks seldom must not take the first of many looks for the time of the change
            age_s = max(self._wall() - stamp[0] / 1e9, 0.0) if stamp != NO_FILE else 0.0
            self._candidate, self._since = stamp, now - age_s
        if stamp == self._read or now - self._since < SETTLE_S:
            return
        try:
            self._file = read_file(self._settings)
            self.complaint = ""
            log.info("destinations: %d in force", len(self._file.destination))
        except DestinationsError as error:
            self._complain(error)
        self._read = stamp

    def _complain(self, error: DestinationsError) -> None:
        self.complaint = str(error)
        DELIVERIES.labels("planning", "bad_file").inc()
        log.error("destinations: the last good file stays in force: %s", error)


def _stamp(settings: Settings) -> Stamp:
    path = settings.destinations_file
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        stat = None
    return NO_FILE if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)


_watches: dict[tuple[int, Path, Path | None], DestinationsWatch] = {}
_watches_lock = threading.Lock()


def watch_of(settings: Settings) -> DestinationsWatch:
    """The one watch of this process on a site's file."""
    key = (os.getpid(), settings.home, settings.destinations)
    with _watches_lock:
        if key not in _watches:
            _watches[key] = DestinationsWatch(settings)
        return _watches[key]
