"""The processes of a place: each is started again when it is gone, as a service manager does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

LOOK_S = 0.1


class Service:
    """A command that is started again when it has ended.

    Attributes
    ----------
    starts : int
        How often it was started.
    """

    def __init__(self, name: str, command: Sequence[str], environ: dict[str, str], folder: Path) -> None:
        self.name, self.starts = name, 0
        self._command, self._environ, self._folder = command, environ, folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process number while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def output(self) -> str:
        """The last lines that it printed."""
        with contextlib.suppress(OSError):
            return (self._folder / f"{self.name}.out").read_text(encoding="utf-8", errors="replace")[-1500:]
        return ""

    def keep(self) -> None:
        """Start it if it does not run."""
        if self.pid is None:
            self.starts += 1
            with (self._folder / f"{self.name}.out").open("ab") as out:
                self._process = subprocess.Popen(
                    list(self._command), env=self._environ, stdout=out, stderr=out, start_new_session=True
                )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.kill()


class Keeper:
    """Keeps services running in a thread until it is closed."""

    def __init__(self, keeps: Sequence[Callable[[], None]]) -> None:
        self._keeps = list(keeps)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            for keep in self._keeps:
                keep()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)


def descendants(pid: int) -> list[int]:
    """Every process below one."""
    pids: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text(encoding="ascii").split()):
                pids += [child, *descendants(child)]
    return pids


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL to each that is there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
