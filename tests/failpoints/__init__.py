"""Faults at named effects (:mod:`firstread.effects`): in this process, or in real ones that a test starts.

A process that is started with :func:`environ` in its environment, and its children, obey ``FIRSTREAD_FAILPOINT``:

``NAME:before|after:WHAT[:NTH]``, several of them with commas between. ``NAME`` is an effect's. ``WHAT`` is ``kill``
(SIGKILL), ``stop`` (SIGSTOP), ``error`` (what such an effect may raise), ``error=ENOSPC`` (any name of an errno),
``slow=SECONDS``, or ``ask=FILE``: makes the file and waits until somebody has removed it, who does at that moment what
no failpoint can. ``NTH`` counts in each process by itself, from 1; without it every time is meant.

``FIRSTREAD_FAILPOINT_MARK`` names a file: the first process to come to a failpoint makes it, with name and pid inside,
and none fires any more; so a killed process that is started again comes through.

``FIRSTREAD_FAILPOINT_FILE`` names a file with both, a line each, that is read again whenever it changes: processes run
on from one failpoint to the next.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from firstread import effects
from firstread.effects import AFTER, BEFORE, TABLE, Effect, Kind

VARIABLE = "FIRSTREAD_FAILPOINT"
MARK_VARIABLE = "FIRSTREAD_FAILPOINT_MARK"
FILE_VARIABLE = "FIRSTREAD_FAILPOINT_FILE"
SITE = Path(__file__).parent / "site"
WHATS = ("kill", "stop", "error", "slow", "ask")
ASK_LIMIT_S = 30.0


@dataclass(frozen=True)
class Failpoint:
    """What shall happen where. ``nth`` is 0 for every time."""

    effect: str
    when: str
    what: str
    value: str = ""
    nth: int = 0

    @classmethod
    def parse(cls, text: str) -> Failpoint:
        """One of the entries of ``FIRSTREAD_FAILPOINT``. Raises ValueError."""
        name, when, what, *nth = text.strip().split(":")
        what, _, value = what.partition("=")
        if name not in TABLE or when not in (BEFORE, AFTER) or what not in WHATS or len(nth) > 1:
            raise ValueError(f"no failpoint: {text}")
        return cls(name, when, what, value, int(nth[0]) if nth else 0)

    def __str__(self) -> str:
        what = f"{self.what}={self.value}" if self.value else self.what
        return f"{self.effect}:{self.when}:{what}" + (f":{self.nth}" if self.nth else "")


class Failpoints:
    """Watches effects, and does what its failpoints say. Thread-safe."""

    def __init__(self, points: Iterable[Failpoint], mark: Path | None = None) -> None:
        self._points = {(point.effect, point.when): point for point in points}
        self._seen: Counter[tuple[str, str]] = Counter()
        self._mark = mark
        self._lock = threading.Lock()

    def __call__(self, effect: Effect, when: str) -> None:
        """The watcher of :func:`firstread.effects.watch`."""
        point = self._points.get((effect.name, when))
        if point is None:
            return
        with self._lock:
            self._seen[effect.name, when] += 1
            if point.nth not in (0, self._seen[effect.name, when]) or not self._is_first(point):
                return
        if point.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal is on its way
        elif point.what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif point.what == "slow":
            time.sleep(float(point.value or 1))
        elif point.what == "ask":
            _ask(Path(point.value))
        else:
            raise error_of(effect, point.value)

    def _is_first(self, point: Failpoint) -> bool:
        if self._mark is None:
            return True
        with suppress(FileExistsError):
            fd = os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, f"{point} pid {os.getpid()}\n".encode())
            os.close(fd)
            return True
        return False


class FileOfFailpoints:
    """Watches effects by what a file says: failpoints in its first line, the file of the mark in its second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._points: Failpoints | None = None
        self._lock = threading.Lock()

    def __call__(self, effect: Effect, when: str) -> None:
        """The watcher of :func:`firstread.effects.watch`."""
        with self._lock:
            points = self._read()
        if points is not None:
            points(effect, when)

    def _read(self) -> Failpoints | None:
        try:
            status = os.stat(self._path)
            if (status.st_ino, status.st_mtime_ns) != self._seen:
                self._seen = (status.st_ino, status.st_mtime_ns)
                first, mark = self._path.read_text(encoding="utf-8").split("\n")[:2]
                entries = [Failpoint.parse(text) for text in first.split(",") if text]
                self._points = Failpoints(entries, Path(mark) if mark else None)
        except FileNotFoundError:
            self._points = self._seen = None
        return self._points


def write_file(path: Path, *points: str, mark: Path | None = None) -> None:
    """Write what :class:`FileOfFailpoints` reads, at once. Raises ValueError for a failpoint that there is not."""
    for point in points:
        Failpoint.parse(point)
    new = path.with_suffix(".new")
    new.write_text(f"{','.join(points)}\n{mark or ''}\n", encoding="utf-8")
    new.rename(path)


def _ask(path: Path) -> None:
    path.touch()
    end = time.monotonic() + ASK_LIMIT_S
    while path.exists() and time.monotonic() < end:
        time.sleep(0.01)


def error_of(effect: Effect, name: str = "") -> Exception:
    """What an effect of this kind may raise; ``name`` is that of an errno, ``EIO`` by default."""
    if effect.kind is Kind.COMMIT and not name:
        from sqlalchemy.exc import OperationalError

        return OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))
    if effect.kind is Kind.PUBLISH and not name:
        from kombu.exceptions import OperationalError as BrokerError

        lost: Exception = BrokerError("failpoint")
        return lost
    if effect.kind in (Kind.ACKNOWLEDGE, Kind.SEND) and not name:
        return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    number = getattr(errno, name or "EIO")
    return OSError(number, os.strerror(number))


def environ(*points: str, mark: Path | None = None, file: Path | None = None) -> dict[str, str]:
    """What a process needs in its environment to obey failpoints. Raises ValueError for one that there is not.

    With ``file`` it obeys that file, and nothing else.
    """
    for point in points:
        Failpoint.parse(point)
    before = os.environ.get("PYTHONPATH", "")
    path = {"PYTHONPATH": os.pathsep.join(filter(None, (str(SITE), before)))}
    if file is not None:
        return path | {FILE_VARIABLE: str(file)}
    values = path | {VARIABLE: ",".join(points)}
    return values | ({MARK_VARIABLE: str(mark)} if mark is not None else {})


def obey_environment() -> None:
    """Watch the effects of this process as its environment says; called at its start by ``site/sitecustomize.py``."""
    text = os.environ.get(VARIABLE, "")
    file = os.environ.get(FILE_VARIABLE, "")
    if file:
        effects.watch(FileOfFailpoints(Path(file)))
    elif text:
        mark = os.environ.get(MARK_VARIABLE)
        effects.watch(Failpoints(map(Failpoint.parse, text.split(",")), Path(mark) if mark else None))
