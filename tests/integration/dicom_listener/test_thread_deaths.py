"""Threads of a listener that die of an error begin again; nothing that they are there for is lost."""

from __future__ import annotations

import logging
import shutil

import pytest

from dicom_listener.inbox.events import Watch
from dicom_listener.inbox.watcher import Inbox
from dicom_listener.studies.doorbell import Doorbell
from dicom_listener.studies.reconcile import Reconciler
from dicom_listener.studies.rows import RowWriter
from dicom_listener.studies.timer import Closer
from firstread.records import Process
from tests.builders.deaths import deaths, dies_once, errors_of
from tests.builders.listening import all_closed, listening, outcomes, send, small_files
from tests.builders.timing import until
from tests.integration.dicom_listener.conftest import MakeSettings

THREADS: dict[str, tuple[type, str]] = {
    "closer": (Closer, "_look_after"),
    "heartbeat": (Closer, "_beat"),
    "inbox": (Inbox, "_run"),
    "inbox-watch": (Watch, "run"),
    "row-writer": (RowWriter, "_run"),
    "doorbell": (Doorbell, "_run"),
    "reconcile": (Reconciler, "_run"),
}


def test_every_thread_of_a_listener_may_die_once(
    quick: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dicom_listener.studies.timer.HEARTBEAT_S", 0.1)
    for owner, method in THREADS.values():
        dies_once(monkeypatch, owner, method)
    before = {name: deaths(name) for name in THREADS}
    with caplog.at_level(logging.INFO), listening(quick()) as service:
        first_beat = service.row.heartbeat_at
        inbox = service.settings.inbox_dir
        assert all(outcome.ok for outcome in send(service, *small_files(inbox.parent / "sent", 2, study="sent")))
        dropped = small_files(inbox.parent / "dropped", 2, study="dropped")[0].parent
        shutil.copytree(dropped, inbox / "dropped")
        until(lambda: outcomes(service.db) == {"stored": 4})
        assert len(all_closed(service.db, 2)) == 2

        def beaten() -> bool:
            with service.db.read() as session:
                return session.get_one(Process, service.id).heartbeat_at > first_beat

        until(beaten)
        until(lambda: {name: deaths(name) - before[name] for name in THREADS} == dict.fromkeys(THREADS, 1.0))
    assert {name: len(errors_of(caplog, name)) for name in THREADS} == dict.fromkeys(THREADS, 1)
