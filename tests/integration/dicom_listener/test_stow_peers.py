"""The STOW-RS door and peers that are mute, slow, gone, greedy or too many, and a disk that is full."""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from dicom_listener.stow import app, door
from firstread.settings import Settings
from tests.builders.listening import QUICK, all_closed, listening, outcomes, rows, small_series
from tests.builders.stow import CONTENT_TYPE, FAILED, REASON, body_of, file_of, post, post_body, values
from tests.builders.timing import free_port, until

MakeSettings = Callable[..., Settings]


@pytest.fixture
def stow(make_settings: MakeSettings, broker: str) -> MakeSettings:
    """Makes settings with the door open."""
    return functools.partial(make_settings, **QUICK, broker_url=broker, stow_port=free_port())


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def _is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


def _head(length: int) -> bytes:
    return (
        f"POST /studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_a_connection_that_is_cut_is_an_aborted_association(stow: MakeSettings) -> None:
    with listening(stow()) as service:
        first, second = small_series(2)
        whole = body_of([file_of(first), file_of(second)])
        with _connect(service.settings.stow_port) as sock:
            sock.sendall(_head(len(whole)) + whole[:-100])
            until(lambda: outcomes(service.db) == {"stored": 1})
            assert rows(service.db, "SELECT ended_at FROM association") == [(None,)]  # the study stays open
        until(lambda: rows(service.db, "SELECT ending FROM association") == [("aborted",)])
        assert rows(service.db, "SELECT state FROM revision") == [("RECEIVING",)]
        until(lambda: not list(service.storage.spool.root.rglob("*.part")))
        assert post(service.settings.stow_port, [file_of(first), file_of(second)]).status_code == 200
        assert all_closed(service.db) == [(first.StudyInstanceUID, 1, "released", 2, "[]")]
        assert outcomes(service.db) == {"stored": 2, "repeat": 1}


def test_a_listener_that_stops_waits_for_no_sender(stow: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "STOP_S", 1)
    settings = stow()
    first, second = small_series(2)
    whole = body_of([file_of(first), file_of(second)])
    with listening(settings) as service, _connect(settings.stow_port) as sock:
        sock.sendall(_head(len(whole)) + whole[:-100])
        until(lambda: outcomes(service.db) == {"stored": 1})
        assert service.stow is not None
        service.stow.stop()
        until(lambda: rows(service.db, "SELECT ending FROM association") == [("aborted",)])
        with pytest.raises(ConnectionRefusedError):
            _connect(settings.stow_port)


def test_a_good_request_beside_64_mute_connections(stow: MakeSettings) -> None:
    with listening(stow()) as service, ExitStack() as stack:
        port = service.settings.stow_port
        mute = [stack.enter_context(_connect(port)) for _ in range(64)]
        for sock in mute[::2]:
            sock.sendall(b"POST /studies HTTP/1.1\r\nHost: ")
        started = time.monotonic()
        assert post(port, [file_of(ds) for ds in small_series(1)]).status_code == 200
        assert time.monotonic() - started < 10


def test_a_head_and_a_body_have_their_time(stow: MakeSettings) -> None:
    with listening(stow(network_timeout_s=1.0)) as service, ExitStack() as stack:
        port = service.settings.stow_port
        mute, half, slow = (stack.enter_context(_connect(port)) for _ in range(3))
        half.sendall(b"POST /studies HTTP/1.1\r\n")
        slow.sendall(_head(10_000) + b"--")
        assert _is_closed(mute) and _is_closed(half)
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        found = "SELECT reason FROM association_refusal ORDER BY reason"
        until(lambda: rows(service.db, found) == [("silent",), ("slow",)])


def test_one_host_has_no_more_than_its_connections(stow: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_listener.peers.limits.VISITORS", 8)
    with listening(stow()) as service, ExitStack() as stack:
        port = service.settings.stow_port
        first = stack.enter_context(_connect(port))
        stack.enter_context(_connect(port))
        stack.enter_context(_connect(port))
        assert _is_closed(first)
        assert post(port, [file_of(ds) for ds in small_series(1)]).status_code == 200


def test_too_many_requests_wait(stow: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "REQUESTS", 4)
    with listening(stow()) as service, ExitStack() as stack:
        port = service.settings.stow_port
        for _ in range(3):
            stack.enter_context(_connect(port)).sendall(_head(10_000) + b"--")

        def refused() -> bool:
            answer = post(port, [file_of(ds) for ds in small_series(1)])
            return answer.status_code == 503 and answer.headers["retry-after"] == str(app.BUSY_RETRY_S)

        until(refused)


def test_a_full_disk(stow: MakeSettings) -> None:
    with listening(stow(min_free_mb=2**40)) as service:
        answer = post(service.settings.stow_port, [file_of(ds) for ds in small_series(1)])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, str(app.RETRY_AFTER_S))
        assert not list(service.storage.spool.root.rglob("*.dcm"))


def test_a_disk_that_fills_during_a_request(stow: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(stow()) as service:
        free = itertools.chain([2**40] * 2, itertools.repeat(0))
        monkeypatch.setattr(service.storage.spool, "free_bytes", lambda: next(free))
        monkeypatch.setattr(service.storage.spool, "min_free_bytes", 1)
        answer = post(service.settings.stow_port, [file_of(ds) for ds in small_series(3)])
        assert (answer.status_code, values(answer, FAILED, REASON)) == (202, [0xA700, 0xA700])
        answer = post(service.settings.stow_port, [file_of(ds) for ds in small_series(1)])
        assert answer.status_code == 503
        service.writer.flush()
        refusals = rows(service.db, "SELECT reason, source, kept_path FROM intake_refusal")
        assert refusals == [("disk_full", "stow", None)]


def test_an_instance_that_is_too_large(stow: MakeSettings) -> None:
    with listening(stow(max_instance_mb=1)) as service:
        port, large = service.settings.stow_port, bytes(3 * 2**20)
        (ds,) = small_series(1)
        answer = post(port, [large])
        assert answer.status_code == 413
        answer = post(port, [large, file_of(ds)])
        assert answer.status_code == 202

        def endless() -> Iterator[bytes]:
            yield body_of([b""])[:-20]
            while True:
                yield bytes(2**20)

        with contextlib.suppress(httpx.TransportError):  # cut off before it had read the answer
            assert post_body(port, endless()).status_code == 413
        until(lambda: rows(service.db, "SELECT ending FROM association ORDER BY id DESC LIMIT 1") == [("released",)])
        assert outcomes(service.db) == {"stored": 1}
