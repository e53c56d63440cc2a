"""When the supervisor acts: judged from signs of life alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from firstread.logs import JsonFormatter, frames_of
from firstread.processes.spawning import settings_environ
from firstread.settings import Settings
from worker.errors import EngineTimeout, describe, reason_of
from worker.process.heartbeat import Heartbeat, HeartbeatReader
from worker.process.supervisor import SILENT_S, START_LIMIT_S, STOP_LIMIT_S, ModelsWatch, WorkerProcess


def child(beat: Heartbeat, **attributes: Any) -> WorkerProcess:
    """A child that never was a process, with the beat that it sent last."""
    process = object.__new__(WorkerProcess)
    read_fd, write_fd = os.pipe()
    os.write(write_fd, (json.dumps(asdict(beat)) + "\n").encode())
    process.reader = HeartbeatReader(read_fd)
    process.started = time.monotonic()
    process.was_ready = False
    process.stop_asked = None
    process.silent_since = None
    for name, value in attributes.items():
        setattr(process, name, value)
    return process


def test_job_without_progress_is_a_stall(make_settings: Callable[..., Settings]) -> None:
    settings, now = make_settings(stall_s=10), time.monotonic()
    jobs = {1: now, 2: now - 11}
    assert child(Heartbeat(now, "ready", jobs, now)).fault(settings, 0) == "worker_stalled"
    assert child(Heartbeat(now, "ready", {1: now - 9}, now)).fault(settings, 0) is None


def test_process_without_a_sign_of_life_is_a_stall(make_settings: Callable[..., Settings]) -> None:
    settings, now = make_settings(stall_s=10), time.monotonic()
    assert child(Heartbeat(now - 11, "ready", {3: now - 1}, now)).fault(settings, 0) == "worker_stalled"


def test_a_process_that_still_loads_may_be_silent_for_as_long_as_a_start_may_take(
    make_settings: Callable[..., Settings],
) -> None:
    settings, now = make_settings(stall_s=1), time.monotonic()
    silent = Heartbeat(now - START_LIMIT_S + 60)
    assert child(silent, started=now - START_LIMIT_S + 60).fault(settings, 5) is None
    assert child(silent, started=now - START_LIMIT_S - 1).fault(settings, 5) == "start_too_slow"
    assert child(silent, was_ready=True).fault(settings, 5) == "worker_stalled"


def test_warming_up_may_take_long_but_not_for_ever(make_settings: Callable[..., Settings]) -> None:
    settings, now = make_settings(stall_s=10), time.monotonic()
    assert child(Heartbeat(now)).fault(settings, 5) is None
    late = child(Heartbeat(now), started=now - START_LIMIT_S - 1)
    assert late.fault(settings, 5) == "start_too_slow"


def test_consumer_that_answers_no_doorbell_though_messages_wait(make_settings: Callable[..., Settings]) -> None:
    settings, now = make_settings(), time.monotonic()
    silent = child(Heartbeat(now, "ready", {}, now - SILENT_S - 1))
    assert silent.fault(settings, None) is None
    assert silent.fault(settings, 0) is None
    assert silent.fault(settings, 3) is None
    silent.silent_since = now - SILENT_S - 1
    assert silent.fault(settings, 3) == "consumer_silent"
    busy = child(Heartbeat(now, "ready", {1: now}, now - SILENT_S - 1), silent_since=now - SILENT_S - 1)
    assert busy.fault(settings, 3) is None


def test_stop_is_awaited_while_a_study_is_in_hand(make_settings: Callable[..., Settings]) -> None:
    settings, now = make_settings(), time.monotonic()
    asked = now - STOP_LIMIT_S - 1
    assert child(Heartbeat(now, "stopping", {1: now}, now), was_ready=True, stop_asked=asked).fault(settings, 0) is None
    idle = child(Heartbeat(now, "stopping", {}, now), was_ready=True, stop_asked=asked)
    assert idle.fault(settings, 0) == "stop_too_slow"


def test_beats_in_pieces_and_rubbish_are_read() -> None:
    read_fd, write_fd = os.pipe()
    reader = HeartbeatReader(read_fd)
    line = json.dumps(asdict(Heartbeat(5.0, "ready", {7: 4.0}, 3.0)))
    os.write(write_fd, (line[:10]).encode())
    assert reader.read().state == "starting"
    os.write(write_fd, (line[10:] + "\nnot json\n").encode())
    assert reader.read() == Heartbeat(5.0, "ready", {7: 4.0}, 3.0)
    os.close(write_fd)
    assert reader.read().state == "ready"
    reader.close()


def test_models_are_exchanged_once_two_looks_agree(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = make_settings(models_dir=tmp_path)
    watch = ModelsWatch(settings)
    watch.settle()

    def look() -> bool:
        watch._looked -= 60
        return watch.changed()

    assert not look()
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "card.json").write_text("{}")
    assert not look()
    (tmp_path / "m" / "1" / "weights.npz").write_text("half")
    assert not look()
    assert look()
    watch.settle()
    assert not look()


def test_child_sees_the_same_settings(make_settings: Callable[..., Settings], monkeypatch: Any) -> None:
    settings = make_settings(allowed_calling_ae=("A", "B"), priority_by_calling_ae={"CT1": 1}, inbox_keep_accepted=True)
    for name, value in settings_environ(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_errors_and_logs_name_the_place_and_never_the_text() -> None:
    import logging

    secret = "Nachtigall^Florentine"
    try:
        raise ValueError(secret)
    except ValueError as error:
        caught = error
    assert reason_of(caught) == "value_error"
    assert reason_of(EngineTimeout("x")) == "engine_timeout"
    assert "ValueError at" in describe(caught) and secret not in describe(caught)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), (ValueError, caught, None))
    record.study = 7
    line = JsonFormatter("worker").format(record)
    assert secret not in line
    assert json.loads(line)["error"] == "ValueError" and json.loads(line)["study"] == 7
    assert frames_of(caught)[0].startswith(__name__)
