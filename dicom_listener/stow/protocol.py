"""Connections of the STOW-RS door: how many, whose, and how long one may take to ask for something."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, cast

import uvicorn

from dicom_listener.peers.handshake_faults import fault_of
from dicom_listener.peers.limits import SLOW, Limits
from dicom_listener.peers.proxies import Proxies
from dicom_listener.peers.refusals import (
    BAD_REQUEST,
    CLIENT_NAME,
    SILENT,
    TLS_FAILED,
    TOO_MANY_CONNECTIONS,
    TurnedAway,
)
from firstread.processes.http_peer import HttpPeer
from firstread.tls.certificates import CertificateError
from firstread.tls.server import ServerTls, names_shown

ANSWER_S: Final = 10
"""A peer that takes nothing of its answer for so long is gone."""
USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


class StowConfig(uvicorn.Config):
    """Configuration of the server, with what its connections need to know.

    Parameters
    ----------
    limits : Limits
        Of connections without a request, and of the time until there is one.
    on_refused : callable
        Called for each connection that is turned away.
    tls : ServerTls or None
        What every connection begins with.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits,
        proxies: Proxies,
        on_refused: Callable[[TurnedAway], None],
        stop_s: int,
        tls: ServerTls | None = None,
    ) -> None:
        super().__init__(
            app,
            http=StowProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=stop_s,
        )
        self.limits = limits
        self.proxies = proxies
        self.on_refused = on_refused
        self.tls = tls


class StowProtocol(HttpPeer):
    """A connection; it is idle while it has no request that is being answered."""

    config: StowConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place among those without a request, from another connection where there is none left."""
        self.has_sent = False
        self._handshake: asyncio.Task[None] | None = None
        self._early = b""
        self._is_lost = False
        super().connection_made(transport)
        self.arrived = self.loop.time()
        sock = transport.get_extra_info("socket")
        if USER_TIMEOUT is not None and sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, ANSWER_S * 1000)
        self._make_room()
        self._wait_for_request()
        if self.config.tls is not None:
            transport.pause_reading()
            self._handshake = self.loop.create_task(self._shake_hands(transport, self.config.tls))

    async def _shake_hands(self, outer: asyncio.Transport, tls: ServerTls) -> None:
        """Go on with TLS over the connection; until then it counts as one without a request."""
        try:
            inner = await self.loop.start_tls(outer, self, tls.context(), server_side=True)
        except (OSError, CertificateError) as error:  # ssl.SSLError is an OSError
            if not self._is_lost:
                other = TLS_FAILED, str(error) or type(error).__name__
                self.turn_out(*(fault_of(error) if isinstance(error, ssl.SSLError) else other))
                self.connection_lost(error)
            return
        if inner is None or self._is_lost:  # turned out meanwhile
            self.connection_lost(ConnectionAbortedError())
            return
        super().connection_made(inner)
        early, self._early, self._handshake = self._early, b"", None
        peer = inner.get_extra_info("peercert")
        if not tls.lets_in(peer):
            self.turn_out(CLIENT_NAME, names_shown(peer))
        elif early:
            self.data_received(early)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        limits = self.config.limits
        idle = [other for other in cast("set[StowProtocol]", self.connections) if other.is_idle and other is not self]
        hosts = Counter(other.host for other in idle)
        if hosts[self.host] >= limits.visitors_of_a_host and self.host not in self.config.proxies:
            crowded = self.host
        elif len(idle) >= limits.visitors:
            crowded = hosts.most_common(1)[0][0]
        else:
            return
        min((other for other in idle if other.host == crowded), key=lambda other: other.arrived).turn_out(
            TOO_MANY_CONNECTIONS
        )

    def turn_out(self, reason: str, detail: str = "") -> None:
        """Close it."""
        self.config.on_refused(TurnedAway(reason, self.host, detail=detail))
        self.connections.discard(self)
        self.transport.abort()

    def _wait_for_request(self) -> None:
        self.set_deadline(self.config.limits.request_s, self._too_late, self.cycle)

    def _too_late(self, cycle: object) -> None:
        if self.cycle is cycle and not self.transport.is_closing():
            self.turn_out(SLOW if self.has_sent else SILENT)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self.has_sent = True
        if self._handshake is not None:  # the transport is not ours yet
            self._early += data
            return
        super().data_received(data)

    def on_response_complete(self) -> None:
        """The next request has its time too."""
        self.has_sent = False
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait_for_request()

    def note_bad_request(self) -> None:
        """Count a peer that speaks no HTTP."""
        self.config.on_refused(TurnedAway(BAD_REQUEST, self.host))

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._is_lost:
            return
        self._is_lost = True
        self.drop_deadline()
        super().connection_lost(exc)
