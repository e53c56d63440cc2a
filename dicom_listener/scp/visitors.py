"""Connections that have not asked for an association yet: what they have sent, and what their A-ASSOCIATE-RQ says."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_listener.peers.limits import (
    INVALID_PARAMETER,
    REQUEST_BYTES,
    REQUEST_ITEMS,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    Fault,
)
from dicom_listener.peers.names import clean
from dicom_listener.peers.proxies import BadProxyHeader, Proxies, header_length, source_of
from dicom_listener.peers.refusals import BAD_REQUEST, NOT_DICOM, NOT_TLS, TLS

if TYPE_CHECKING:
    from firstread.tls.server import ServerTls

LEAST_REQUEST_BYTES: Final = 68
"""Fixed fields of an A-ASSOCIATE-RQ (PS3.8 table 9-11)."""
HEADER_BYTES: Final = 6
READ_BYTES: Final = 64 * 2**10
ASSOCIATE_RQ: Final = 1
TLS_HANDSHAKE: Final = b"\x16\x03"
"""First bytes of a record with a ClientHello (RFC 8446 section 5.1)."""
LIMIT_EXCEEDED, NO_SUCH_VERSION = (2, 3, 2), (1, 2, 2)
"""Result, source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


@dataclass(frozen=True)
class Caller:
    """Who asks for an association, as the A-ASSOCIATE-RQ says it."""

    calling_ae: str
    called_ae: str
    version: int


@dataclass(eq=False)
class Visitor:
    """A connection.

    Attributes
    ----------
    peer : tuple
        Address of the other end.
    host : str
        Who is there: the address, or whom a balancer of ours named.
    until : float
        Monotonic time at which patience ends.
    caller : Caller or None
        Set once the A-ASSOCIATE-RQ is complete and sound.
    is_leaving : bool
        Whether it has had its answer and is to close.
    tls : ServerTls or None
        What a TLS handshake is done with, which comes before all but the header of a balancer.
    """

    sock: socket.socket
    peer: tuple[str, int]
    host: str
    until: float
    behind_proxy: bool = False
    tls: ServerTls | None = None
    data: bytearray = field(default_factory=bytearray)
    caller: Caller | None = None
    is_leaving: bool = False
    arrived: float = field(default_factory=time.monotonic)
    _wanted: int = HEADER_BYTES

    @property
    def says_hello(self) -> bool:
        """Whether the beginning of a TLS handshake is there."""
        return self.tls is not None and not self.behind_proxy and len(self.data) == HEADER_BYTES

    def come_in(self, sock: socket.socket) -> None:
        """Go on within TLS, on another socket."""
        sock.setblocking(False)
        self.sock, self.tls = sock, None
        self.data.clear()

    def read(self, proxies: Proxies) -> bool:
        """Take in what has come, and no byte behind the A-ASSOCIATE-RQ; whether the connection goes on.

        Raises
        ------
        Fault
            For what is no A-ASSOCIATE-RQ.
        OSError
            Where the connection is lost.
        """
        while True:
            try:
                came = self.sock.recv(min(READ_BYTES, self._wanted - len(self.data)))
            except BlockingIOError:
                return True
            if not came:
                return False
            self.data += came
            if len(self.data) == self._wanted and self._is_complete(proxies):
                return True

    def _is_complete(self, proxies: Proxies) -> bool:
        if self.behind_proxy:
            self._read_proxy_header(proxies)
            if self.behind_proxy or not self.data:
                return False
        if self.tls is not None:
            if self.data[:2] != TLS_HANDSHAKE:
                raise Fault(NOT_TLS, UNRECOGNIZED_PDU)
            return True
        if len(self.data) == HEADER_BYTES:
            self._wanted = HEADER_BYTES + request_length(self.data)
            return False
        self.caller = caller_of(bytes(self.data))
        return True

    def _read_proxy_header(self, proxies: Proxies) -> None:
        try:
            length = header_length(self.data)
            if length is not None and length > len(self.data):
                self._wanted = length
                return
            if length is not None:
                self.host = source_of(self.data) or self.host
                self.data.clear()
                self._wanted = HEADER_BYTES
            self.behind_proxy = False
        except BadProxyHeader as error:
            raise Fault(BAD_REQUEST, UNRECOGNIZED_PDU) from error

    def drain(self) -> bool:
        """Read and drop; whether the connection goes on."""
        try:
            return bool(self.sock.recv(READ_BYTES))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def say(self, data: bytes) -> None:
        """Send the last word, as far as it can be sent at once, and nothing more."""
        try:
            self.sock.send(data)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.is_leaving = True


def request_length(head: bytes | bytearray) -> int:
    """Length that the header of an A-ASSOCIATE-RQ announces. Raises :class:`Fault` for any other header."""
    length = int.from_bytes(head[2:6], "big")
    if head[0] == ASSOCIATE_RQ and LEAST_REQUEST_BYTES <= length <= REQUEST_BYTES:
        return length
    if 1 <= head[0] <= 7:
        raise Fault(BAD_REQUEST, INVALID_PARAMETER if head[0] == ASSOCIATE_RQ else UNEXPECTED_PDU)
    raise Fault(TLS if head[:2] == TLS_HANDSHAKE else NOT_DICOM, UNRECOGNIZED_PDU)


def caller_of(data: bytes) -> Caller:
    """Read an A-ASSOCIATE-RQ as pynetdicom does. Raises :class:`Fault` for one that would break it."""
    try:
        _check_items(data)
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(data)
        request = pdu.to_primitive()
        if not request.presentation_context_definition_list:
            raise Fault(BAD_REQUEST, INVALID_PARAMETER)
        calling, called = clean(request.calling_ae_title), clean(request.called_ae_title)
        return Caller(calling or "", called or "", pdu.protocol_version)
    except Fault:
        raise
    except Exception as error:  # whatever the library raises on bytes of a stranger's
        raise Fault(BAD_REQUEST, INVALID_PARAMETER) from error


def _check_items(data: bytes) -> None:
    """Count items and sub-items before anything is built of them (PS3.8 section 9.3.2)."""
    count, at = 0, HEADER_BYTES + LEAST_REQUEST_BYTES
    while at < len(data):
        kind, length = data[at], struct.unpack_from(">H", data, at + 2)[0]
        inner, end = at + (8 if kind == 0x20 else 4), at + 4 + length
        while kind in (0x20, 0x50) and inner < min(end, len(data)):
            inner += 4 + int(struct.unpack_from(">H", data, inner + 2)[0])
            count += 1
        at = end
        count += 1
        if count > REQUEST_ITEMS:
            raise Fault(BAD_REQUEST, INVALID_PARAMETER)


def rejection(result: int, source: int, diagnostic: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, diagnostic])


def abortion(diagnostic: int) -> bytes:
    """An A-ABORT of the service provider (PS3.8 section 9.3.8)."""
    return bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, diagnostic])
