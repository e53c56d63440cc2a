"""``firstread up``: one a home, its ports, its children, its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pynetdicom import AE

from firstread.processes.spawning import firstread_command, is_running, settings_environ
from firstread.settings import Settings
from tests.builders.timing import free_port, until
from tests.system.conftest import ROOT

ECHO = "1.2.840.10008.1.1"


class RunningUp:
    """A started ``firstread up`` and what it prints."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.out = settings.home.parent / f"{settings.home.name}.out"
        self.started = time.monotonic()
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                firstread_command("up"), env=settings_environ(settings), cwd=ROOT, stdout=out, stderr=out
            )

    @property
    def text(self) -> str:
        return self.out.read_text(encoding="utf-8")

    def wait_for(self, words: str, limit_s: float = 90.0) -> None:
        until(lambda: words in self.text or self.process.poll() is not None, limit_s, what=words)
        assert words in self.text, self.text

    def children(self) -> list[int]:
        """Every process below it."""
        pids: list[int] = []
        level = [self.process.pid]
        while level:
            level = [pid for parent in level for pid in _children_of(parent)]
            pids += level
        return pids


def _children_of(pid: int) -> list[int]:
    pids = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += [int(word) for word in path.read_text().split()]
    return pids


@pytest.fixture
def start_up(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Callable[..., RunningUp]]:
    running: list[RunningUp] = []
    (tmp_path / "models").mkdir()

    def start(**values: Any) -> RunningUp:
        defaults = {"dicom_port": free_port(), "metrics_port": free_port(), "models_dir": tmp_path / "models"}
        up = RunningUp(make_settings(**(defaults | values)))
        running.append(up)
        return up

    yield start
    for up in running:
        if up.process.poll() is None:
            up.process.send_signal(signal.SIGINT)
            try:
                up.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                up.process.kill()


def _echo(port: int) -> bool:
    ae = AE(ae_title="TEST")
    ae.add_requested_context(ECHO)
    assoc = ae.associate("127.0.0.1", port)
    if not assoc.is_established:
        return False
    status = assoc.send_c_echo()
    assoc.release()
    return bool(status and status.Status == 0)


def test_up_answers_counts_and_ends_in_order(start_up: Callable[..., RunningUp]) -> None:
    up = start_up(web_port=free_port())
    until(lambda: _accepts(up.settings.dicom_port), 90)
    assert _echo(up.settings.dicom_port)
    took_s = time.monotonic() - up.started
    # Five seconds on a quick machine of its own; on a slow or busy one what a start takes swings by a factor of two.
    assert took_s < max(5.0, 10 * _one_start_s())
    up.wait_for("NO MODEL SERVES")
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{up.settings.metrics_port}/metrics", timeout=5).read().decode()
    for name in (
        "firstread_database_up 1.0",
        "firstread_broker_up 1.0",
        'firstread_running_processes{process="worker",stage="worker"} 1.0',
        f'firstread_running_processes{{process="listener",stage="listener"}} {up.settings.listeners}.0',
        "firstread_open_associations",
        "firstread_scoring_jobs",
    ):
        assert name in metrics
    for words in ("C-STORE", "inbox", "database", "evidence", "metrics", "logs", "FIRSTREAD_DICOM_HOST=0.0.0.0"):
        assert words in up.text
    _comes_in_by_the_printed_address(up)
    second = subprocess.run(
        firstread_command("up"), env=settings_environ(up.settings), cwd=ROOT, capture_output=True, text=True, timeout=90
    )
    assert second.returncode == 1
    assert f"already (pid {up.process.pid})" in second.stderr
    below = up.children()
    assert len(below) >= 4
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=60) == 0
    assert up.text.rstrip().endswith("stopped")
    until(lambda: not any(is_running(pid) for pid in below), 10)
    assert not (up.settings.run_dir / "broker.sock").exists()


def _comes_in_by_the_printed_address(up: RunningUp) -> None:
    printed = re.search(r"worklist page: (\S+)", up.text)
    assert printed is not None
    page, _, key = printed[1].partition("#key=")
    until(lambda: _accepts(up.settings.web_port), 90)
    with httpx.Client(base_url=page, timeout=20) as client:
        assert client.get("/").status_code == 401
        assert client.post("/enter", data={"key": key}).status_code == 303
        assert "<h1>Studies</h1>" in client.get("/").text
    logs = [path for path in up.settings.log_dir.iterdir() if path.is_file()]
    assert logs and not [path.name for path in logs if key in path.read_text(encoding="utf-8", errors="replace")]


def _one_start_s() -> float:
    """Seconds that a process with the listener's imports takes on this machine, now."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import dicom_listener.service"], check=True, cwd=ROOT, timeout=90)
    return time.monotonic() - begun


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_children_die_with_a_killed_up_and_its_home_is_free_again(start_up: Callable[..., RunningUp]) -> None:
    up = start_up()
    up.wait_for("images are taken")
    until(lambda: len(up.children()) >= 4)
    below = up.children()
    up.process.kill()
    up.process.wait(timeout=10)
    until(lambda: not any(is_running(pid) for pid in below), 10)
    again = start_up(dicom_port=up.settings.dicom_port)
    again.wait_for("images are taken")


def test_listener_that_dies_is_started_again(start_up: Callable[..., RunningUp]) -> None:
    up = start_up()
    up.wait_for("images are taken")
    listener = next(pid for pid in up.children() if b"\0listen" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(listener, signal.SIGKILL)
    up.wait_for("`firstread listen` ended with status -9")
    until(lambda: _accepts(up.settings.dicom_port), 90)


@pytest.mark.parametrize(
    ("setting", "variable"),
    [("dicom_port", "DICOM_PORT"), ("metrics_port", "METRICS_PORT"), ("web_port", "WEB_PORT")],
)
def test_taken_port_is_named(start_up: Callable[..., RunningUp], setting: str, variable: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        up = start_up(**{setting: port})
        assert up.process.wait(timeout=90) == 1
    assert re.search(rf"firstread: port {port} on 127.0.0.1: .*FIRSTREAD_{variable}", up.text)
    assert "Traceback" not in up.text


def test_full_disk_is_reported_and_no_images_are_promised(start_up: Callable[..., RunningUp]) -> None:
    up = start_up(min_free_mb=2**40)
    up.wait_for("IMAGES ARE REFUSED")
    assert "DISK FULL" in up.text
    assert "images are taken" not in up.text


def test_unusable_home_is_reported(start_up: Callable[..., RunningUp], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    up = start_up(database_url=f"sqlite:///{tmp_path / 'file' / 'x.sqlite'}")
    assert up.process.wait(timeout=90) == 1
    assert "firstread: " in up.text
    assert "Traceback" not in up.text
