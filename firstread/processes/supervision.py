"""Child processes under supervision: started, watched, started again after a pause, and stopped within a limit."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

from firstread.processes.spawning import stop

LOOK_S = 0.05


class ChildProcess:
    """One process that we started, from its start to its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.started = time.monotonic()
        self.stop_asked: float | None = None
        """When SIGTERM was sent first."""

    @property
    def pid(self) -> int:
        """Process number, also after the end."""
        return self.process.pid

    @property
    def age_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.poll() is None

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.is_running:
            self.process.send_signal(number)

    def ask_to_stop(self) -> None:
        """SIGTERM, once: finish what is in hand."""
        if self.stop_asked is None:
            self.stop_asked = time.monotonic()
            self.send(signal.SIGTERM)

    def wait(self, limit_s: float, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the end, until the limit or until ``give_up`` says so. Returns whether it ended."""
        deadline = time.monotonic() + limit_s
        while self.is_running and time.monotonic() < deadline and not give_up():
            time.sleep(LOOK_S)
        return not self.is_running

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait(timeout=30)

    def stop(self, limit_s: float) -> int:
        """Ask it to end (SIGTERM), kill it after the limit; returns its exit status."""
        return stop(self.process, limit_s)


class Backoff:
    """When a process that ended may be started again: at once, and later each time it ends right after its start.

    A process that never had a good start may be given up on; one that had is tried again for ever.

    Parameters
    ----------
    early_s : float
        An end sooner than this after the start is an early one.
    first_s, longest_s : float
        Pause after the first early end; doubled with each further one, up to the longest.
    most : int, optional
        Early ends in a row after which it counts as failing.
    """

    def __init__(
        self, *, early_s: float, first_s: float = 1.0, longest_s: float = 30.0, most: int | None = None
    ) -> None:
        self.early_s = early_s
        self._first_s = first_s
        self._longest_s = longest_s
        self._most = most
        self._early_ends = 0
        self._ended_at = 0.0
        self._was_good = False

    def record_good(self) -> None:
        """Note that it runs for longer than an early end, or is ready for its work."""
        self._early_ends, self._was_good = 0, True

    def record_end(self, age_s: float, *, was_ready: bool = False) -> None:
        """Note an end. One that was ready for its work did not end early, however young it was."""
        if age_s < self.early_s and not was_ready:
            self._early_ends += 1
        else:
            self.record_good()
        self._ended_at = time.monotonic()

    @property
    def is_failing(self) -> bool:
        """Whether it ended early so often in a row that somebody should know."""
        return self._most is not None and self._early_ends >= self._most

    @property
    def is_exhausted(self) -> bool:
        """Whether it is failing and never had a good start: what it was started with is wrong."""
        return self.is_failing and not self._was_good

    @property
    def pause_s(self) -> float:
        """Seconds from the last end to the next start."""
        return (
            0.0 if not self._early_ends else min(self._longest_s, self._first_s * 2.0 ** min(self._early_ends - 1, 16))
        )

    @property
    def is_over(self) -> bool:
        """Whether the pause has passed."""
        return time.monotonic() >= self._ended_at + self.pause_s
