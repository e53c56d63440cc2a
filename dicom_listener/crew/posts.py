"""The processes of a listener as their parent sees them: started, watched, started again after a pause."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence
from typing import Final

from dicom_listener import metrics
from dicom_listener.crew.channel import CHANNEL_FD_VARIABLE, STOW_FD_VARIABLE, Channel
from dicom_listener.crew.seats import Member
from firstread.errors import FirstreadError
from firstread.metrics.server import forget_process
from firstread.processes.metrics import FAILING
from firstread.processes.spawning import spawn
from firstread.processes.supervision import Backoff, ChildProcess

EARLY_END_S: Final = 20.0
MOST_EARLY_ENDS: Final = 5
LONGEST_PAUSE_S: Final = 60.0
STUCK_S: Final = 60.0
"""A process that leaves a connection that it was handed for so long is killed."""

LOGGER = logging.getLogger(__name__)


class MembersKeepEnding(FirstreadError):
    """The processes of the listener end again and again right after their start, and none ever served."""


class Post:
    """One of the processes, kept running. To be used from the main thread.

    Parameters
    ----------
    number : int
        From 1 on; names its log.
    environ : dict
        Of the process.
    started : list of Member
        Gets another one each time that the process was started.
    stow : socket.socket or None
        Of the STOW-RS door: each process has it, and the one that leads accepts on it.
    """

    def __init__(
        self, number: int, environ: dict[str, str], started: list[Member], stow: socket.socket | None = None
    ) -> None:
        self.number = number
        self._environ = environ
        self._shared = () if stow is None else (stow.fileno(),)
        if stow is not None:
            self._environ = environ | {STOW_FD_VARIABLE: str(stow.fileno())}
        self._started = started
        self._child: ChildProcess | None = None
        self._member: Member | None = None
        self._backoff = Backoff(early_s=EARLY_END_S, longest_s=LONGEST_PAUSE_S, most=MOST_EARLY_ENDS)

    @property
    def is_failing(self) -> bool:
        """Whether it ends right after each start."""
        return self._backoff.is_failing

    @property
    def is_exhausted(self) -> bool:
        """Whether it is failing and never was ready."""
        return self._backoff.is_exhausted

    def start(self) -> None:
        """Start the process. Raises OSError."""
        ours, theirs = Channel.pair()
        environ = self._environ | {CHANNEL_FD_VARIABLE: str(theirs.fileno())}
        command = [sys.executable, "-m", "dicom_listener.crew.member", str(self.number)]
        try:
            self._child = ChildProcess(spawn(command, environ=environ, pass_fds=(theirs.fileno(), *self._shared)))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._member = Member(self.number, ours)
        self._started.append(self._member)

    def keep_running(self) -> None:
        """Start it again if it has ended, slower each time; kill it where it does nothing."""
        if self._child is None:
            if self._backoff.is_over:
                self._start_again()
            return
        member, code = self._member, self._child.poll()
        if code is None:
            if self._child.age_s > EARLY_END_S:
                self._backoff.record_good()
            if member is not None and member.silent_s > STUCK_S:
                LOGGER.error("process %d of the listener does not answer; it is killed", self.number)
                self._child.kill()
            return
        forget_process(self._child.pid)
        was_ready = member is not None and member.is_ready
        self._note_end(self._child.age_s, f"ended with status {code}", was_ready=was_ready)
        self._child = self._member = None

    def _start_again(self) -> None:
        try:
            self.start()
        except OSError as error:  # too many open files, or no room: that too passes
            self._note_end(0.0, f"could not be started ({error.strerror})")

    def _note_end(self, age_s: float, what: str, *, was_ready: bool = False) -> None:
        metrics.PROCESS_ENDS.inc()
        self._backoff.record_end(age_s, was_ready=was_ready)
        LOGGER.error("process %d of the listener %s; another in %.0f s", self.number, what, self._backoff.pause_s)

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self._child is not None:
            self._child.send(number)

    def wait(self, limit_s: float) -> None:
        """Wait for the end, and kill it after the limit."""
        if self._child is not None and not self._child.wait(limit_s):
            self._child.kill()


def keep_all_running(posts: Sequence[Post]) -> None:
    """Look at each. Raises :class:`MembersKeepEnding` where none ever was ready, and all have been tried enough."""
    for post in posts:
        post.keep_running()
    FAILING.labels("listen").set(int(any(post.is_failing for post in posts)))
    if all(post.is_exhausted for post in posts):
        raise MembersKeepEnding("the processes of the listener end right after their start; the log says why")
