"""The sweeper's own thread and its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from firstread.records import Database
from firstread.settings import Settings
from tests.builders.deaths import deaths, dies_once, errors_of
from tests.builders.timing import until
from worker.process import sweeper as sweeper_module
from worker.process.sweeper import EndedProcess, Sweeper


def test_a_dead_owner_may_be_given_back_by_the_thread_and_by_close(
    sqlite_db: Database, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is still in its look when close() gives up waiting for it; both remove the owner from the list."""
    sweeper = Sweeper(sqlite_db, make_settings())
    looks: list[str] = []

    def give_back(_db: Database, process: EndedProcess, **_options: Any) -> None:
        looks.append(process.owner)
        if len(looks) == 1:
            sweeper._give_back()

    monkeypatch.setattr(sweeper_module, "give_back", give_back)
    sweeper.give_back_of(EndedProcess("w1", "worker_died"))
    sweeper.close()
    assert looks == ["w1", "w1"]


def test_a_sweeper_that_dies_begins_again(
    sqlite_db: Database,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dies_once(monkeypatch, Sweeper, "_run")
    before = deaths("sweeper")
    sweeper = Sweeper(sqlite_db, make_settings(sweep_s=0.1))
    looks: list[None] = []
    monkeypatch.setattr(sweeper, "sweep", lambda: looks.append(None))
    with caplog.at_level(logging.ERROR):
        sweeper.start()
        until(lambda: len(looks) > 1)
        sweeper.close()
    assert deaths("sweeper") == before + 1
    assert len(errors_of(caplog, "sweeper")) == 1
