"""The lobby: accepts connections, and lets in those that ask for an association as one should.

One thread serves them all, with no more memory and no more descriptors than their bytes and sockets take. Threads and
buffers come with an association, and with the first bytes of a TLS handshake.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from dicom_listener.peers.limits import SLOW, Fault, Limits
from dicom_listener.peers.names import clean
from dicom_listener.peers.proxies import Proxies
from dicom_listener.peers.refusals import BAD_REQUEST, LIMIT, SILENT, TOO_MANY_CONNECTIONS, TurnedAway
from dicom_listener.scp.openings import Opening
from dicom_listener.scp.tunnel import Tunnel
from dicom_listener.scp.visitors import LIMIT_EXCEEDED, NO_SUCH_VERSION, Caller, Visitor, abortion, rejection

if TYPE_CHECKING:
    from firstread.tls.server import ServerTls

LOGGER = logging.getLogger(__name__)

WAIT_FOR_PLACE_S: Final = 2.0
"""So long a caller is kept waiting for a place before it is told that there is none."""
WAIT_FOR_PROCESS_S: Final = 30.0
"""The same where no process serves: one that ended is started again."""
LEAVE_S: Final = 1.0
LOOK_S: Final = 0.1
"""Between looks at deadlines, while somebody is in the lobby."""
REST_S: Final = 1.0
ACCEPTS_AT_ONCE: Final = 64
COLLECT_S: Final = 6.0
"""Associations that have ended are circles of references; garbage is collected so often at most."""
DETAIL_CHARACTERS: Final = 300
NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class NobodyServes(Exception):
    """No process takes an association just now."""


class Room(Protocol):
    """Who may have a place; :class:`dicom_listener.scp.places.Places`, or what knows those of several processes."""

    @property
    def is_served(self) -> bool:
        """Whether there is a process that serves associations at all."""

    def has_room(self, calling_ae: str, host: str) -> bool:
        """Whether such a caller may have a place now."""

    def make_room(self, host: str) -> bool:
        """End an association that does not use its place, for a caller of another host; whether one goes."""


class Lobby:
    """Everything between a connection and its association.

    Parameters
    ----------
    openings : sequence of Opening
        Sockets that listen, with what TLS needs.
    limits : Limits
        Of visitors and their time.
    places : Room
        Of associations.
    proxies : Proxies
        Whose word on hosts is taken.
    let_in : callable
        Begins an association with a visitor; the socket is its own from then on. Raises RuntimeError where no thread
        can be started, and NobodyServes where the visitor has to wait.
    on_refused : callable
        Called for each connection that is turned away.
    """

    def __init__(
        self,
        openings: Sequence[Opening],
        limits: Limits,
        places: Room,
        proxies: Proxies,
        let_in: Callable[[Visitor, Caller], None],
        on_refused: Callable[[TurnedAway], None],
    ) -> None:
        self._openings = tuple(openings)
        self._limits = limits
        self._places = places
        self._proxies = proxies
        self._let_in = let_in
        self._on_refused = on_refused
        self._visitors: list[Visitor] = []
        self._tunnels: dict[Visitor, Tunnel] = {}
        self._is_stopping = False
        self._collected = time.monotonic()
        self._let_in_count = 0
        self._bell, self._rope = socket.socketpair()
        for sock in (*(opening.sock for opening in openings), self._bell, self._rope):
            sock.setblocking(False)
        self._selector = selectors.DefaultSelector()
        for opening in openings:
            self._selector.register(opening.sock, selectors.EVENT_READ, opening)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until :meth:`stop`; the listening sockets are closed then."""
        while not self._is_stopping:
            try:
                self._turn()
            except Exception:  # one peer's doing must not end it for all
                LOGGER.exception("the lobby of the DICOM door stumbled")
                time.sleep(LOOK_S)
        for visitor in list(self._visitors):
            self._close(visitor)
        self._selector.close()
        for sock in (*(opening.sock for opening in self._openings), self._bell, self._rope):
            sock.close()

    def stop(self) -> None:
        """Take no more connections."""
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._rope.send(b"!")

    def _turn(self) -> None:
        for key, _ in self._selector.select(LOOK_S if self._visitors else REST_S):
            if isinstance(key.data, Opening):
                self._accept(key.data)
            elif key.fileobj is not self._bell:
                self._look_at(key.data)
        now = time.monotonic()
        for visitor in list(self._visitors):
            if visitor.caller is not None and not visitor.is_leaving:
                self._find_place(visitor, visitor.caller)
            if now >= visitor.until and visitor in self._visitors:
                self._time_is_over(visitor)
        if self._let_in_count and not self._visitors and now - self._collected > COLLECT_S:
            gc.collect()
            self._collected, self._let_in_count = now, 0

    def _accept(self, opening: Opening) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, address = opening.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    if self._visitors:
                        self._turn_out(Counter(v.host for v in self._visitors).most_common(1)[0][0])
                    time.sleep(LOOK_S)
                return
            self._welcome(sock, address, opening)

    def _welcome(self, sock: socket.socket, address: tuple[str, int], opening: Opening) -> None:
        host = clean(address[0]) or ""
        is_proxy = host in self._proxies
        self._make_room(None if is_proxy else host)
        if len(self._visitors) >= self._limits.visitors:
            self._on_refused(TurnedAway(TOO_MANY_CONNECTIONS, host))
            sock.close()
            return
        sock.setblocking(False)
        until = time.monotonic() + self._limits.request_s
        visitor = Visitor(sock, address, host, until, behind_proxy=is_proxy, tls=opening.tls)
        self._visitors.append(visitor)
        self._selector.register(sock, selectors.EVENT_READ, visitor)
        self._look_at(visitor)

    def _make_room(self, host: str | None) -> None:
        """Close a connection where the next one would be one too many: the oldest of its host, or of the busiest."""
        hosts = Counter(visitor.host for visitor in self._visitors)
        if host is not None and hosts[host] >= self._limits.visitors_of_a_host:
            self._turn_out(host)
        elif len(self._visitors) >= self._limits.visitors:
            self._turn_out(hosts.most_common(1)[0][0])

    def _turn_out(self, host: str) -> None:
        oldest = min((v for v in self._visitors if v.host == host), key=lambda v: (not v.is_leaving, v.arrived))
        if not oldest.is_leaving:
            self._on_refused(TurnedAway(TOO_MANY_CONNECTIONS, host))
        self._close(oldest)

    def _look_at(self, visitor: Visitor) -> None:
        """Read what a visitor has sent."""
        if visitor.is_leaving:
            if not visitor.drain():
                self._close(visitor)
            return
        if visitor.caller is not None:
            return
        try:
            goes_on = visitor.read(self._proxies)
        except Fault as fault:
            self._on_refused(TurnedAway(fault.reason, visitor.host))
            self._dismiss(visitor, abortion(fault.diagnostic))
            return
        except OSError:
            goes_on = False
        if not goes_on:
            self._note_end(visitor)
            self._close(visitor)
        elif visitor.says_hello and visitor.tls is not None:
            self._begin_tls(visitor, visitor.tls)
        elif visitor.caller is not None:
            self._selector.unregister(visitor.sock)  # what follows is for the association to read
            visitor.until = time.monotonic() + WAIT_FOR_PLACE_S
            if visitor.caller.version & 1 == 0:
                self._on_refused(TurnedAway(BAD_REQUEST, visitor.host, visitor.caller.calling_ae))
                self._dismiss(visitor, rejection(*NO_SUCH_VERSION))
            else:
                self._find_place(visitor, visitor.caller)

    def _note_end(self, visitor: Visitor) -> None:
        """A visitor has gone, or failed at its TLS handshake."""
        tunnel = self._tunnels.get(visitor)
        if tunnel is not None and tunnel.fault is not None:
            reason, detail = tunnel.fault
            self._on_refused(TurnedAway(reason, visitor.host, detail=clean(detail, DETAIL_CHARACTERS) or ""))
        elif visitor.data:
            self._on_refused(TurnedAway(BAD_REQUEST, visitor.host))

    def _begin_tls(self, visitor: Visitor, tls: ServerTls) -> None:
        """Let a thread do the handshake; what comes through it is read as from any other visitor."""
        self._selector.unregister(visitor.sock)
        try:
            tunnel = Tunnel(visitor.sock, bytes(visitor.data), tls)
        except OSError as error:  # no more descriptors
            LOGGER.error("a TLS handshake cannot be served (%s)", error)
            self._close(visitor)
            return
        visitor.come_in(tunnel.ours)
        self._tunnels[visitor] = tunnel
        self._selector.register(visitor.sock, selectors.EVENT_READ, visitor)
        try:
            tunnel.start()
        except RuntimeError as error:  # no more threads
            LOGGER.error("a TLS handshake cannot be served (%s)", error)
            tunnel.close()
            self._close(visitor)

    def _find_place(self, visitor: Visitor, caller: Caller) -> None:
        has_room = self._places.has_room(caller.calling_ae, visitor.host)
        if not has_room and not self._places.make_room(visitor.host):
            return
        visitor.sock.setblocking(True)
        self._visitors.remove(visitor)
        try:
            self._let_in(visitor, caller)
            self._let_in_count += 1
            self._tunnels.pop(visitor, None)
        except NobodyServes:
            self._visitors.append(visitor)
        except (RuntimeError, OSError) as error:  # no more threads, no more descriptors
            LOGGER.error("an association cannot be served (%s)", error)
            self._close(visitor)

    def _time_is_over(self, visitor: Visitor) -> None:
        if visitor.is_leaving:
            self._close(visitor)
        elif visitor.caller is not None and not self._is_given_up(visitor):
            visitor.until = time.monotonic() + LOOK_S
        elif visitor.caller is not None:
            caller = visitor.caller
            self._on_refused(TurnedAway(LIMIT, visitor.host, caller.calling_ae, caller.called_ae))
            self._dismiss(visitor, rejection(*LIMIT_EXCEEDED))
        else:
            tunnel = self._tunnels.get(visitor)
            is_slow = visitor.data or (tunnel is not None and not tunnel.is_open)
            self._on_refused(TurnedAway(SLOW if is_slow else SILENT, visitor.host))
            self._dismiss(visitor, abortion(0))

    def _is_given_up(self, visitor: Visitor) -> bool:
        """Whether a caller for whom there is no place is told so: not while a process that serves is being started."""
        return self._places.is_served or time.monotonic() - visitor.arrived > WAIT_FOR_PROCESS_S

    def _dismiss(self, visitor: Visitor, last_word: bytes) -> None:
        """Say why, and give the peer a moment to close."""
        visitor.say(last_word)
        visitor.until = time.monotonic() + LEAVE_S
        if visitor.caller is not None:
            self._selector.register(visitor.sock, selectors.EVENT_READ, visitor)

    def _close(self, visitor: Visitor) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(visitor.sock)
        visitor.sock.close()
        self._tunnels.pop(visitor, None)
        if visitor in self._visitors:
            self._visitors.remove(visitor)
