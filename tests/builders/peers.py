"""Peers below DICOM's messages: bytes for a listener, good ones and bad ones."""

from __future__ import annotations

import socket
import struct
import time

ACCEPTED, REJECTED, ABORTED = 2, 3, 7
CT = b"1.2.840.10008.5.1.4.1.1.2"


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    """A PDU (PS3.8 section 9.3.1)."""
    return struct.pack(">BBI", kind, 0, len(body)) + body


def request(
    calling_ae: bytes = b"BADPEER",
    context_id: int = 1,
    abstract: bytes = CT,
    syntax: bytes = b"1.2.840.10008.1.2",
    identity: bytes | None = None,
    more: bytes = b"",
    version: int = 1,
) -> bytes:
    """An A-ASSOCIATE-RQ."""
    context = _item(0x20, struct.pack(">BBBB", context_id, 0, 0, 0) + _item(0x30, abstract) + _item(0x40, syntax))
    user = _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"2.25.1")
    if identity:
        user += _item(0x58, identity)
    fixed = struct.pack(">HH", version, 0) + b"FIRSTREAD".ljust(16) + calling_ae.ljust(16) + b"\0" * 32
    return pdu(1, fixed + _item(0x10, b"1.2.840.10008.3.1.1.1") + context + _item(0x50, user) + more)


def fragment(control: int, data: bytes, context_id: int = 1) -> bytes:
    """A P-DATA-TF with one fragment."""
    return pdu(4, struct.pack(">IBB", len(data) + 2, context_id, control) + data)


def store_command(uid: bytes = b"1.2.3\0", number: int = 1, data_set_type: int = 0) -> bytes:
    """The command set of a C-STORE-RQ."""
    elements = [(0x0002, CT + b"\0"), (0x0100, b"\1\0"), (0x0110, struct.pack("<H", number)), (0x0700, b"\0\0")]
    elements += [(0x0800, struct.pack("<H", data_set_type)), (0x1000, uid)]
    group = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(group)) + group


def status(code: int) -> bytes:
    """The element of a response that holds its status, as it stands in the answer's command set."""
    return struct.pack("<HHIH", 0, 0x0900, 2, code)


def connect(port: int, source: str = "127.0.0.1", timeout_s: float = 30.0) -> socket.socket:
    """A connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))


def answer(sock: socket.socket) -> bytes:
    """The next PDU; empty where the other end has closed."""
    data = b""
    try:
        while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
            wanted = 6 if len(data) < 6 else 6 + int.from_bytes(data[2:6], "big")
            came = sock.recv(wanted - len(data))
            if not came:
                return b""
            data += came
    except ConnectionError:
        return b""
    return data


def associate(port: int, calling_ae: bytes = b"CT1", source: str = "127.0.0.1", first: bytes = b"") -> socket.socket:
    """An association that is accepted; the connection."""
    sock = connect(port, source)
    sock.sendall(first + request(calling_ae))
    got = answer(sock)
    assert got[:1] == bytes([ACCEPTED]), got
    return sock


def seconds_until_accepted(port: int, source: str = "127.0.0.1", limit_s: float = 30.0) -> float:
    """How long a modality tries until it is accepted; it ends its association then."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        with connect(port, source) as sock:
            sock.sendall(request(b"CT-GOOD"))
            got = answer(sock)
            if got[:1] == bytes([ACCEPTED]):
                took_s = time.monotonic() - started
                sock.sendall(pdu(5, bytes(4)))
                answer(sock)
                return took_s
        time.sleep(0.05)
    raise AssertionError(f"not accepted within {limit_s} s")
