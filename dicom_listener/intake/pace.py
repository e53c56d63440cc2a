"""Intake that gives way: while a worker loads its models and none is ready, images are taken more slowly.

Loading takes some twenty seconds of one core. Under a flood of images it took five times as long, and nobody was
flagged meanwhile. A sender that waits a little for each answer loses nothing. In containers one machine has several
names, so a worker on another machine counts too.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from firstread.clock import monotonic
from firstread.processes.lasting import lasting_thread
from firstread.records import WORKER, Database, Process
from firstread.records.clock import now_of

LOOK_S: Final = 1.0
"""Between two looks at the workers, while images come."""

SILENT_S: Final = 60.0
"""A worker that has not been heard of for so long is gone; one that loads may be silent for long."""

SHARE: Final = 2
"""Times what an image took of a processor, for each association that brings images: the pause behind it. All of a
process together then take a third of a core."""

LONGEST_S: Final = 0.5
AMONG_S: Final = 2.0


class Pace:
    """How fast the associations of a process go on. Thread-safe.

    Parameters
    ----------
    db : Database
        Where workers say how far they are.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._came = threading.Event()
        self._stop = threading.Event()
        self._seen: dict[int, float] = {}
        self._own = threading.local()
        self._thread = lasting_thread(self._run, "pace", stopping=self._stop)
        self.gives_way = False
        """Whether a worker starts and none is ready, as of a moment ago."""

    def start(self) -> None:
        """Begin to look at the workers, while images come: in a thread of its own, so that no sender waits for a
        database that is away."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._came.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def step(self) -> float:
        """Called by an association's thread before each object; pauses where need be, and gives the seconds."""
        self._came.set()
        used_s = time.thread_time()
        before_s: float = getattr(self._own, "used_s", used_s)
        pause_s = 0.0
        if self.gives_way:
            pause_s = min(LONGEST_S, SHARE * (used_s - before_s) * self._among())
            time.sleep(pause_s)
        self._own.used_s = time.thread_time()
        return pause_s

    def look(self) -> None:
        """Look at the workers. Where the database is away, nobody is given way to."""
        try:
            self.gives_way = self._look()
        except SQLAlchemyError:
            self.gives_way = False

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._came.wait()
            self._came.clear()
            if not self._stop.is_set():
                self.look()

    def _look(self) -> bool:
        with self._db.read() as session:
            since = now_of(session) - timedelta(seconds=SILENT_S)
            alive = select(Process.details).where(Process.kind == WORKER, Process.heartbeat_at >= since)
            states = {(details or {}).get("state") for details in session.scalars(alive)}
        return "starting" in states and "ready" not in states

    def _among(self) -> int:
        """Associations that bring images now, this one included."""
        now = monotonic()
        with self._lock:
            self._seen[threading.get_ident()] = now
            self._seen = {ident: at for ident, at in self._seen.items() if now - at < AMONG_S}
            return len(self._seen)
