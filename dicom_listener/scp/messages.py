"""DIMSE messages out of fragments (PS3.8 annex E): commands are put together, data sets pass through as they come."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Protocol

from dicom_listener.intake.reception import Endless
from dicom_listener.peers.limits import (
    BAD_PDU,
    COMMAND_BYTES,
    COMMAND_TOO_LONG,
    INVALID_PARAMETER,
    TOO_LARGE,
    UNEXPECTED_PARAMETER,
    Fault,
)
from firstread.dicom.uids import UID_LIMIT

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, IS_RESPONSE = 0x0001, 0x0030, 0x0FFF, 0x8000
NO_DATA_SET = 0x0101
IS_COMMAND, IS_LAST = 1, 2
"""Bits of the message control header (PS3.8 annex E.2)."""
LAST_COMMAND: Final = bytes([IS_COMMAND | IS_LAST])


@dataclass(frozen=True)
class Request:
    """A command set, as far as it is looked at. UIDs stand as they came."""

    context_id: int
    command_field: int
    message_id: int
    has_data_set: bool
    priority: int | None = None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


class Object(Protocol):
    """Where a data set goes; :class:`dicom_listener.intake.reception.Reception`."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes. Raises :class:`Endless` where it must end."""

    def finish(self) -> tuple[int, str]:
        """Status and error comment of the whole."""

    def discard(self) -> None:
        """Drop what did not become whole. Harmless after :meth:`finish`."""


class User(Protocol):
    """Who answers messages; :class:`dicom_listener.scp.association.ListenerAssociation`."""

    def begin_object(self, request: Request) -> Object:
        """Where the data set of a C-STORE goes. Raises :class:`Fault`."""

    def begin_data(self) -> None:
        """A data set begins."""

    def end_data(self) -> None:
        """A data set is complete."""

    def respond(self, request: Request, status: int, comment: str = "") -> None:
        """Send the response."""


class Messages:
    """The message that an association is receiving. One at a time: no asynchronous operations are negotiated.

    Parameters
    ----------
    user : User
        Who answers.
    """

    def __init__(self, user: User) -> None:
        self._user = user
        self._command = bytearray()
        self._request: Request | None = None
        self._object: Object | None = None

    @property
    def is_inside(self) -> bool:
        """Whether a message has begun and is not complete."""
        return self._request is not None or bool(self._command)

    def fragment(self, context_id: int, control: int, data: memoryview, is_end: bool = True) -> None:
        """Take a fragment, or a part of one.

        Parameters
        ----------
        control : int
            Message control header.
        data : memoryview
            Not kept.
        is_end : bool
            Whether the fragment ends with it.

        Raises
        ------
        Fault
            For what no peer may send.
        """
        ends_message_part = is_end and control & IS_LAST
        if control & IS_COMMAND:
            if self._request is not None:
                raise Fault(BAD_PDU, UNEXPECTED_PARAMETER)
            if len(self._command) + len(data) > COMMAND_BYTES:
                raise Fault(COMMAND_TOO_LONG, INVALID_PARAMETER)
            self._command += data
            if ends_message_part:
                self._begin(request_of(context_id, bytes(self._command)))
        elif self._request is None or self._object is None:
            raise Fault(BAD_PDU, UNEXPECTED_PARAMETER)
        else:
            self._write(self._object, data)
            if ends_message_part:
                self._finish(self._request, self._object)

    @staticmethod
    def _write(received: Object, data: memoryview) -> None:
        try:
            received.write(data)
        except Endless:
            raise Fault(TOO_LARGE) from None

    def _begin(self, request: Request) -> None:
        self._command.clear()
        if request.command_field == C_ECHO_RQ and not request.has_data_set:
            self._user.respond(request, 0)
        elif request.command_field == C_STORE_RQ:
            self._request, self._object = request, self._user.begin_object(request)
            if request.has_data_set:
                self._user.begin_data()
            else:
                self._finish(request, self._object)
        elif request.command_field != C_CANCEL_RQ:
            raise Fault(BAD_PDU, UNEXPECTED_PARAMETER)

    def _finish(self, request: Request, received: Object) -> None:
        self._user.end_data()
        status, comment = received.finish()
        self._request = self._object = None
        self._user.respond(request, status, comment)

    def close(self) -> None:
        """Drop what is not complete."""
        if self._object is not None:
            self._object.discard()
        self._request = self._object = None
        self._command.clear()


def request_of(context_id: int, command: bytes) -> Request:
    """What a command set says (PS3.7 annex E; implicit VR little endian).

    Raises
    ------
    Fault
        Where it cannot be read, or names no message.
    """
    elements: dict[int, bytes] = {}
    at, end = 0, len(command)
    while at + 8 <= end:
        group, element, length = struct.unpack_from("<HHI", command, at)
        if group != 0 or at + 8 + length > end:
            raise Fault(BAD_PDU, INVALID_PARAMETER)
        elements[element] = command[at + 8 : at + 8 + length]
        at += 8 + length
    field, message_id = _number(elements, 0x0100), _number(elements, 0x0110)
    if at != end or field is None or (message_id is None and field != C_CANCEL_RQ):
        raise Fault(BAD_PDU, INVALID_PARAMETER)
    return Request(
        context_id=context_id,
        command_field=field,
        message_id=message_id or 0,
        has_data_set=_number(elements, 0x0800) != NO_DATA_SET,
        priority=_number(elements, 0x0700),
        sop_class_uid=_uid(elements, 0x0002),
        sop_instance_uid=_uid(elements, 0x1000),
    )


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _uid(elements: dict[int, bytes], element: int) -> str:
    value = elements.get(element, b"").rstrip(b"\0 ")
    if len(value) > UID_LIMIT:
        raise Fault(BAD_PDU, INVALID_PARAMETER)
    return value.decode("ascii", "replace")


def response(request: Request, status: int, comment: str = "") -> bytes:
    """Command set of a C-STORE-RSP or C-ECHO-RSP (PS3.7 sections 9.3.1.2 and 9.3.5.2), implicit VR little endian.

    Parameters
    ----------
    comment : str
        Error Comment (0000,0902), at most 64 characters.
    """
    us, lo = struct.Struct("<HHIH").pack, comment.encode("ascii", "replace")[:64]
    elements = [
        _text(0x0002, request.sop_class_uid.encode("ascii", "replace"), b"\0"),
        us(0, 0x0100, 2, request.command_field | IS_RESPONSE),
        us(0, 0x0120, 2, request.message_id),
        us(0, 0x0800, 2, NO_DATA_SET),
        us(0, 0x0900, 2, status),
        _text(0x0902, lo, b" "),
        _text(0x1000, request.sop_instance_uid.encode("ascii", "replace"), b"\0"),
    ]
    group = b"".join(elements)
    return struct.pack("<HHII", 0, 0, 4, len(group)) + group


def response_pdu(request: Request, status: int, comment: str = "") -> bytes:
    """The P-DATA-TF (PS3.8 section 9.3.5) with :func:`response`."""
    value = LAST_COMMAND + response(request, status, comment)
    return struct.pack(">BBIIB", 4, 0, len(value) + 5, len(value) + 1, request.context_id) + value


def _text(element: int, value: bytes, padding: bytes) -> bytes:
    if not value:
        return b""
    value += padding * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value
