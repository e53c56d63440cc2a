"""A thread that dies begins again; one that has ended does not."""

from __future__ import annotations

import logging

import pytest

from firstread.processes.lasting import lasting_thread


def test_it_begins_again_until_it_returns(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []

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
