"""Signs of life on a pipe."""

from __future__ import annotations

import logging
import os
import time

import pytest

from tests.builders.deaths import deaths, dies_once, errors_of
from tests.builders.timing import until
from worker.process.heartbeat import HEARTBEAT_FD_VARIABLE, Heartbeat, HeartbeatReader, HeartbeatSender


def test_a_sender_that_dies_begins_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    dies_once(monkeypatch, HeartbeatSender, "_run")
    read_fd, write_fd = os.pipe()
    monkeypatch.setenv(HEARTBEAT_FD_VARIABLE, str(write_fd))
    reader = HeartbeatReader(read_fd)
    before = deaths("beater")
    sender = HeartbeatSender(lambda: Heartbeat(time.monotonic(), state="ready", jobs={7: 1.5}))
    with caplog.at_level(logging.ERROR):
        sender.start()
        until(lambda: reader.read().state == "ready")
        sender.close()
    assert reader.last.jobs == {7: 1.5}
    assert deaths("beater") == before + 1
    assert len(errors_of(caplog, "beater")) == 1
    reader.close()
    os.close(write_fd)
