"""What a peer sends behind a request and is no HTTP: one answer, and nothing of it in the log."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from firstread.processes.http_peer import HttpPeer
from tests.builders.timing import free_port, until


class Peer(HttpPeer):
    """Counts what is no HTTP."""

    bad = 0

    def note_bad_request(self) -> None:
        """One more."""
        Peer.bad += 1


async def quick(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"good"})


@pytest.fixture
def port() -> Iterator[int]:
    number = free_port()
    server = uvicorn.Server(uvicorn.Config(quick, port=number, http=Peer, ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield number
    server.should_exit = True
    thread.join(timeout=20)


def ask(port: int, data: bytes) -> bytes:
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(data)
        while came := sock.recv(4096):
            got += came
    return got


def test_an_answer_that_nobody_takes_is_dropped(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """The broken body comes in one packet with the request, so that the 400 goes out before the application runs."""
    before = Peer.bad
    got = ask(port, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400 ") and b"good" not in got
    assert Peer.bad == before + 1
    assert ask(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_wish_for_another_protocol_is_passed_over(port: int, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n"
    got = ask(port, b"GET / HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n")
    assert got.startswith(b"HTTP/1.1 200 ") and b"good" in got
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
