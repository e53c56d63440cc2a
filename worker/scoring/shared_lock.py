"""The lock around scoring: jobs share it, and a job whose attempts ended with their process has it alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firstread.clock import monotonic

LOOK_S = 0.5


class SharedLock:
    """A lock with two ways in: shared, or alone. Whoever waits to be alone goes before new shared ones."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared = 0
        self._alone = False
        self._alone_waiting = 0

    @contextmanager
    def shared(self, still: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be inside together with others. ``still`` is called twice a second while waiting and may raise."""
        with self._changed:
            while self._alone or self._alone_waiting:
                self._changed.wait(LOOK_S)
                still()
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, still: Callable[[], None] = lambda: None, limit_s: float = float("inf")) -> Iterator[bool]:
        """Be inside alone; yields False where the others did not leave within the limit.

        ``still`` is called twice a second while waiting and may raise.
        """
        deadline = monotonic() + limit_s
        with self._changed:
            self._alone_waiting += 1
            try:
                while (self._alone or self._shared) and monotonic() < deadline:
                    self._changed.wait(LOOK_S)
                    still()
                got = not (self._alone or self._shared)
                if got:
                    self._alone = True
                else:
                    self._shared += 1
            finally:
                self._alone_waiting -= 1
                self._changed.notify_all()
        try:
            yield got
        finally:
            with self._changed:
                if got:
                    self._alone = False
                else:
                    self._shared -= 1
                self._changed.notify_all()
