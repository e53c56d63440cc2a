"""A thread that dies begins again, and is counted; one that has ended does not."""

from __future__ import annotations

import logging
import threading

import pytest

from firstread.processes.lasting import lasting_thread
from tests.builders.deaths import deaths
from tests.builders.timing import until


def test_it_begins_again_until_it_returns(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []
    before = deaths("row-writer")

    def run() -> None:
        runs.append(len(runs))
        if len(runs) < 4:
            raise ValueError("broken")

    thread = lasting_thread(run, "row-writer", pause_s=0.001)
    with caplog.at_level(logging.ERROR):
        thread.start()
        thread.join(timeout=30)
    assert runs == [0, 1, 2, 3] and not thread.is_alive() and thread.daemon
    assert caplog.text.count("the thread row-writer died") == 3
    assert deaths("row-writer") == before + 3


class Panic(BaseException):
    """What a library written in Rust raises: no ``Exception``."""


def test_what_is_no_exception_is_a_death_too() -> None:
    runs: list[None] = []

    def run() -> None:
        runs.append(None)
        if len(runs) == 1:
            raise Panic("broken")

    thread = lasting_thread(run, "inbox-watch", pause_s=0.001)
    thread.start()
    thread.join(timeout=30)
    assert len(runs) == 2


def test_an_end_waits_for_no_pause() -> None:
    stopping = threading.Event()
    before = deaths("closer")

    def run() -> None:
        raise ValueError("broken")

    thread = lasting_thread(run, "closer", pause_s=600.0, stopping=stopping)
    thread.start()
    until(lambda: deaths("closer") > before)
    stopping.set()
    thread.join(timeout=10)
    assert not thread.is_alive() and deaths("closer") == before + 1
