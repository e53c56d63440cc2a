"""Clients that say nothing, or no HTTP: the others are served at once, and the log has one line."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from firstread.records import Database
from firstread.settings import Settings
from firstread_web.door import Limits
from tests.builders.page import RunningPage, page_of
from tests.builders.timing import until

SOON_S = 5.0
"""Far below the ten seconds after which those who say nothing are gone."""
UNFINISHED = b"POST /enter HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"


def connected(page: RunningPage, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", page.settings.web_port), timeout=20)
    sock.sendall(data)
    return sock


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("firstread_page_refusals_total", {"reason": reason}) or 0.0


def is_closed(sock: socket.socket) -> bool:
    """Whether the page has ended a connection."""
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


@contextmanager
def door(site: tuple[Settings, Database], **limits: Any) -> Iterator[RunningPage]:
    with page_of(*site, Limits(**limits)) as page:
        yield page


def test_a_hundred_mute_connections_keep_nobody_out(site: tuple[Settings, Database]) -> None:
    before = refused("too_many_connections")
    with door(site) as page, page.client() as good, ExitStack() as stack:
        mute = [stack.enter_context(connected(page)) for _ in range(100)]
        begun = time.monotonic()
        assert good.get("/healthz").status_code == 200
        assert page.local().get("/").status_code == 200
        assert time.monotonic() - begun < SOON_S
        until(lambda: sum(map(is_closed, mute)) >= 100 - Limits().waiting_of_host, what="the oldest are closed")
        assert refused("too_many_connections") - before >= 100 - Limits().waiting_of_host
        assert good.get("/healthz").status_code == 200


def test_no_client_gets_out_of_http(
    site: tuple[Settings, Database], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that speaks WebSockets would have no deadline and no place among those that are counted."""
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGk=\r\n"
    with door(site) as page:
        for host in (b"localhost", b"\xff"):
            with connected(page, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n" + upgrade + b"\r\n") as sock:
                assert sock.recv(4096).split(b" ")[1] in (b"303", b"401", b"421")
    assert capfd.readouterr().err == "" and not caplog.records


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET / HTTP/1.1\r\nHost: 127", b"POST /enter HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nk"],
)
def test_a_request_is_complete_in_time_or_its_connection_ends(
    site: tuple[Settings, Database], begun: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = refused("slow")
    with door(site, request_s=0.5) as page, connected(page, begun) as slow, page.client() as good:
        until(lambda: is_closed(slow), what="the slow one is closed")
        assert refused("slow") == before + 1
        with connected(page, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as quick:
            until(lambda: quick.recv(12) == b"HTTP/1.1 200", what="an answer")
        assert good.get("/healthz").status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_what_is_no_http_is_one_warning_with_its_count(
    site: tuple[Settings, Database], caplog: pytest.LogCaptureFixture
) -> None:
    garbage = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS
        b"\x01\x00\x00\x00\x00\xcd\x00\x01" + bytes(80),  # a DICOM peer
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nno request\r\n\r\n",
        b"POST /enter HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"A" * 100_000,
    )
    before = refused("bad_request")
    with door(site) as page, page.client() as good:
        for data in garbage:
            with connected(page) as sock:
                try:
                    sock.sendall(data)
                except OSError:
                    continue
                until(partial(is_closed, sock), what=f"the end of {data[:20]!r}")
        assert good.get("/healthz").status_code == 200
    assert refused("bad_request") == before + len(garbage)
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.levelname, record.getMessage()) for record in loud] == [
        ("WARNING", "turned away at the page: 1 bad_request")
    ]


def test_more_requests_than_are_answered_at_once_are_asked_to_come_again(site: tuple[Settings, Database]) -> None:
    unfinished = b"POST /enter HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    with (
        door(site, requests=2) as page,
        connected(page, unfinished),
        connected(page, unfinished),
        page.client() as late,
    ):

        def turned_away() -> httpx.Response | None:
            answer = late.get("/healthz")
            return answer if answer.status_code == 503 else None

        busy = until(turned_away, what="503")
        assert busy is not None and busy.headers["Retry-After"] == "5"
        assert refused("too_many_requests") >= 1
