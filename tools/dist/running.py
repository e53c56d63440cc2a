"""Programs that are run to their end, or for a while; what they say is shown where they fail."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TAIL = 25
STOP_S = 120.0


class NotBuilt(Exception):
    """Something could not be built, or does not run; the text says what."""


def run(
    command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None, limit_s: float = 600.0
) -> str:
    """What a program prints. Raises :class:`NotBuilt` with its last lines where it fails or takes too long."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, env=None if env is None else dict(env), capture_output=True, text=True, timeout=limit_s
        )
    except FileNotFoundError as error:
        raise NotBuilt(f"{words[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise NotBuilt(f"{' '.join(words)} took longer than {limit_s:g} s") from error
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()[-TAIL:]
        raise NotBuilt("\n".join([f"{' '.join(words)} ended with {done.returncode}:", *said]))
    return done.stdout


def wait_for(check: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait until something is so. Raises :class:`NotBuilt` when the time is over."""
    end = time.monotonic() + limit_s
    while not check():
        if time.monotonic() > end:
            raise NotBuilt(f"not within {limit_s:g} s: {what}")
        time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process as Ctrl-C does, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def free_port() -> int:
    """A port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
