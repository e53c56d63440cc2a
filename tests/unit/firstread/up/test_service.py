"""What ``firstread up`` says between its start and the first study that can be scored."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta

import pytest

from firstread.records import Database, Process
from firstread.settings import Settings
from firstread.up.service import Readiness


def test_models_are_loaded_between_images_and_ready(
    sqlite_db: Database,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = make_settings(database_url=sqlite_db.url)
    settings.home.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(Readiness, "_accepts", lambda self: True)
    readiness = Readiness(settings, sqlite_db, lambda: 1)

    def say(state: str, key: str = "worker:a", **details: object) -> None:
        now = sqlite_db.now() + timedelta(seconds=1)
        with sqlite_db.write() as session:
            row = Process(id=key, kind="worker", host=socket.gethostname(), pid=os.getpid())
            row.started_at = row.heartbeat_at = now
            row.details = {"state": state, **details}
            session.merge(row)

    def lines() -> list[str]:
        readiness._next = 0.0
        readiness.look()
        return [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()]

    assert lines() == ["images are taken"]
    say("starting")
    assert lines() == ["models are being loaded"]
    assert lines() == []
    say("ready", models=["bleed/1"], pipelines=["head_ct"])
    say("starting", "worker:b")
    assert lines() == ["ready"]
    assert lines() == []
