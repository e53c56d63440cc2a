"""The embedded broker: one a home, no TCP port, back after a crash, quiet about a log it cannot read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from firstread import effects
from firstread.processes.broker import BrokerError, EmbeddedBroker
from firstread.processes.spawning import is_running, settings_environ, stop
from firstread.queue import broker_problem, depth, embedded_socket, make_app, redis_client, ring, warm_up
from firstread.settings import Settings
from tests.builders.timing import until


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def broker(settings: Settings) -> Iterator[EmbeddedBroker]:
    server = EmbeddedBroker(settings)
    yield server
    server.close()


def bell(app: Any, priority: int = 3) -> None:
    ring(app, effects.RETRY_PUBLISH, revision_id=1, study_key=1, number=1, priority=priority)


def test_messages_of_every_priority_count_and_survive_a_restart(settings: Settings, broker: EmbeddedBroker) -> None:
    assert broker.start() is True
    app = make_app(settings)
    assert warm_up(app)
    for priority in (0, 3, 9):
        bell(app, priority)
    client = redis_client(settings)
    assert depth(client) == 3
    assert client.config_get("port")["port"] == "0"
    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    broker.close()
    assert not embedded_socket(settings).exists()
    assert EmbeddedBroker.start(broker) is True
    assert depth(redis_client(settings)) == 3


def test_second_one_in_a_home_uses_the_first(settings: Settings, broker: EmbeddedBroker) -> None:
    broker.start()
    other = EmbeddedBroker(settings)
    assert other.start() is False
    other.close()
    broker.wait_ready()
    assert broker.keep_running() is False


@pytest.mark.parametrize("scheme", ["redis+socket", "unix"])
def test_a_socket_of_the_host_is_a_broker_under_both_names(
    scheme: str, make_settings: Callable[..., Settings], settings: Settings, broker: EmbeddedBroker
) -> None:
    broker.start()
    named = make_settings(broker_url=f"{scheme}://{embedded_socket(settings)}")
    assert broker_problem(named) == ""
    bell(make_app(named))
    assert depth(redis_client(named)) == 1


def test_log_that_cannot_be_read_is_set_aside(settings: Settings, broker: EmbeddedBroker) -> None:
    broker.start()
    bell(make_app(settings))
    broker.close()
    for path in broker.folder.rglob("*.aof"):
        path.write_bytes(b"no log at all" * 20)
    assert broker.start() is True
    assert depth(redis_client(settings)) == 0
    assert len(list(settings.home.glob("broker-unreadable-*"))) == 1


def test_killed_server_is_started_again_but_not_at_once(settings: Settings, broker: EmbeddedBroker) -> None:
    broker.start()
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    until(lambda: broker.poll() is not None)
    assert broker.keep_running() is False
    broker._backoff._ended_at -= 10
    assert broker.keep_running() is True
    broker.wait_ready()


def test_server_dies_with_its_parent(settings: Settings) -> None:
    code = (
        "import os, sys, time\nfrom firstread.settings import Settings\n"
        "from firstread.processes.broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker(Settings())\nbroker.start()\nprint(broker.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=settings_environ(settings), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait(timeout=10)
    until(lambda: not is_running(pid), 10)
    again = EmbeddedBroker(settings)
    assert again.start() is True
    again.close()


def test_long_home_gets_a_short_socket(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = make_settings(home=tmp_path / ("deep" * 12) / ("er" * 30))
    assert len(str(embedded_socket(settings))) <= 100
    broker = EmbeddedBroker(settings)
    broker.start()
    broker.close()


def test_broker_that_is_away_is_one_error_and_quick(settings: Settings) -> None:
    started = time.monotonic()
    with pytest.raises(OperationalError):
        bell(make_app(settings))
    assert warm_up(make_app(settings)) is False
    assert time.monotonic() - started < 5
    with pytest.raises(BrokerError, match="does not answer"):
        EmbeddedBroker(settings).wait_ready(0.2)


def test_stop_kills_what_does_not_end() -> None:
    deaf = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    with deaf.stdout as ready:
        ready.readline()
    assert stop(deaf, 0.2) == -signal.SIGKILL
