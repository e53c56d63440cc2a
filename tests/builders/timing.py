"""Waiting for what happens or must not happen, and free ports; every test uses these."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


PORTS = range(12_000, 32_000)
"""Below those that the system gives to connections that go out, any of which may take a port that was free."""
_next_port = itertools.count(os.getpid() * 211 % len(PORTS))


def free_port() -> int:
    """A port of the loopback address that is free, never the same one twice in a process."""
    for number in itertools.islice(_next_port, len(PORTS)):
        port = PORTS[number % len(PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port of the loopback address is free")


def until(check: Callable[[], T], limit_s: float = 30.0, what: Callable[[], str] | str = "", step_s: float = 0.02) -> T:
    """The first true value of ``check``; the test fails after the limit and says ``what`` did not happen."""
    end = time.monotonic() + limit_s
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not within {limit_s:g} s: {(what() if callable(what) else what) or check}")
        time.sleep(step_s)


def stays(check: Callable[[], object], for_s: float, step_s: float = 0.1) -> None:
    """The test fails if ``check`` is not true for all of the time: for what must not happen, which gives no sign."""
    end = time.monotonic() + for_s
    while True:
        assert check(), f"not for {for_s:g} s"
        if time.monotonic() > end:
            return
        time.sleep(step_s)
