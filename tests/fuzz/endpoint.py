"""HTTP: ``/metrics`` and the worklist page. The first byte of an input says whether the peer stays."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from firstread.metrics.server import serve_metrics
from tests.builders.page import page_of
from tests.builders.site import database_in, settings_in
from tests.fuzz.bounds import Bounds
from tests.fuzz.door import Broken, Door, Feed

LOOK_EVERY: Final = 25
END_S: Final = 15.0
MOST_STAYING: Final = 40
MOST_THREADS: Final = 24
MOST_DESCRIPTORS: Final = 80
GOOD: Final = b" HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"


class Scraper:
    """Good and bad clients of one endpoint.

    Parameters
    ----------
    said : io.StringIO
        Where standard error goes.
    path : str
        What a good client asks for.
    """

    def __init__(self, port: int, said: io.StringIO, path: str) -> None:
        self._port = port
        self._said = said
        self._good = b"GET " + path.encode() + GOOD
        self._given = 0
        self._staying: list[socket.socket] = []
        self._bounds = Bounds()
        self._threads = threading.active_count()
        self._descriptors = len(os.listdir("/proc/self/fd"))

    def feed(self, data: bytes) -> str:
        """One client."""
        self._given += 1
        with self._bounds.kept():
            outcome = self._ask(data)
        if self._given % LOOK_EVERY == 0:
            self._look_around()
        return outcome

    def _ask(self, data: bytes) -> str:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=END_S)
        try:
            sock.sendall(data[1:])
            if data[:1] and data[0] & 1 and len(self._staying) < MOST_STAYING:
                self._staying.append(sock)
                return "stays"
            sock.shutdown(socket.SHUT_WR)
            got = b""
            while came := sock.recv(65536):
                got += came
        except TimeoutError as error:
            raise Broken("a client that has closed its side was not answered") from error
        except OSError:
            got = b"reset"
        finally:
            if sock not in self._staying:
                sock.close()
        return got.split(b"\r\n", 1)[0].decode("ascii", "replace")[:40] or "nothing"

    def _look_around(self) -> None:
        if self._said.getvalue():
            said = self._said.getvalue().strip()
            self._said.truncate(0)
            self._said.seek(0)
            last = said.splitlines()[-1]
            raise Broken(f"a client made it write to standard error: {last}") from RuntimeError(said)
        if threading.active_count() - self._threads > MOST_THREADS:
            raise Broken(f"more than {MOST_THREADS} threads wait for clients that say nothing")
        if len(os.listdir("/proc/self/fd")) - self._descriptors - len(self._staying) > MOST_DESCRIPTORS:
            raise Broken(f"more than {MOST_DESCRIPTORS} descriptors are held for clients")
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", self._port), timeout=END_S) as sock:
            sock.sendall(self._good)
            if b" 200 " not in sock.recv(65536).split(b"\r\n", 1)[0]:
                raise Broken("a good client is not served")
        if time.monotonic() - started > END_S:
            raise Broken("a good client is served late")
        if len(self._staying) >= MOST_STAYING:
            for sock in self._staying:
                sock.close()
            self._staying.clear()

    def close(self) -> None:
        """End every connection."""
        for sock in self._staying:
            sock.close()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """An endpoint of a process without a database."""
    said = io.StringIO()
    server = serve_metrics(settings_in(folder / "home"), "listen", None, port=0)
    assert server is not None
    with contextlib.redirect_stderr(said):
        scraper = Scraper(server.port, said, "/metrics")
        yield scraper.feed
        scraper.close()
    server.close()


class _Errors(logging.StreamHandler[io.StringIO]):
    """Errors of the page go where standard error goes: no client may cause one."""

    def __init__(self, said: io.StringIO) -> None:
        super().__init__(said)
        self.setLevel(logging.ERROR)


@contextlib.contextmanager
def opened_page(folder: Path) -> Iterator[Feed]:
    """The worklist page of a site without studies and accounts."""
    settings = settings_in(folder / "home")
    db, said = database_in(settings), io.StringIO()
    errors = _Errors(said)
    logging.getLogger().addHandler(errors)
    try:
        with page_of(settings, db) as page, contextlib.redirect_stderr(said):
            scraper = Scraper(page.settings.web_port, said, "/healthz")
            yield scraper.feed
            scraper.close()
    finally:
        logging.getLogger().removeHandler(errors)
        db.dispose()


def requests() -> st.SearchStrategy[bytes]:
    """Requests of sound and odd lines and headers."""
    methods = st.sampled_from(
        [b"GET", b"GET", b"HEAD", b"POST", b"OPTIONS", b"PRI", b"", b"get", b"\xff", b"G" * 70_000]
    )
    paths = st.sampled_from(
        [
            b"/metrics",
            *(b"/enter", b"/list", b"/study/1", b"/study/99999999999999999999", b"/job/1/picture/..%2f..%2fx"),
            *(b"/static/..%2f..%2fapp.py", b"/?next=//evil", b"/static/%00", b"/job/1/picture/%ff"),
            b"/",
            b"/favicon.ico",
            b"/metrics?name[]=x",
            b"/metrics?name%5B%5D=%ff",
            b"//..//..",
            b"*",
            b"/" + b"a" * 70_000,
            b"\0",
        ]
    )
    versions = st.sampled_from(
        [
            b"HTTP/1.1",
            b"HTTP/1.0",
            b"HTTP/9.9",
            b"HTTP/2",
            b"",
            b"HTTP/1.1.1",
            b"HTTP/x.y",
            b"HTTP/" + b"9" * 500 + b".1",
        ]
    )
    names = st.sampled_from(
        [
            b"Host",
            b"Accept",
            b"Accept-Encoding",
            b"Content-Length",
            b"Transfer-Encoding",
            b"Expect",
            b"Connection",
            b"",
            b"X" * 300,
        ]
    )
    contents = st.sampled_from(
        [
            b"x",
            b"gzip",
            b"-1",
            b"99999999999999999999",
            b"chunked",
            b"100-continue",
            b"application/openmetrics-text; version=1.0.0",
            b"\xff\0",
            b"v" * 70_000,
        ]
    )
    headers = st.lists(st.builds(lambda n, v: n + b": " + v + b"\r\n", names, contents), max_size=5)
    return st.builds(
        lambda how, m, p, v, h, end, times: (
            bytes([how]) + b" ".join((m, p, v)) + b"\r\n" + b"".join(h)[: 2**17 // times] * times + end
        ),
        st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1]),
        methods,
        paths,
        versions,
        headers,
        st.sampled_from([b"\r\n", b"\r\n", b"\n\n", b"", b"\r\n" + bytes(1000)]),
        st.sampled_from([1, 1, 1, 1, 60]),
    )


DOORS: Final = {
    "http": Door("http", opened, requests, longest=256 * 2**10),
    "page": Door("page", opened_page, requests, longest=256 * 2**10),
}
