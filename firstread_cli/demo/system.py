"""``firstread up`` in a temporary home, as a child process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from firstread.errors import FirstreadError
from firstread.settings import ENV_PREFIX, Settings

STOP_LIMIT_S = 30.0


class DemoFailed(FirstreadError):
    """The demo did not reach its end; its text says where it stopped."""


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_system(home: Path) -> tuple[subprocess.Popen[bytes], Settings, Path]:
    """Start ``firstread up`` in ``home`` on free ports; returns the process, its settings and its log file."""
    values = {
        "HOME": str(home),
        "DICOM_HOST": "127.0.0.1",
        "DICOM_PORT": str(free_port()),
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": str(free_port()),
        "WEB_PORT": "0",
    }
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    models_dir = os.environ.get(ENV_PREFIX + "MODELS_DIR")
    if models_dir:
        values["MODELS_DIR"] = models_dir
    environ.update({ENV_PREFIX + key: value for key, value in values.items()})
    log = home / "demo.log"
    home.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "firstread_cli.main", "up"], env=environ, stdout=out, stderr=subprocess.STDOUT
        )
    settings = Settings(
        home=home,
        dicom_port=int(values["DICOM_PORT"]),
        dicom_host="127.0.0.1",
        metrics_port=int(values["METRICS_PORT"]),
        database_url="",
        broker_url="",
    )
    return process, settings, log


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], limit_s: float, what: str) -> None:
    """Wait until ``ready()``; raise :class:`DemoFailed` when the process ends or the time is over."""
    end = time.monotonic() + limit_s
    while not ready():
        if process.poll() is not None:
            raise DemoFailed(f"`firstread up` ended with {process.returncode} while {what}")
        if time.monotonic() > end:
            raise DemoFailed(f"{what} took longer than {limit_s:.0f} s")
        time.sleep(0.1)


def stop_system(process: subprocess.Popen[bytes]) -> None:
    """Ask the system to stop as Ctrl-C does, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
