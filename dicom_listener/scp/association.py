"""pynetdicom's association, made to wait for events instead of polling, and to read from the socket in large pieces.

As it comes, pynetdicom sleeps a millisecond in each of two loops an association and reads 4,096 bytes at a time; both
cost more than storing an image does. The protocol machine itself is left as it is.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

NO_DATA_SET = 0x0101
LAST_COMMAND = b"\x03"
"""Message control header: command, last fragment (PS3.8 annex E.2)."""
PDU_LIMIT_BYTES = 64 * 2**20
PATIENCE = 4
"""Times the size limit that a data set may take before its sender is cut off."""
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux: acknowledge at once. A sender with Nagle's algorithm on holds the data set back until its command is
acknowledged, which a delayed acknowledgement turns into 40 ms an image."""
WAIT_S = 0.25
"""Longest wait without a look at timers and at whether to end."""


def store_response(request: C_STORE, status: int, comment: str = "") -> bytes:
    """Command set of a C-STORE-RSP (PS3.7 section 9.3.1.2), implicit VR little endian.

    Parameters
    ----------
    comment : str
        Error Comment (0000,0902), at most 64 characters.
    """
    us, lo = struct.Struct("<HHIH").pack, comment.encode("ascii", "replace")[:64]
    elements = [
        _text(0x0002, str(request.AffectedSOPClassUID or "").encode("ascii", "replace"), b"\0"),
        us(0, 0x0100, 2, 0x8001),
        us(0, 0x0120, 2, request.MessageID or 0),
        us(0, 0x0800, 2, NO_DATA_SET),
        us(0, 0x0900, 2, status),
        _text(0x0902, lo, b" "),
        _text(0x1000, str(request.AffectedSOPInstanceUID or "").encode("ascii", "replace"), b"\0"),
    ]
    group = b"".join(elements)
    return struct.pack("<HHII", 0, 0, 4, len(group)) + group


def _text(element: int, value: bytes, padding: bytes) -> bytes:
    if not value:
        return b""
    value += padding * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


class _Woken(queue.Queue[Any]):
    """A queue that calls ``wake`` whenever something is put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._wake()


class ListenerSocket(AssociationSocket):
    """A socket whose ``ready`` waits until there is something to read or to send.

    Attributes
    ----------
    bell : socket.socket
        Readable when there is something to send; :attr:`ListenerDul.bell`.
    """

    bell: socket.socket
    first_bytes: bytes = b""
    """What the peer sent first, a few bytes of it."""

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits for it, or for a message to send, up to ``WAIT_S``."""
        if self.socket is None or self._is_connected is False:
            return False
        bell = self.bell
        try:
            poll = select.poll()
            poll.register(self.socket.fileno(), select.POLLIN)
            poll.register(bell.fileno(), select.POLLIN)
            readable = {fd for fd, _ in poll.poll(WAIT_S * 1000)}
            if bell.fileno() in readable:
                bell.recv(4096)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed (PS3.8 table 9-10)
            return False
        return bool(readable - {bell.fileno()})

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``; less only where the peer has closed the connection.

        Raises
        ------
        OSError
            For a PDU far beyond the length that was agreed: it would only fill the memory.
        """
        assert self.socket is not None
        if nr_bytes > PDU_LIMIT_BYTES:
            raise OSError("PDU too long")
        data = bytearray(nr_bytes)
        view, got = memoryview(data), 0
        while got < nr_bytes:
            count = self.socket.recv_into(view[got:])
            if not count:
                view.release()
                del data[got:]
                break
            got += count
        if not self.first_bytes:
            self.first_bytes = bytes(data[:6])
        if QUICK_ACK is not None:
            with contextlib.suppress(OSError):  # the peer may be gone already
                self.socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        return data


class ListenerDul(DULServiceProvider):
    """The upper layer's reactor, woken by what the user wants to send."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.daemon = True
        self.bell, self._rope = socket.socketpair()
        self.bell.setblocking(False)
        self._rope.setblocking(False)
        self.to_provider_queue = _Woken(self._on_put)

    def _on_put(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it rings already
            self._rope.send(b"!")

    def kill_dul(self) -> None:
        """End the reactor, at once."""
        super().kill_dul()
        self._on_put()

    def _is_transport_event(self) -> bool:
        """As pynetdicom does, and then what was woken for: a message to send goes out in the same turn.

        An event that waits is served before the socket is waited for: the connection's own event waits beside that of
        the first PDU, and the peer sends nothing more until it has its answer.
        """
        if not self.event_queue.empty():
            return False
        return super()._is_transport_event() or self._process_recv_primitive()


class ListenerDimse(DIMSEServiceProvider):
    """Puts messages together, and keeps nothing of a data set beyond the limit.

    The rest of a data set that is too large is read and dropped, so that its sender gets a status and can go on with
    the next object. One that goes on to :data:`PATIENCE` times the limit ends the association.

    Attributes
    ----------
    limit_bytes : int or None
        Largest data set.
    oversized : set of int
        Message IDs of the requests whose data set was dropped.
    """

    limit_bytes: int | None = None

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.oversized: set[int] = set()
        self._dropped_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the next fragments of a message."""
        super().receive_primitive(primitive)
        message, limit = self.message, self.limit_bytes
        if message is None:  # complete, and on its way
            self._dropped_bytes = 0
            return
        if limit is None or message.data_set is None:
            return
        held = message.data_set.tell()
        if held + self._dropped_bytes <= limit:
            return
        message.data_set.seek(0)
        message.data_set.truncate()
        self._dropped_bytes += held
        number = getattr(message.command_set, "MessageID", None)
        if number is not None and self._dropped_bytes <= PATIENCE * limit:
            self.oversized.add(number)
            return
        assoc = self.assoc
        assert isinstance(assoc, ListenerAssociation)
        assoc.on_too_large(assoc)
        self.dul.event_queue.put("Evt19")  # ends in an A-ABORT (PS3.8 table 9-10, AA-8)


class ListenerAssociation(Association):
    """An association that takes every C-STORE and reports its own end.

    Attributes
    ----------
    on_too_large : callable
        Refuses an object beyond the limit: association in, status and error comment out.
    on_store : callable
        Stores one object: association, request and transfer syntax UID in, status and error comment out.
    on_end : callable
        Called once with the association, from its own thread, after all that it delivered was handed on.
    """

    on_store: Callable[[Association, C_STORE, str], tuple[int, str]]
    on_too_large: Callable[[Association], tuple[int, str]]
    on_end: Callable[[Association], None]
    dul: ListenerDul
    dimse: ListenerDimse

    def __init__(self, ae: Any, mode: str) -> None:
        super().__init__(ae, mode)
        self.dimse = ListenerDimse(self)
        self.dul = ListenerDul(self)
        self.network_timeout = ae.network_timeout
        self.acse_timeout = ae.acse_timeout
        self.dul.to_user_queue = _Woken(self._wake)
        self._made_s = time.monotonic()

    @property
    def timed_out(self) -> bool:
        """Whether the time for an A-ASSOCIATE-RQ is over."""
        return self.acse_timeout is not None and time.monotonic() - self._made_s >= self.acse_timeout

    @property
    def first_bytes(self) -> bytes:
        """What the peer sent first; nothing where it sent nothing."""
        sock = self.dul.socket
        return sock.first_bytes if isinstance(sock, ListenerSocket) else b""

    def _wake(self) -> None:
        """Let :meth:`_run_reactor` look for a release or an abort."""
        self.dimse.msg_queue.put((None, None))

    def run_reactor(self) -> None:
        """Serve until released, aborted or lost, then report."""
        try:
            super().run_reactor()
        finally:
            if self.dul.is_alive():  # something broke this thread: the other must not outlive it
                self.dul.kill_dul()
            self.on_end(self)

    def _run_reactor(self) -> None:
        """The acceptor's loop of pynetdicom, waiting for messages instead of looking for them every millisecond."""
        self._is_paused = False
        while not self._kill:
            try:
                context_id, msg = self.dimse.msg_queue.get(timeout=WAIT_S)
            except queue.Empty:
                context_id, msg = None, None
            if msg is not None and context_id is not None:
                self._serve_request(msg, context_id)
                continue
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                evt.trigger(self, evt.EVT_RELEASED, {})
                self.kill()
            elif self.acse.is_aborted():
                self.dul.receive_pdu(wait=False)
                self.is_aborted = True
                self.is_established = False
                evt.trigger(self, evt.EVT_ABORTED, {})
                self.kill()
            elif not self.dul.is_alive():
                self.kill()
            elif self.dul.idle_timer_expired():
                self.abort()
                self.kill()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Answer a C-STORE under any storage-like context, an incomplete one too; leave the rest to pynetdicom."""
        context = self._accepted_cx.get(context_id)
        if not isinstance(msg, C_STORE) or msg.MessageID is None or context is None or self._sent_release:
            super()._serve_request(msg, context_id)
            return
        if msg.MessageID in self.dimse.oversized:
            self.dimse.oversized.discard(msg.MessageID)
            status, comment = self.on_too_large(self)
        else:
            status, comment = self.on_store(self, msg, str(context.transfer_syntax[0]))
        if self.is_established:
            response = P_DATA()
            message = LAST_COMMAND + store_response(msg, status, comment)
            response.presentation_data_value_list.append((context_id, message))
            self.dul.send_pdu(response)

    def give_up(self) -> None:
        """End the wait for an A-ASSOCIATE-RQ that will not come: the connection is closed, or the listener stops."""
        if self.requestor.primitive is None:
            # What the association's thread waits for; pynetdicom itself takes None for a time-out.
            self.dul.to_user_queue.put(None)  # type: ignore[arg-type]
