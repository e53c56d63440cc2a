"""The STOW-RS door of a process: a server of HTTP in a thread of its own, on a socket that is open already."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import uvicorn

from dicom_listener.peers.certificate import server_tls
from dicom_listener.peers.limits import Limits
from dicom_listener.peers.proxies import Proxies
from dicom_listener.peers.refusals import TurnedAway
from dicom_listener.stow.app import StowApp
from dicom_listener.stow.protocol import StowConfig
from dicom_listener.stow.request import Admission
from firstread.processes.lasting import lasting_thread
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)
STOP_S: Final = 3
"""Requests in hand have so long to come to their end."""


class StowDoor:
    """The door. ``start`` and ``stop`` may be called once each.

    Parameters
    ----------
    listener : socket.socket
        Bound and listening.
    on_refused : callable
        Called for each connection or request that is turned away.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        intake: Admission,
        on_refused: Callable[[TurnedAway], None],
    ) -> None:
        limits = Limits.of(settings)
        self._listener = listener
        self._app = StowApp(settings, intake, limits, on_refused)
        self._settings = settings
        self._make_config = partial(
            StowConfig, self._app, limits, Proxies(settings.trusted_proxies), on_refused, STOP_S
        )
        self._server: uvicorn.Server | None = None
        self._stopping = threading.Event()
        self._thread = lasting_thread(self._run, "stow", stopping=self._stopping)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        host, port = self._listener.getsockname()[:2]
        LOGGER.info("STOW-RS on %s:%s%s", host, port, ", with TLS" if self._settings.stow_speaks_tls else "")

    def stop(self) -> None:
        """Take no more requests, and give those in hand a moment."""
        self._stopping.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=3 * STOP_S)
        self._app.close()
        self._listener.close()

    def _run(self) -> None:
        tls = server_tls(self._settings) if self._settings.stow_speaks_tls else None
        self._server = uvicorn.Server(self._make_config(tls))
        if not self._stopping.is_set():
            self._server.run(sockets=[self._listener.dup()])
