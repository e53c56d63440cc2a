"""Signs of life from the worker process to its supervisor: a line of JSON on a pipe, twice a second.

Not through the database: a database that hangs must not look like a worker that hangs. Times are ``time.monotonic()``,
which is one clock for all processes of a machine.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from firstread.processes.lasting import lasting_thread

HEARTBEAT_S = 0.5
HEARTBEAT_FD_VARIABLE = "WORKER_BEAT_FD"
OWNER_VARIABLE = "WORKER_OWNER"


@dataclass
class Heartbeat:
    """One sign of life.

    Attributes
    ----------
    state : str
        ``starting``, ``ready`` or ``stopping``.
    jobs : dict
        Job in hand to the time of its last progress.
    doorbell_at : float
        When a doorbell was answered last.
    """

    at: float
    state: str = "starting"
    jobs: dict[int, float] = field(default_factory=dict)
    doorbell_at: float = 0.0


class HeartbeatSender:
    """The child's end: a thread that writes. Without a pipe (no supervisor) it does nothing."""

    def __init__(self, make: Callable[[], Heartbeat]) -> None:
        self._make = make
        number = os.environ.get(HEARTBEAT_FD_VARIABLE)
        self._fd = int(number) if number else None
        self._stop = threading.Event()
        self._thread = lasting_thread(self._run, "beater", stopping=self._stop)

    def start(self) -> None:
        """Begin to write."""
        if self._fd is not None:
            os.set_blocking(self._fd, False)
            self._thread.start()

    def close(self) -> None:
        """Stop writing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * HEARTBEAT_S)

    def _run(self) -> None:
        assert self._fd is not None
        while True:
            line = json.dumps(asdict(self._make())) + "\n"
            try:
                os.write(self._fd, line.encode())
            except BlockingIOError:
                pass  # the supervisor is busy; it reads the last line only
            except OSError:
                return
            if self._stop.wait(HEARTBEAT_S):
                return


class HeartbeatReader:
    """The supervisor's end."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._rest = b""
        self.last = Heartbeat(at=time.monotonic())

    def read(self) -> Heartbeat:
        """The newest beat; the one before where nothing came."""
        while True:
            try:
                chunk = os.read(self._fd, 65536)
            except BlockingIOError:
                break
            if not chunk:
                break
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        for line in reversed(lines):
            try:
                values = json.loads(line)
            except ValueError:
                continue
            values["jobs"] = {int(key): float(at) for key, at in values["jobs"].items()}
            self.last = Heartbeat(**values)
            break
        return self.last

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._fd)
