"""Files read a little ahead of their use: while one is decoded elsewhere, the next is opened and the last is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, TypeVar

T = TypeVar("T")

WIDTH: Final = 2
"""Files in hand at once."""


def in_order(tasks: Iterable[Callable[[], T]], width: int = WIDTH) -> Iterator[T]:
    """Results of tasks in their own order, of which so many run at once in threads.

    A task sees the context variables of the caller. What one raises comes out in its turn, and those behind it are
    not begun.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(width, thread_name_prefix="ahead") as threads:
        try:
            for task in tasks:
                waiting.append(threads.submit(copy_context().run, task))
                if len(waiting) > width:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
