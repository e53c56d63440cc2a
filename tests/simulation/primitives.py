"""What stands in the place of ``threading``, ``queue`` and ``time`` in the modules of the way of a study."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.simulation.world import Thread, World

TOPICS = {"closer": "intake", "sweeper": "work", "deliver": "results", "inbox": "inbox"}
"""What threads look for again and again, by the beginning of their names."""


class Primitives:
    """The namespaces, bound to one world after the other."""

    def __init__(self) -> None:
        self.world: World = World(0)
        world = self

        class Event:
            def __init__(self) -> None:
                self._flag = False
                self._waiters: list[Thread] = []

            def is_set(self) -> bool:
                return self._flag

            def set(self) -> None:
                self._flag = True
                waiters, self._waiters = self._waiters, []
                for thread in waiters:
                    world.world.wake(thread)

            def clear(self) -> None:
                self._flag = False

            def wait(self, timeout: float | None = None) -> bool:
                if not self._flag:
                    thread = world.world.current
                    assert thread is not None
                    self._waiters.append(thread)
                    try:
                        world.world.pause(timeout)
                    finally:
                        if thread in self._waiters:
                            self._waiters.remove(thread)
                return self._flag

        class Condition:
            """Woken by time alone: who waits on one looks again."""

            def __init__(self, _lock: object = None) -> None:
                self._event = Event()

            def __enter__(self) -> bool:
                return True

            def __exit__(self, *_error: object) -> None:
                return None

            def wait(self, timeout: float | None = None) -> bool:
                self._event.clear()
                return self._event.wait(timeout)

            def notify_all(self) -> None:
                self._event.set()

        class Lock:
            def __init__(self) -> None:
                self._held = False
                self._freed = Event()

            def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
                while self._held:
                    if not blocking:
                        return False
                    self._freed.clear()
                    self._freed.wait(None if timeout < 0 else timeout)
                    if timeout >= 0 and self._held:
                        return False
                self._held = True
                return True

            def release(self) -> None:
                self._held = False
                self._freed.set()

            def __enter__(self) -> bool:
                return self.acquire()

            def __exit__(self, *_error: object) -> None:
                self.release()

        class SimThread:
            def __init__(
                self,
                target: Callable[..., Any] | None = None,
                name: str = "thread",
                daemon: bool = True,
                args: tuple[Any, ...] = (),
            ) -> None:
                self.name = name
                self._target, self._args = target, args
                self._thread: Thread | None = None

            def start(self) -> None:
                me = world.world.current
                assert me is not None and self._target is not None
                target, args = self._target, self._args
                topic = next((topic for name, topic in TOPICS.items() if self.name.startswith(name)), "")
                self._thread = world.world.spawn(me.proc, lambda: target(*args), self.name, topic=topic)

            def is_alive(self) -> bool:
                return self._thread is not None and not self._thread.ended

            def join(self, timeout: float | None = None) -> None:
                end = world.world.now + (timeout if timeout is not None else 60.0)
                while self.is_alive() and world.world.now < end:
                    world.world.sleep(0.1)

        class Queue:
            def __init__(self, maxsize: int = 0) -> None:
                self._items: deque[Any] = deque()
                self._max = maxsize
                self._changed = Event()
                self.unfinished_tasks = 0

            def empty(self) -> bool:
                return not self._items

            def put_nowait(self, item: Any) -> None:
                if self._max and len(self._items) >= self._max:
                    raise queue.Full
                self._items.append(item)
                self.unfinished_tasks += 1
                self._changed.set()

            def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
                self.put_nowait(item)

            def get(self, block: bool = True, timeout: float | None = None) -> Any:
                end = None if timeout is None else world.world.now + timeout
                while not self._items:
                    if end is not None and end <= world.world.now:
                        raise queue.Empty
                    self._changed.clear()
                    self._changed.wait(None if end is None else end - world.world.now)
                return self._items.popleft()

            def task_done(self) -> None:
                self.unfinished_tasks -= 1

        class Threading:
            pass

        class Queues:
            Full = queue.Full
            Empty = queue.Empty

        class Time:
            @staticmethod
            def sleep(seconds: float) -> None:
                world.world.sleep(max(seconds, 0.25))

            @staticmethod
            def monotonic() -> float:
                return world.world.monotonic()

            @staticmethod
            def time() -> float:
                return world.world.utcnow().timestamp()

            @staticmethod
            def perf_counter() -> float:
                return world.world.monotonic()

        self.Event, self.Queue = Event, Queue
        threads: Any = Threading()
        threads.Event, threads.Lock, threads.RLock, threads.Condition, threads.Thread = (
            Event,
            Lock,
            Lock,
            Condition,
            SimThread,
        )
        queues: Any = Queues()
        queues.Queue = Queue
        self.threading, self.queue, self.time = threads, queues, Time
