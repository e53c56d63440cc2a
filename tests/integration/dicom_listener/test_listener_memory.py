"""A listener process stays small whatever it is sent, and however large an object is."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dicom_listener.peers.limits import REQUEST_BYTES
from firstread.processes.spawning import firstread_command, settings_environ, spawn, stop
from firstread.records import Database
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.builders.listening import small_series
from tests.builders.peers import answer, associate, connect, fragment, seconds_until_accepted, store_command
from tests.builders.stow import CONTENT_TYPE, body_of, file_of
from tests.builders.timing import free_port, until

MakeSettings = Callable[..., Settings]
PEAK_MB = 400


def peak_mb(pid: int) -> float:
    """Peak resident memory of the largest of a process and its children."""
    family = [pid, *(child.pid for child in psutil.Process(pid).children())]
    return max(_peak_mb(one) for one in family)


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def _in_a_process(settings: Settings, work: Callable[[int], None]) -> float:
    """Peak memory of a listener process after ``work`` with its port."""
    db = Database(settings.database_url)
    upgrade(db)
    db.dispose()
    process = spawn(firstread_command("listen"), environ=settings_environ(settings))
    try:
        until(lambda: _answers(settings.dicom_port), limit_s=60)
        work(settings.dicom_port)
        assert seconds_until_accepted(settings.dicom_port) < 10
        return peak_mb(process.pid)
    finally:
        stop(process, 10)


def _answers(port: int) -> bool:
    try:
        with connect(port) as sock:
            return bool(sock.getsockname() != sock.getpeername())  # a port of the system's choice may meet itself
    except OSError:
        return False


def test_memory_is_bounded_whatever_is_sent(quick: MakeSettings) -> None:
    def work(port: int) -> None:
        held = [connect(port) for _ in range(60)]
        for sock in held:  # headers that announce much, and the longest requests that are taken, nearly whole
            sock.sendall(struct.pack(">BBI", 1, 0, 64 * 2**20))
        held += [connect(port) for _ in range(60)]
        for sock in held[60:]:
            sock.sendall(struct.pack(">BBI", 1, 0, REQUEST_BYTES) + bytes(REQUEST_BYTES - 100))
        for sock in held:
            sock.close()
        with associate(port) as sock, pytest.raises(OSError):  # command fragments without a last one
            end = time.monotonic() + 30  # what comes after the abort is read and dropped for two seconds
            while time.monotonic() < end:
                sock.sendall(fragment(1, bytes(16000)))
        senders = [associate(port) for _ in range(4)]
        for sock in senders:  # an object of 120 MB on each association
            sock.sendall(fragment(3, store_command()))
        block = fragment(0, bytes(250_000))
        for _ in range(480):
            for sock in senders:
                sock.sendall(block)
        for sock in senders:
            sock.sendall(fragment(2, b"\0\0"))
            assert answer(sock)[:1] == b"\4"
            sock.close()

    settings = quick(dicom_port=free_port(), metrics_port=0, min_free_mb=0, inbox_rescan_s=10.0)
    assert _in_a_process(settings, work) < PEAK_MB


def test_memory_is_bounded_whatever_is_sent_by_stow(quick: MakeSettings) -> None:
    stow_port = free_port()
    head = f"POST /studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {CONTENT_TYPE}\r\n".encode()

    def work(port: int) -> None:
        held = [connect(stow_port) for _ in range(60)]
        for sock in held:  # heads without an end
            with contextlib.suppress(OSError):
                sock.sendall(head + b"X: " + b"x" * 60_000)
        until(lambda: _answers(stow_port), limit_s=60)
        senders = [connect(stow_port) for _ in range(4)]
        begun = body_of([file_of(small_series(1)[0])])[:-40]
        for sock in senders:  # an object of 80 MB in each request
            sock.sendall(head + b"Content-Length: 999999999\r\n\r\n" + begun)
        block = bytes(250_000)
        for _ in range(320):
            for sock in senders:
                sock.sendall(block)
        for sock in (*held, *senders):
            sock.close()

    settings = quick(dicom_port=free_port(), metrics_port=0, stow_port=stow_port, listener_processes=1, min_free_mb=0)
    assert _in_a_process(settings, work) < PEAK_MB
