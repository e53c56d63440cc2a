"""The DICOM door: whole conversations to a listening socket, of a listener that runs in this process.

The first byte of an input says how the peer behaves (:class:`Manner`), the rest is what it sends.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from sqlalchemy import text

from dicom_listener.peers.limits import COMMAND_BYTES, REQUEST_BYTES
from dicom_listener.scp.messages import Messages
from dicom_listener.scp.visitors import HEADER_BYTES, Visitor
from dicom_listener.service import ListenerService
from tests.builders.listening import listening
from tests.builders.peers import CT, fragment, pdu, request, seconds_until_accepted, status, store_command
from tests.builders.site import settings_in
from tests.fuzz.bounds import Bounds
from tests.fuzz.door import Broken, Door, Feed

PATIENCE_S: Final = 1.0
"""Network timeout of the listener, so that deadlines pass quickly here."""
END_S: Final = 15.0
"""A peer that says nothing more is gone within so long: two timeouts, the farewell, and a very busy machine."""
GOOD_S: Final = 1.0
"""A good peer of another host is accepted within so long, in the best of some tries: the machine may be busy."""
GOOD_TRIES: Final = 5
LOOK_EVERY: Final = 25
MOST_STAYING: Final = 24
ANSWERS_BYTES: Final = 2**20
OTHER_HOST: Final = "127.0.0.2"
WATCHED: Final = ("dicom_listener.scp", "dicom_listener.intake", "firstread.processes.lasting", "pynetdicom")


class Manner(IntFlag):
    """How the peer behaves."""

    WAITS = 1
    """For the answer to its first PDU."""
    RESETS = 2
    """The connection, at its end (RST)."""
    STAYS = 4
    """Says nothing more, and does not close."""
    IN_PIECES = 8


@dataclass
class _Staying:
    sock: socket.socket
    until: float
    data: bytes


@dataclass
class _Errors(logging.Handler):
    """Keeps what is logged as an error: none of a peer's doings is one."""

    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(WATCHED):
            self.found.append(f"{record.name}: {record.msg}")

    __hash__ = logging.Handler.__hash__


class Peers:
    """Everything that a listener is told, and what it owes.

    Parameters
    ----------
    service : ListenerService
        Running.
    """

    def __init__(self, service: ListenerService, errors: _Errors) -> None:
        self._service = service
        self._errors = errors
        self._staying: list[_Staying] = []
        self._bounds = Bounds()
        self._given = 0
        self.acknowledged = 0

    def feed(self, data: bytes) -> str:
        """One conversation; how it ended."""
        with self._bounds.kept(time.thread_time):
            ended = self._converse(data)
        self._given += 1
        self._look_at_those_who_stay()
        if self._given % LOOK_EVERY == 0 or self._errors.found:
            self._look_around(data)
        return ended

    def _converse(self, data: bytes) -> str:
        manner, rest = Manner(data[0] & 15) if data else Manner(0), data[1:]
        sock = socket.create_connection(("127.0.0.1", self._service.port), timeout=10.0)
        try:
            got = self._send(sock, manner, rest)
            if manner & Manner.STAYS and len(self._staying) < MOST_STAYING:
                self._staying.append(_Staying(sock, time.monotonic() + END_S, data))
                return "stays"
            if manner & Manner.RESETS:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                got += _all_of(sock, data)
        except ConnectionError:
            got = b"reset"
        finally:
            if not (self._staying and self._staying[-1].sock is sock):
                sock.close()
        self.acknowledged += stored(got)
        return kinds_of(got)

    def _send(self, sock: socket.socket, manner: Manner, rest: bytes) -> bytes:
        first = 6 + int.from_bytes(rest[2:6], "big") if manner & Manner.WAITS else len(rest)
        got = b""
        for part in (rest[:first], rest[first:]):
            step = 7 if manner & Manner.IN_PIECES and len(part) < 2000 else max(1, len(part))
            for at in range(0, len(part), step):
                sock.sendall(part[at : at + step])
            if part and manner & Manner.WAITS and select.select([sock], [], [], PATIENCE_S / 4)[0]:
                got += sock.recv(4096)
        return got

    def _look_at_those_who_stay(self) -> None:
        """Who stays is ended by the clock."""
        now = time.monotonic()
        for peer in list(self._staying):
            try:
                peer.sock.setblocking(False)
                ended = not peer.sock.recv(4096)
            except BlockingIOError:
                ended = False
            except OSError:
                ended = True
            if ended or now > peer.until:
                peer.sock.close()
                self._staying.remove(peer)
            if not ended and now > peer.until:
                raise Broken(f"a peer that says nothing more was served for {END_S:g} s", peer.data)

    def _look_around(self, data: bytes) -> None:
        """Places are free, a good peer is served at once, nothing of ours broke, and what was acknowledged is there."""
        if self._errors.found:
            said, self._errors.found = self._errors.found[0], []
            raise Broken(f"an error was logged: {said}", data)
        service = self._service
        if not _soon(lambda: len(service.scp.places) <= len(self._staying)):
            raise Broken("a place stays taken after its peer has gone")
        best = min(seconds_until_accepted(service.port, OTHER_HOST, limit_s=10.0) for _ in range(GOOD_TRIES))
        if best > GOOD_S:
            raise Broken(f"a good peer was accepted after more than {GOOD_S:g} s")
        spool = service.storage.spool.root
        if not self._staying and not _soon(lambda: not list(spool.rglob("*.part"))):
            raise Broken("an unfinished file stays in the spool")
        if not _soon(lambda: self._rows() >= self.acknowledged):
            raise Broken("an image that was acknowledged has no row")

    def _rows(self) -> int:
        with self._service.db.read() as session:
            return int(session.scalar(text("SELECT count(*) FROM received_instance")) or 0)

    def close(self) -> None:
        """Wait for the end of every connection, and look around once more."""
        try:
            while self._staying:
                self._look_at_those_who_stay()
                time.sleep(0.05)
            self._look_around(b"")
        finally:
            for peer in self._staying:
                peer.sock.close()


def _soon(check: Callable[[], bool], limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _all_of(sock: socket.socket, data: bytes) -> bytes:
    """What the listener says until it closes, which it does by the clock."""
    got, end = b"", time.monotonic() + END_S
    while len(got) < ANSWERS_BYTES:
        left_s = end - time.monotonic()
        if left_s <= 0:
            raise Broken(f"a peer that has closed its side was served for {END_S:g} s", data)
        sock.settimeout(left_s)
        try:
            came = sock.recv(65536)
        except TimeoutError:
            continue
        if not came:
            break
        got += came
    return got


def _pdus(got: bytes) -> Iterator[bytes]:
    at = 0
    while at + 6 <= len(got):
        end = at + 6 + int.from_bytes(got[at + 2 : at + 6], "big")
        yield got[at:end]
        at = end


def kinds_of(got: bytes) -> str:
    """What the listener said, PDU by PDU, repeats once; with the reason of an A-ABORT."""
    if got == b"reset" or not got:
        return got.decode() or "nothing"
    words = {2: "accepted", 3: "rejected", 4: "answered", 6: "released", 7: "aborted"}
    said = [words.get(one[0], "?") + (f" {one[-1]}" if one[0] == 7 else "") for one in _pdus(got)]
    return ", ".join(dict.fromkeys(said))


def stored(got: bytes) -> int:
    """How many C-STORE responses say 0x0000."""
    store = struct.pack("<HHIH", 0, 0x0100, 2, 0x8001)
    return sum(one[0] == 4 and status(0x0000) in one and store in one for one in _pdus(got))


@contextlib.contextmanager
def _checked(owner: Any, name: str, held: Callable[[Any], int], limit: int, found: list[str]) -> Iterator[None]:
    """Look at what an object holds after each call of a method."""
    method = getattr(owner, name)

    def watching(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            if held(self) > limit:
                found.append(f"{owner.__name__} holds more than {limit} bytes")

    setattr(owner, name, watching)
    try:
        yield
    finally:
        setattr(owner, name, method)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """A listener whose patience is short, and whoever talks to it."""
    settings = settings_in(
        folder / "home", dicom_port=0, metrics_port=0, network_timeout_s=PATIENCE_S, inbox_rescan_s=60.0, quiet_s=3600.0
    )
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    before = threading.excepthook
    threading.excepthook = lambda args: errors.found.append(f"a thread ended with {args.exc_type.__name__}")
    command = _checked(Messages, "fragment", lambda m: len(m._command), COMMAND_BYTES, errors.found)
    visitor = _checked(Visitor, "read", lambda v: len(v.data), REQUEST_BYTES + HEADER_BYTES, errors.found)
    try:
        with command, visitor, listening(settings) as service:
            peers = Peers(service, errors)
            yield peers.feed
            peers.close()
    finally:
        threading.excepthook = before
        logging.getLogger().removeHandler(errors)


_UIDS = st.sampled_from([CT, b"1.2.840.10008.1.1", b"1.2.840.10008.5.1.4.1.2.2.1", b"1.2.3", b"", b"junk\xff" * 9])
_ITEM = st.builds(
    lambda kind, body, lie: struct.pack(">BBH", kind, 0, (len(body) + lie) & 0xFFFF) + body,
    st.sampled_from([0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x99]),
    st.binary(max_size=40),
    st.sampled_from([0, 0, 0, 1, -1, 4000]),
)
_REQUEST = st.builds(
    request,
    calling_ae=st.sampled_from([b"CT1", b"BADPEER", b"", b"\xff" * 16]),
    context_id=st.integers(0, 255),
    abstract=_UIDS,
    syntax=st.sampled_from([b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.3", b""]),
    identity=st.none() | st.binary(min_size=1, max_size=20),
    more=st.lists(_ITEM, max_size=4).map(b"".join),
    version=st.sampled_from([1, 1, 1, 0, 2, 0xFFFF]),
)
_ELEMENT = st.builds(
    lambda element, value, lie: struct.pack("<HHI", 0, element, (len(value) + lie) & 0xFFFFFFFF) + value,
    st.sampled_from([0x0000, 0x0002, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1000, 0x1030]),
    st.sampled_from([b"\1\0", b"\x30\0", b"\x01\x01", b"\xff\x0f", b"\1\x80"]) | st.binary(max_size=70),
    st.sampled_from([0, 0, 0, 0, 1, -1, 2**31]),
)
_COMMAND = st.just(store_command()) | st.lists(_ELEMENT, max_size=9).map(b"".join)


def data_set_bytes() -> bytes:
    """The data set of a small image, implicit VR little endian, without its file meta group."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    from tests.builders.bad_inputs import tiny_slice

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, tiny_slice())
    return bytes(buffer.getvalue())


def conversations() -> st.SearchStrategy[bytes]:
    """Conversations that know the protocol, and lie here and there."""
    data_set = st.just(data_set_bytes()) | st.binary(max_size=200)
    context_id = st.sampled_from([1, 1, 1, 1, 3, 0, 255])
    part = st.one_of(
        st.builds(lambda c, d: fragment(3, c) + fragment(2, d), _COMMAND, data_set),
        st.builds(fragment, st.integers(0, 3), _COMMAND | data_set, context_id),
        st.builds(pdu, st.integers(0, 9), st.binary(max_size=60)),
        st.builds(lambda kind, n: struct.pack(">BBI", kind, 0, n), st.integers(1, 7), st.integers(0, 2**32 - 1)),
        st.just(pdu(5, bytes(4))),
    )
    manner = st.sampled_from([0, 0, 1, 1, 1, 1, 2, 3, 5, 8, 9])
    return st.builds(
        lambda how, first, parts: bytes([how]) + first + b"".join(parts),
        manner,
        _REQUEST | st.just(request()),
        st.lists(part, max_size=6),
    )


DOORS: Final = {"upper_layer": Door("upper_layer", opened, conversations, longest=256 * 2**10)}
