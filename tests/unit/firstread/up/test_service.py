"""What ``firstread up`` says between its start and the first study that can be scored."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from firstread.processes.metrics import FAILING
from firstread.processes.spawning import spawn
from firstread.records import Database, Process
from firstread.settings import Settings
from firstread.up import service
from firstread.up.service import CommandKeepsEnding, Readiness, SupervisedCommand


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


@pytest.fixture
def make_command(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SupervisedCommand]:
    """A command that runs a line of Python instead, is good after 0.3 s, and is started again at once."""

    def make(code: str, *, essential: bool) -> SupervisedCommand:
        monkeypatch.setattr(service, "firstread_command", lambda name: [sys.executable, "-S", "-c", code])
        monkeypatch.setattr(service, "EARLY_END_S", 0.3)
        monkeypatch.setattr(service, "LONGEST_PAUSE_S", 0.0)
        settings = make_settings()
        settings.log_dir.mkdir(parents=True)
        return SupervisedCommand("listen", settings, dict(os.environ), essential=essential)

    return make


def _is_failing() -> bool:
    return bool(FAILING.labels("listen")._value.get() == 1)


def _keep_until(command: SupervisedCommand, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        command.keep_running()
        time.sleep(0.01)


DIES = "print('no room'); raise SystemExit(3)"


def test_a_listener_that_never_had_a_good_start_ends_everything_with_its_reason(
    make_command: Callable[..., SupervisedCommand],
) -> None:
    command = make_command(DIES, essential=True)
    command.start()
    with pytest.raises(CommandKeepsEnding, match="ended with status 3, no room"):
        _keep_until(command, lambda: False)


def test_another_command_that_cannot_start_ends_nothing_and_is_shown(
    make_command: Callable[..., SupervisedCommand], capsys: pytest.CaptureFixture[str]
) -> None:
    command = make_command(DIES, essential=False)
    command.show(failing=False)
    command.start()
    _keep_until(command, _is_failing)
    printed = capsys.readouterr().out
    assert printed.count("ended with status 3") == service.MOST_EARLY_ENDS
    assert "(no room; see " in printed.splitlines()[-1]


def test_a_listener_that_cannot_be_started_again_is_tried_until_it_runs(
    make_command: Callable[..., SupervisedCommand], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    code = f"import os, time; os.path.exists({str(broken)!r}) and os._exit(1); time.sleep(60)"
    command = make_command(code, essential=True)
    command.start()
    _keep_until(command, lambda: command._backoff._was_good)
    broken.touch()
    assert command.pid is not None
    os.kill(command.pid, 9)
    _keep_until(command, _is_failing)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(service, "spawn", full)
    for _ in range(20):
        command.keep_running()
    assert command.pid is None and _is_failing()
    monkeypatch.setattr(service, "spawn", spawn)
    broken.unlink()
    _keep_until(command, lambda: not _is_failing())
    assert command.pid is not None
    os.kill(command.pid, 9)
    assert command.wait(10)
