"""A small HTTP server for one application, which clients that say nothing cannot fill.

Every connection has a thread, as in the standard library's; here there are at most :data:`CONNECTIONS` of them. A
further client takes the place of the one that has been there for longest; none stays longer than :data:`CONNECTION_S`.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from firstread.processes.lasting import lasting_thread

LOGGER = logging.getLogger(__name__)
CONNECTIONS: Final = 16
CONNECTION_S: Final = 30.0
LOOK_S: Final = 0.5


class HttpServer(ThreadingMixIn, WSGIServer):
    """The server; ``serve_forever`` runs it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._lock = threading.Lock()
        self._began: dict[socket.socket, float] = {}
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the name of the host, which might take long to find."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._lock:
            if len(self._began) >= CONNECTIONS:
                self._end(min(self._began, key=self._began.__getitem__))
            self._began[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The end of a connection."""
        with self._lock:
            self._began.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: whose time is over."""
        now = time.monotonic()
        with self._lock:
            for request in [sock for sock, began in self._began.items() if now - began > CONNECTION_S]:
                self._end(request)

    def _end(self, request: socket.socket) -> None:
        """Let the thread that waits for a client go on: nothing more will come."""
        del self._began[request]
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone, or broke the library, is nobody's concern."""
        LOGGER.debug("a client of the HTTP endpoint was lost (%s)", type(sys.exception()).__name__, exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = CONNECTION_S

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


def serve_http(app: Callable[..., Any], host: str, port: int) -> tuple[HttpServer, threading.Thread]:
    """Serve an application from a thread of its own. Raises OSError where the port cannot be had.

    Parameters
    ----------
    app : callable
        A WSGI application (PEP 3333).
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    server = HttpServer((str(address[0]), port), family)
    server.set_app(app)
    thread = lasting_thread(partial(server.serve_forever, LOOK_S), "metrics")
    thread.start()
    return server, thread
