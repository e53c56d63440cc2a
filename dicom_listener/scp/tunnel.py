"""A TLS connection on a thread of its own: the handshake, then bytes between the peer and a socket of ours.

What is behind that socket (the lobby, later an association, in this process or another one) reads and writes plain
bytes, and knows of TLS only what :attr:`Tunnel.fault` says. A peer that says nothing has no thread yet: one begins with
the first bytes.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from typing import Any, Final

from dicom_listener.peers.handshake_faults import fault_of
from dicom_listener.peers.refusals import CLIENT_NAME, TLS_FAILED
from dicom_listener.scp.transport import QUICK_ACK, SEND_S
from dicom_listener.scp.visitors import abortion
from firstread.tls.certificates import CertificateError
from firstread.tls.server import ServerTls, names_shown

LOGGER = logging.getLogger(__name__)
HANDSHAKE_S: Final = 10.0
LINGER_S: Final = 2.0
"""So long the peer may take to close, after all was sent."""
PIECE_BYTES: Final = 128 * 2**10


class HandshakeFailed(Exception):
    """The handshake came to no good end."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.fault = (reason, detail)


class Gone(Exception):
    """One of the two ends is there no more."""


class Tunnel:
    """Between a peer and a socket of ours.

    Parameters
    ----------
    outer : socket.socket
        To the peer; it is this object's from :meth:`start` on.
    first : bytes
        What was read from it.

    Attributes
    ----------
    ours : socket.socket
        The end for whoever serves the peer. Closed, it ends the tunnel.
    fault : (str, str) or None
        Code of the refusal and what more is known, where the handshake failed; ``ours`` ends then.
    is_open : bool
        Whether the handshake is done.

    Raises
    ------
    OSError
        Where there are no descriptors.
    """

    def __init__(self, outer: socket.socket, first: bytes, tls: ServerTls) -> None:
        self.ours, self._inner = socket.socketpair()
        self.fault: tuple[str, str] | None = None
        self.is_open = False
        self._outer = outer
        self._tls = tls
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._incoming.write(first)
        self._inward = memoryview(b"")
        self._outward = memoryview(b"")
        self._full_since: float | None = None
        self._has_outer_ended = False

    def start(self) -> None:
        """Begin. Raises RuntimeError where no thread can be started."""
        threading.Thread(target=self._run, name="tls", daemon=True).start()

    def close(self) -> None:
        """Close all of what was not started."""
        for sock in (self.ours, self._inner, self._outer):
            sock.close()

    def _run(self) -> None:
        try:
            for sock in (self._outer, self._inner):
                sock.setblocking(False)
            self._outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._handshake()
            self.is_open = True
            self._pass_on(tls)
            self._say_farewell(tls)
        except HandshakeFailed as failed:
            self.fault = failed.fault
            with contextlib.suppress(OSError):
                self._say_farewell(None)
        except (OSError, ValueError, Gone) as error:  # ssl.SSLError is an OSError
            LOGGER.debug("a TLS connection ended (%s)", error)
        except Exception:  # one peer's doing must not go unseen
            LOGGER.exception("a TLS connection broke its thread")
        finally:
            self._inner.close()
            self._outer.close()

    # The handshake

    def _handshake(self) -> ssl.SSLObject:
        """Raises HandshakeFailed, and Gone where nobody waits for it any more."""
        try:
            context = self._tls.context()
        except CertificateError as error:
            raise HandshakeFailed(TLS_FAILED, str(error)) from error
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        until = time.monotonic() + HANDSHAKE_S
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._collect()
                self._wait_in_handshake(until)
            except ssl.SSLError as error:
                self._collect()  # the alert
                raise HandshakeFailed(*fault_of(error)) from error
        self._collect()
        peer = tls.getpeercert()
        if not self._tls.lets_in(peer):
            tls.write(abortion(0))
            self._end(tls)
            raise HandshakeFailed(CLIENT_NAME, names_shown(peer))
        return tls

    def _wait_in_handshake(self, until: float) -> None:
        """Send what waits, and take in what comes."""
        poll = select.poll()
        poll.register(self._outer, select.POLLIN | (select.POLLOUT if self._outward else 0))
        poll.register(self._inner, select.POLLRDHUP)
        found = dict(poll.poll(max(0.0, until - time.monotonic()) * 1000))
        if not found or self._inner.fileno() in found:  # the lobby has no more patience
            raise Gone
        events = found[self._outer.fileno()]
        try:
            if events & select.POLLOUT:
                self._send()
            goes_on = not events & ~select.POLLOUT or self._take_in()
        except ConnectionError:
            goes_on = False
        if not goes_on:
            raise HandshakeFailed(TLS_FAILED, "it closed the connection during the handshake")

    # Afterwards

    def _pass_on(self, tls: ssl.SSLObject) -> None:
        """Pass on what comes, both ways, until our end is closed."""
        buffer = memoryview(bytearray(PIECE_BYTES))
        is_open = True
        while is_open:
            while not self._inward and not self._has_outer_ended and self._decrypt(tls, buffer):
                pass
            found = self._wait()
            if self._outer.fileno() in found:
                if found[self._outer.fileno()] & select.POLLOUT:
                    self._send()
                if found[self._outer.fileno()] & ~select.POLLOUT and not self._inward:
                    self._take_in()
            if self._inner.fileno() in found:
                is_open = self._serve_inner(tls, found[self._inner.fileno()])

    def _wait(self) -> dict[int, int]:
        """Wait for what can be gone on with. Raises Gone for a peer that takes nothing."""
        poll = select.poll()
        outer = (select.POLLOUT if self._outward else 0) | (
            select.POLLIN if not self._inward and not self._has_outer_ended else 0
        )
        if outer:
            poll.register(self._outer, outer)
        inner = (select.POLLOUT if self._inward else 0) | (0 if self._outward else select.POLLIN)
        if inner:
            poll.register(self._inner, inner)
        if QUICK_ACK is not None:
            with contextlib.suppress(OSError):
                self._outer.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        found = dict(poll.poll(None if self._full_since is None else SEND_S * 1000))
        if self._full_since is not None and time.monotonic() - self._full_since > SEND_S:
            raise Gone
        return found

    def _serve_inner(self, tls: ssl.SSLObject, events: int) -> bool:
        """Give our end what waits for it, and take what it has to say; False once it says no more."""
        if self._inward and events & select.POLLOUT:
            self._hand_on()
        if not self._outward and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            data = self._heard()
            if not data:
                return False
            tls.write(data)
            self._collect()
            self._send()
        return True

    def _heard(self) -> bytes:
        """What our end has said. One that was closed with bytes unread is an error once, and what it said is behind."""
        try:
            return self._inner.recv(PIECE_BYTES)
        except ConnectionResetError:
            return self._inner.recv(PIECE_BYTES)

    def _decrypt(self, tls: ssl.SSLObject, buffer: memoryview) -> bool:
        """Decrypt what has come, and hand it on as far as it is taken at once; whether more may be there."""
        size = 0
        try:
            while size < len(buffer):
                count: Any = tls.read(len(buffer) - size, buffer[size:])
                if not count:  # close_notify
                    self._has_outer_ended = True
                    break
                size += count
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._has_outer_ended = True
        self._collect()
        self._inward = buffer[:size]
        self._hand_on()
        return size == len(buffer)

    def _hand_on(self) -> None:
        """Give our end what it takes at once, and its end behind the last byte."""
        if self._inward:
            try:
                self._inward = self._inward[self._inner.send(self._inward) :]
            except BlockingIOError:
                pass
            except ConnectionError:  # nobody reads any more; the last word may wait to be passed on yet
                self._inward = memoryview(b"")
        if self._has_outer_ended and not self._inward:
            self._inner.shutdown(socket.SHUT_WR)

    def _take_in(self) -> bool:
        """Read from the peer; whether it goes on."""
        try:
            data = self._outer.recv(PIECE_BYTES)
        except BlockingIOError:
            return True
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    def _collect(self) -> None:
        """Take over what TLS has to say."""
        data = self._outgoing.read()
        if data:
            self._outward = memoryview(bytes(self._outward) + data)

    def _send(self) -> None:
        """Send to the peer what it takes at once."""
        try:
            while self._outward:
                self._outward = self._outward[self._outer.send(self._outward) :]
        except BlockingIOError:
            self._full_since = self._full_since or time.monotonic()
        else:
            self._full_since = None

    def _end(self, tls: ssl.SSLObject) -> None:
        """Tell the peer that nothing more comes; what it says to that is for nobody."""
        with contextlib.suppress(ssl.SSLError):
            tls.unwrap()
        self._collect()

    def _say_farewell(self, tls: ssl.SSLObject | None) -> None:
        """Send what is left, and close without taking our last word from the peer: not before it has closed."""
        if tls is not None:
            self._end(tls)
        self._inner.close()
        self._outer.settimeout(LINGER_S)
        self._outer.sendall(self._outward)
        self._outer.shutdown(socket.SHUT_WR)
        until = time.monotonic() + LINGER_S
        while time.monotonic() < until and self._outer.recv(PIECE_BYTES):
            pass
