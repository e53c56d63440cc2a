"""The row of a process, and the thread that renews it."""

from __future__ import annotations

import logging

import pytest

from firstread.records import Database, Process
from tests.builders.deaths import deaths, dies_once, errors_of
from tests.builders.timing import until
from worker.process.process_row import ProcessRow


def test_a_renewing_thread_that_dies_begins_again(
    sqlite_db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.process.process_row.RENEW_S", 0.05)
    dies_once(monkeypatch, ProcessRow, "_run")
    before = deaths("heartbeat")
    row = ProcessRow(sqlite_db, "w1", "worker")
    with caplog.at_level(logging.ERROR):
        row.start(state="starting")
        row.set_details(state="ready")

        def renewed() -> bool:
            with sqlite_db.read() as session:
                return session.get_one(Process, "w1").details == {"state": "ready"}

        until(renewed)
        row.close()
    assert deaths("heartbeat") == before + 1
    assert len(errors_of(caplog, "heartbeat")) == 1
    with sqlite_db.read() as session:
        assert session.get(Process, "w1") is None
