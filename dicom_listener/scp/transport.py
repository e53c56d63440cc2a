"""The socket of an association: read in large pieces, with deadlines, and woken when there is something to send."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import Any, Final

from pynetdicom.transport import AssociationSocket

from dicom_listener.peers.limits import BAD_PDU, PDU_BYTES, SHORT_PDU_BYTES, UNRECOGNIZED_PDU, Fault, Limits, Pace

BUFFER_BYTES: Final = 256 * 2**10
P_DATA_TF: Final = 0x04
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux: acknowledge at once. A sender with Nagle's algorithm on holds the data set back until its command is
acknowledged, which a delayed acknowledgement turns into 40 ms an image."""
WAIT_S = 0.25
"""Longest wait without a look at timers and at whether to end."""
SEND_S: Final = 10
"""A peer that takes no answer for so long is gone."""
_NOW: Final = socket.MSG_DONTWAIT


class Closed(OSError):
    """The peer has closed the connection."""


class Interrupted(Exception):
    """We end the association while the peer is waited for."""


class ListenerSocket(AssociationSocket):
    """Reads what the peer sends into one buffer, and hands it out in pieces of it.

    Parameters
    ----------
    client_socket : socket.socket
        Connected, blocking.
    bell : socket.socket
        Readable when there is something to send, or something else to look at.
    first : bytes
        What was read from the connection before.

    Attributes
    ----------
    waiting_since : float or None
        Monotonic time since which the peer is waited for; None while it sends.
    cut_for : str or None
        Reason for which the association is to be ended from outside of its threads.
    is_ending : bool
        Whether we want to abort.
    """

    def __init__(
        self, assoc: Any, client_socket: socket.socket, bell: socket.socket, limits: Limits, first: bytes
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        if client_socket.family != socket.AF_UNIX:  # the end of a TLS tunnel
            client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_S, 0))
        self.bell = bell
        self.pace = Pace(limits)
        self.waiting_since: float | None = None
        self.cut_for: str | None = None
        self.is_ending = False
        self._buffer = memoryview(bytearray(max(BUFFER_BYTES, len(first))))
        self._buffer[: len(first)] = first
        self._start, self._end = 0, len(first)
        self._has_begun = self._is_in_body = False

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits for it, or for a message to send, up to ``WAIT_S``.

        Raises
        ------
        Fault
            For a peer that is too slow.
        """
        if self._end > self._start:
            return True
        if self.socket is None or self._is_connected is False:
            return False
        try:
            return self._wait_for_peer()
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed (PS3.8 table 9-10)
            return False

    def _wait(self) -> bool:
        """Wait for the peer or the bell, whose ring is taken off."""
        sock, bell = self.socket, self.bell
        if sock is None:
            raise Closed
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        poll.register(bell.fileno(), select.POLLIN)
        if QUICK_ACK is not None:
            with contextlib.suppress(OSError):  # the peer may be gone already
                sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        found = {fd for fd, _ in poll.poll(WAIT_S * 1000)}
        if bell.fileno() in found:
            found.discard(bell.fileno())
            bell.recv(4096)
        return bool(found)

    def _more(self) -> None:
        """Take in what has come, at least a byte.

        Raises
        ------
        Closed
            Where nothing more will come.
        Interrupted
            Where we want to abort.
        Fault
            For a peer that is too slow, or one that is to go.
        """
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            kept = self._end - self._start
            self._buffer[:kept] = self._buffer[self._start : self._end]
            self._start, self._end = 0, kept
        while True:
            if self.cut_for is not None:
                raise Fault(self.cut_for)
            if self.is_ending:
                raise Interrupted
            sock = self.socket
            if sock is None:
                raise Closed
            try:
                count = sock.recv_into(self._buffer[self._end :], 0, _NOW)
            except BlockingIOError:
                self._wait_for_peer()
                continue
            if not count:
                raise Closed
            self._end += count
            self.waiting_since = None
            self.pace.came(count)
            return

    def _wait_for_peer(self) -> bool:
        began = time.monotonic()
        if self.waiting_since is None:
            self.waiting_since = began
        try:
            is_there = self._wait()
        except ValueError:
            raise Closed from None
        self.pace.waited(time.monotonic() - began)
        return is_there

    @property
    def has_more(self) -> bool:
        """Whether bytes wait in the buffer."""
        return self._end > self._start

    @property
    def is_inside_pdu(self) -> bool:
        """Whether a PDU has begun and is not complete."""
        return self._has_begun

    def peek(self, count: int) -> memoryview:
        """The next few bytes, waited for, and left where they are. Raises as :meth:`piece` does."""
        while True:
            if self._end > self._start and not self._has_begun:
                self._has_begun = True
                self.pace.begin_pdu()
            if self._end - self._start >= count:
                break
            self._more()
        return self._buffer[self._start : self._start + count]

    def skip(self, count: int) -> None:
        """Leave bytes behind that were looked at."""
        self._start += count

    def piece(self, most: int) -> memoryview:
        """The next bytes, at least one, valid until the next call.

        Raises
        ------
        Closed, Interrupted, Fault
            Where no byte comes.
        """
        if self._start == self._end:
            self._more()
        view = self._buffer[self._start : min(self._end, self._start + most)]
        self._start += len(view)
        return view

    def end_pdu(self) -> None:
        """A PDU was read to its end."""
        self._has_begun = self._is_in_body = False
        self.pace.end_pdu()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a PDU as pynetdicom does: six bytes of header, then the rest; less where the peer has gone.

        Memory grows with the bytes that come, whatever the header says.

        Raises
        ------
        Fault
            For a PDU that is longer than any of its kind may be, or too slow.
        """
        is_header, data = not self._is_in_body, bytearray()
        try:
            if is_header:
                check_length(bytes(self.peek(nr_bytes)))
            while len(data) < nr_bytes:
                data += self.piece(nr_bytes - len(data))
        except Closed:
            return data
        self._is_in_body = is_header and int.from_bytes(data[2:6], "big") > 0
        if not self._is_in_body:
            self.end_pdu()
        return data

    def drain(self) -> bool:
        """Read and drop what still comes; False at its end, and where the peer keeps quiet."""
        self._start = self._end = 0
        if self.socket is None:
            return False
        try:
            poll = select.poll()
            poll.register(self.socket.fileno(), select.POLLIN)
            return bool(poll.poll(WAIT_S * 1000)) and self.socket.recv_into(self._buffer, 0, _NOW) > 0
        except BlockingIOError:
            return True
        except (OSError, ValueError):
            return False

    def shut(self) -> None:
        """Close the connection, whatever state it is in."""
        if self.socket is not None:
            self._shutdown_socket()

    def send(self, bytestream: bytes) -> None:
        """Send, as pynetdicom does; a connection that is closed already is no error."""
        if self.socket is not None:
            super().send(bytestream)


def check_length(head: bytes | memoryview) -> None:
    """Raise :class:`Fault` for a PDU header (PS3.8 section 9.3.1) that no PDU of an association begins with."""
    kind, length = head[0], int.from_bytes(head[2:6], "big")
    if not 1 <= kind <= 7:
        raise Fault(BAD_PDU, UNRECOGNIZED_PDU)
    if kind != 1 and length > (PDU_BYTES if kind == P_DATA_TF else SHORT_PDU_BYTES):
        raise Fault(BAD_PDU)
