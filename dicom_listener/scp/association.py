"""pynetdicom's association, made to wait for events instead of polling, with fragments that go straight to the disk.

As it comes, pynetdicom sleeps a millisecond in each of two loops an association, reads 4,096 bytes at a time, copies a
data set several times and holds it whole. The protocol machine itself is left as it is: establishment, release and
abort are its own. P-DATA-TF PDUs are read here while an association is established, in the reactor's thread, which
stores what they bring and answers it. Where pynetdicom has another version than those that this was tried with, it
decodes these PDUs too, and only their fragments are taken from it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import pynetdicom
from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_ABORT, P_DATA

from dicom_listener.peers.limits import BAD_PDU, SLOW, UNEXPECTED_PARAMETER, UNEXPECTED_PDU, Fault, Limits
from dicom_listener.scp import transport
from dicom_listener.scp.messages import Messages, Object, Request, response_pdu
from dicom_listener.scp.transport import P_DATA_TF, Closed, Interrupted, ListenerSocket, check_length
from firstread import effects

LOGGER = logging.getLogger(__name__)
TRIED_VERSIONS: Final = ("3.0.",)
CLOSE_S: Final = 2.0
"""Longest wait for a peer to close, after the last word was said."""
END_S: Final = 30.0


def reads_fragments(version: str = pynetdicom.__version__) -> bool:
    """Whether P-DATA-TF PDUs are read here: the reactor was seen to work with it in this version of pynetdicom."""
    return version.startswith(TRIED_VERSIONS)


class _Woken(queue.Queue[Any]):
    """A queue that calls ``wake`` with whatever is put into it."""

    def __init__(self, wake: Callable[[Any], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._wake(item)


class ListenerDul(DULServiceProvider):
    """The upper layer's reactor, woken by what the user wants to send.

    Attributes
    ----------
    is_busy : bool
        Whether it stores something, and nobody waits for the peer.
    """

    socket: ListenerSocket | None
    assoc: ListenerAssociation

    def __init__(self, assoc: ListenerAssociation) -> None:
        super().__init__(assoc)
        self.daemon = True
        self.bell, self._rope = socket.socketpair()
        self.bell.setblocking(False)
        self._rope.setblocking(False)
        self.to_provider_queue = _Woken(self._on_put)
        self.messages = Messages(assoc)
        self.is_busy = False
        self.reads_fragments = reads_fragments()
        self.abort_reason: int | None = None

    def _on_put(self, item: Any) -> None:
        if isinstance(item, A_ABORT) and self.socket is not None:
            self.socket.is_ending = True
        self.ring()

    def ring(self) -> None:
        """Let the reactor look around."""
        with contextlib.suppress(OSError):  # full: it rings already; closed: it has ended
            self._rope.send(b"!")

    def kill_dul(self) -> None:
        """End the reactor, at once."""
        super().kill_dul()
        self.ring()

    def run_reactor(self) -> None:
        """Run until the connection is closed; what breaks the library ends this association and nothing else."""
        try:
            super().run_reactor()
        except Exception as error:
            LOGGER.debug("the upper layer gave up (%s)", type(error).__name__, exc_info=True)
            self.assoc.note_fault(BAD_PDU)
        finally:
            self.messages.close()
            self._close()
            # The association's thread may wait for what will not come; pynetdicom takes None for a time-out.
            self.to_user_queue.put(None)  # type: ignore[arg-type]

    def _close(self) -> None:
        if self.socket is not None:
            self.socket.shut()
        self.bell.close()
        self._rope.close()

    def fail(self, fault: Fault) -> None:
        """End the association with an A-ABORT that says why."""
        self.assoc.note_fault(fault.reason)
        self.abort_reason = fault.diagnostic
        self.event_queue.put("Evt19")  # an invalid PDU (PS3.8 table 9-10): AA-1, AA-8
        self.ring()

    def _send(self, pdu: Any) -> None:
        if isinstance(pdu, A_ABORT_RQ):
            if self.abort_reason is not None:
                pdu.source, pdu.reason_diagnostic = 2, self.abort_reason
            elif pdu.source == 2:  # a PDU that is sound, at a time when none of its kind may come
                pdu.reason_diagnostic = UNEXPECTED_PDU
                self.assoc.note_fault(BAD_PDU)
        super()._send(pdu)

    def _is_transport_event(self) -> bool:
        """As pynetdicom does, and then what was woken for: a message to send goes out in the same turn.

        An event that waits is served before the socket is waited for: the connection's own event waits beside that of
        the first PDU, and the peer sends nothing more until it has its answer. After the last word, what the peer still
        sends is dropped unread.
        """
        sock = self.socket
        if not self.event_queue.empty() or sock is None:
            return False
        if self.state_machine.current_state == "Sta13":
            self.artim_timer.timeout = CLOSE_S
            if not sock.drain():
                sock.close()
            return True
        if sock.cut_for is not None:
            reason, sock.cut_for = sock.cut_for, None
            self.fail(Fault(reason))
            return False
        try:
            return super()._is_transport_event() or self._process_recv_primitive()
        except Fault as fault:
            self.fail(fault)
            return False

    def _read_pdu_data(self) -> None:
        """Read what has come: fragments here, while there are any, and every other PDU as pynetdicom does."""
        sock = self.socket
        assert sock is not None
        try:
            if self.reads_fragments and self.state_machine.current_state == "Sta6":
                self._read_fragments(sock)
            else:
                super()._read_pdu_data()
        except Interrupted:
            return
        except Closed:
            self.event_queue.put("Evt17")
        except Fault as fault:
            self.fail(fault)

    def _read_fragments(self, sock: ListenerSocket) -> None:
        """Read P-DATA-TF PDUs (PS3.8 section 9.3.5) until something else is to be done.

        Raises
        ------
        Closed, Interrupted, Fault
            From the socket, or for what no peer may send.
        """
        while True:
            head = sock.peek(6)
            if head[0] != P_DATA_TF:
                super()._read_pdu_data()
                return
            check_length(head)
            left = int.from_bytes(head[2:6], "big")
            sock.skip(6)
            while left:
                left -= self._read_item(sock, left)
            sock.end_pdu()
            self._idle_timer.restart()
            if self._kill_thread or not self.event_queue.empty() or not self.to_provider_queue.empty():
                return
            if not sock.has_more and not sock.ready:
                return

    def _read_item(self, sock: ListenerSocket, left: int) -> int:
        """Read a presentation data value item; returns its length with that of its header."""
        if left < 6:
            raise Fault(BAD_PDU)
        head = sock.peek(6)
        length, context_id, control = int.from_bytes(head[:4], "big"), head[4], head[5]
        if not 2 <= length <= left - 4:
            raise Fault(BAD_PDU)
        sock.skip(6)
        size = length - 2
        if not size:
            self.take(context_id, control, memoryview(b""), is_end=True)
        while size:
            piece = sock.piece(size)
            size -= len(piece)
            self.take(context_id, control, piece, is_end=not size)
        return length + 4

    def take(self, context_id: int, control: int, data: memoryview, is_end: bool) -> None:
        """Hand a fragment, or a part of one, to the message it belongs to. Raises :class:`Fault`."""
        self.is_busy = True
        try:
            self.messages.fragment(context_id, control, data, is_end)
        finally:
            self.is_busy = False


class ListenerDimse(DIMSEServiceProvider):
    """Takes fragments from pynetdicom's decoder, where it reads the PDUs."""

    assoc: ListenerAssociation

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the next fragments of a message."""
        dul = self.assoc.dul
        try:
            for context_id, data in primitive.presentation_data_value_list:
                dul.take(context_id, data[0], memoryview(data)[1:], is_end=True)
        except Fault as fault:
            dul.fail(fault)


class ListenerAssociation(Association):
    """An association that takes every C-STORE and C-ECHO, and reports its own end.

    Parameters
    ----------
    first : bytes
        The A-ASSOCIATE-RQ, which was read and looked at before.

    Attributes
    ----------
    on_object : callable
        Gives the place for an object: association, request and transfer syntax UID in.
    on_end : callable
        Called once with the association, from its own thread, after all that it delivered was handed on.
    fault : str or None
        Why we ended it.
    """

    on_object: Callable[[Association, Request, str], Object]
    on_end: Callable[[Association], None]
    dul: ListenerDul
    dimse: ListenerDimse

    def __init__(self, ae: Any, client_socket: socket.socket, limits: Limits, first: bytes) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.fault: str | None = None
        self.had_message = False
        self._made_s = time.monotonic()
        self.dimse = ListenerDimse(self)
        self.dul = ListenerDul(self)
        self.network_timeout = ae.network_timeout
        self.acse_timeout = ae.acse_timeout
        self.dul.to_user_queue = _Woken(self._wake)
        self.set_socket(ListenerSocket(self, client_socket, self.dul.bell, limits, first))

    @property
    def stalled_s(self) -> float:
        """Seconds for which the peer has left a message unfinished, or asked for nothing; 0 while it goes on."""
        sock, now = self.dul.socket, time.monotonic()
        if sock is None or self.dul.is_busy:
            return 0.0
        if not self.had_message and not self.dul.messages.is_inside:
            return now - self._made_s
        is_inside = self.dul.messages.is_inside or sock.is_inside_pdu
        return now - sock.waiting_since if is_inside and sock.waiting_since is not None else 0.0

    def cut(self, reason: str) -> None:
        """End it from another thread."""
        sock = self.dul.socket
        if sock is not None:
            sock.cut_for = reason
            self.dul.ring()

    def note_fault(self, reason: str) -> None:
        """Remember why it ends; the first reason stays."""
        self.fault = self.fault or reason

    def _wake(self, _item: Any) -> None:
        """Let :meth:`_run_reactor` look for a release or an abort."""
        self.dimse.msg_queue.put((None, None))

    def run_reactor(self) -> None:
        """Serve until released, aborted or lost, then report."""
        try:
            super().run_reactor()
        except Exception as error:
            LOGGER.debug("an association broke the library (%s)", type(error).__name__, exc_info=True)
            self.dul.fail(Fault(BAD_PDU, UNEXPECTED_PARAMETER))
            self.dul.join(CLOSE_S)
        finally:
            if self.dul.is_alive():  # something broke this thread: the other must not outlive it
                self.dul.kill_dul()
                self.dul.join(END_S)
            self.on_end(self)

    def _run_reactor(self) -> None:
        """The acceptor's loop of pynetdicom, waiting for events instead of looking for them every millisecond."""
        self._is_paused = False
        while not self._kill:
            with contextlib.suppress(queue.Empty):
                self.dimse.msg_queue.get(timeout=transport.WAIT_S)
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
            elif self.dul.idle_timer_expired() and not self._is_at_work():
                if self.dul.messages.is_inside:
                    self.note_fault(SLOW)
                self.abort()
                self.kill()

    def _is_at_work(self) -> bool:
        """Whether something is being stored, or a PDU comes: that has a time of its own."""
        sock = self.dul.socket
        return self.dul.is_busy or (sock is not None and sock.is_inside_pdu)

    def begin_object(self, request: Request) -> Object:
        """Where the data set of a C-STORE goes, under any storage-like context. Raises :class:`Fault`."""
        self.had_message = True
        context = self._accepted_cx.get(request.context_id)
        if context is None or self._sent_release:
            raise Fault(BAD_PDU, UNEXPECTED_PDU)
        return self.on_object(self, request, str(context.transfer_syntax[0]))

    def begin_data(self) -> None:
        """A data set begins."""
        if self.dul.socket is not None:
            self.dul.socket.pace.begin_data()

    def end_data(self) -> None:
        """A data set is complete."""
        if self.dul.socket is not None:
            self.dul.socket.pace.end_data()

    def respond(self, request: Request, status: int, comment: str = "") -> None:
        """Answer a request, from the reactor's thread."""
        self.had_message = True
        self.dul._idle_timer.restart()
        sock = self.dul.socket
        if request.context_id not in self._accepted_cx:
            raise Fault(BAD_PDU, UNEXPECTED_PDU)
        if sock is not None:
            with effects.SCP_ANSWER:
                sock.send(response_pdu(request, status, comment))
