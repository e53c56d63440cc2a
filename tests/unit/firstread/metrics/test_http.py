"""The HTTP server of ``/metrics``: what clients that misbehave cost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from firstread.metrics import http
from firstread.metrics.http import CONNECTIONS, HttpServer, serve_http
from tests.builders.timing import until

GET = b"GET / HTTP/1.0\r\n\r\n"


def _hello(_environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


@pytest.fixture
def server() -> Iterator[HttpServer]:
    running, thread = serve_http(_hello, "127.0.0.1", 0)
    yield running
    running.shutdown()
    running.server_close()
    thread.join(timeout=5)


def connect(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=10)


def answer(server: HttpServer, request: bytes = GET) -> bytes:
    with connect(server) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(4096), b""))


def test_a_client_is_served_while_many_say_nothing(server: HttpServer) -> None:
    before = threading.active_count()
    mute = [connect(server) for _ in range(4 * CONNECTIONS)]
    for sock in mute[::2]:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
    assert answer(server).endswith(b"\r\n\r\nhello")
    until(lambda: threading.active_count() - before <= CONNECTIONS)
    for sock in mute:
        sock.close()
    until(lambda: threading.active_count() == before)


def test_a_client_that_is_slow_goes_by_the_clock(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTION_S", 0.1)
    with connect(server) as sock:
        sock.sendall(GET[:5])
        assert sock.recv(100) == b""


def test_what_is_no_request_is_answered_or_dropped_without_a_word(
    server: HttpServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for bad in (b"\x16\x03\x01\r\n\r\n", b"\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70_000 + b"\r\n\r\n"):
        with connect(server) as sock:
            sock.sendall(bad)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert answer(server).endswith(b"hello")
    assert capfd.readouterr().err == ""
