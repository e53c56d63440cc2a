"""Virtual time and who runs in it: hosts with clocks of their own, processes that may die, threads that take turns.

Threads are greenlets: one runs until it waits, or until an effect lets another one go first. So a history is decided by
its seed alone, and takes no longer than its work.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from greenlet import getcurrent, greenlet

EPOCH = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
LONGEST_PAUSE_S = 16.0
"""Whoever looks again and again while nothing changes pauses longer each time, up to this."""


class Killed(BaseException):
    """The process of this thread is gone; nothing that it does has an effect any more."""


@dataclass(eq=False)
class Host:
    """A machine. ``offset_s`` is by how much its clock is ahead."""

    name: str
    offset_s: float = 0.0


@dataclass(eq=False)
class Proc:
    """A process: alive, or killed, or stopped until some time."""

    name: str
    host: Host
    alive: bool = True
    frozen_until: float = 0.0
    threads: list[Thread] = field(default_factory=list)
    on_death: list[Callable[[], object]] = field(default_factory=list)


@dataclass(eq=False)
class Thread:
    """A thread of a process, and when it goes on."""

    name: str
    proc: Proc
    run: greenlet
    ticket: int = 0
    ended: bool = False
    idle: int = 0
    seen: int = -1
    topic: str = ""
    """What it looks for again and again, less often while nothing of it changes; empty where it does not."""


class World:
    """One history's time and processes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.changes: Counter[str] = Counter()
        """Counts what was changed that somebody may look at, by topic."""
        self.database_offset_s = 0.0
        self.current: Thread | None = None
        self.trace: deque[str] = deque(maxlen=600)
        self.broken: BaseException | None = None
        self._heap: list[tuple[float, float, int, Thread]] = []
        self._dead: list[Proc] = []
        self.after_deaths: list[Callable[[], None]] = []
        """Called once, when every thread of a killed process has ended."""
        self._hub = getcurrent()

    # time

    def utcnow(self) -> datetime:
        """The clock of the host whose thread asks."""
        return EPOCH + timedelta(seconds=self.now + (self.current.proc.host.offset_s if self.current else 0.0))

    def monotonic(self) -> float:
        """Seconds that nobody sets."""
        return self.now + 1000.0

    def database_now(self) -> datetime:
        """The clock of the database."""
        return EPOCH + timedelta(seconds=self.now + self.database_offset_s)

    # threads

    def spawn(self, proc: Proc, function: Callable[[], Any], name: str, *, topic: str = "") -> Thread:
        """Start a thread."""

        def body() -> None:
            try:
                function()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001  # a thread that dies is a fault of ours, or of the simulation
                self.broken = self.broken or error
            thread.ended = True

        thread = Thread(name, proc, greenlet(body, self._hub), topic=topic)
        proc.threads.append(thread)
        self._wake(thread, self.now)
        return thread

    def sleep(self, seconds: float) -> None:
        """Let time pass, and others run."""
        thread = self._me()
        self._wake(thread, self.now + seconds)
        self._leave(thread)

    def pause(self, seconds: float | None) -> None:
        """Wait to be woken, ``seconds`` at most."""
        thread = self._me()
        if seconds is not None:
            if thread.topic:
                thread.idle = thread.idle + 1 if thread.seen == self.changes[thread.topic] else 0
                thread.seen = self.changes[thread.topic]
                seconds = max(seconds, min(seconds * 2**thread.idle, LONGEST_PAUSE_S))
            self._wake(thread, self.now + seconds + self.rng.random() * 0.01)
        self._leave(thread)

    def wake(self, thread: Thread) -> None:
        """Let a thread go on now."""
        if not thread.ended and thread.proc.alive:
            self._wake(thread, self.now)

    def _wake(self, thread: Thread, at: float) -> None:
        thread.ticket += 1
        heapq.heappush(self._heap, (at, self.rng.random(), thread.ticket, thread))

    def _me(self) -> Thread:
        thread = self.current
        assert thread is not None, "only threads of the simulation wait"
        if not thread.proc.alive:
            raise Killed
        return thread

    def _leave(self, thread: Thread) -> None:
        self._hub.switch()
        if not thread.proc.alive:
            raise Killed

    # processes

    def kill(self, proc: Proc) -> None:
        """End a process at once. Raises :class:`Killed` where it is the caller's own."""
        if not proc.alive:
            return
        self.note(f"killed {proc.name}")
        proc.alive = False
        self._dead.append(proc)
        if self.current is not None and self.current.proc is proc:
            raise Killed
        if self.current is None:
            self._bury()

    def _bury(self) -> None:
        while self._dead:
            proc = self._dead.pop()
            for thread in proc.threads:
                if not thread.ended and thread.run:
                    self.current = thread
                    thread.run.throw(Killed)
                    self.current = None
                thread.ended = True
            for call in list(proc.on_death):
                call()
        calls, self.after_deaths = self.after_deaths, []
        for call in calls:
            call()

    def run(self, until_s: float, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass; whether ``done`` came true."""
        while self._heap:
            at, _, ticket, thread = heapq.heappop(self._heap)
            if ticket != thread.ticket or thread.ended or not thread.proc.alive:
                continue
            if thread.proc.frozen_until > at:
                self._wake(thread, thread.proc.frozen_until)
                continue
            if at > until_s:
                heapq.heappush(self._heap, (at, 0.0, ticket, thread))
                self.now = until_s
                return False
            self.now = max(self.now, at)
            self.current = thread
            thread.run.switch()
            self.current = None
            self._bury()
            if self.broken is not None:
                raise self.broken
            if done is not None and done():
                return True
        return False

    def end(self) -> None:
        """Kill whatever still runs."""
        for proc in {thread.proc for *_, thread in self._heap}:
            proc.alive = False
            self._dead.append(proc)
        self._bury()

    def note(self, text: str) -> None:
        """A line for whoever reads what led to a failure."""
        who = f"{self.current.proc.name}/{self.current.name}" if self.current is not None else "-"
        self.trace.append(f"{self.now:9.3f} {who}: {text}")
