"""The least that a C-STORE provider in Python can do: sockets, PDUs, a file an object. Nothing is checked or synced.

``python -m tests.bench.bare_socket PORT FOLDER``. Every proposed context is accepted with its first transfer syntax
(PS3.8 9.3.2 and 9.3.3), every object is written as it came, without a meta group.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from pathlib import Path

MAX_PDU = 131_072
ASSOCIATE_RQ, ASSOCIATE_AC, DATA, RELEASE_RQ, RELEASE_RP = 1, 2, 4, 5, 6
COMMAND, LAST = 1, 2
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _items(body: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at + 4 <= len(body):
        kind, _, length = struct.unpack_from(">BBH", body, at)
        found.append((kind, body[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def accept(request: bytes) -> bytes:
    """The A-ASSOCIATE-AC to the body of an A-ASSOCIATE-RQ."""
    answer = [_item(0x10, APPLICATION_CONTEXT)]
    for kind, body in _items(request[68:]):
        if kind == 0x20:
            syntax = next(value for sub, value in _items(body[4:]) if sub == 0x40)
            answer.append(_item(0x21, bytes([body[0], 0, 0, 0]) + _item(0x40, syntax)))
    user = _item(0x51, struct.pack(">I", MAX_PDU)) + _item(0x52, b"1.2.826.0.1.3680043.10.1")
    body = request[:68] + b"".join(answer) + _item(0x50, user)
    return struct.pack(">BBI", ASSOCIATE_AC, 0, len(body)) + body


def _elements(command: bytes) -> dict[int, bytes]:
    """Values of group 0000 by element number, implicit VR little endian (PS3.7 6.3.1)."""
    values, at = {}, 0
    while at + 8 <= len(command):
        _, element, length = struct.unpack_from("<HHI", command, at)
        values[element] = command[at + 8 : at + 8 + length]
        at += 8 + length
    return values


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def answer(context: int, command: bytes) -> bytes:
    """The P-DATA-TF with a C-STORE-RSP of status 0x0000, or the C-ECHO-RSP (PS3.7 9.3.1 and 9.3.5)."""
    asked = _elements(command)
    kind = struct.unpack("<H", asked[0x0100])[0] | 0x8000
    body = _element(0x0002, asked[0x0002]) + _element(0x0100, struct.pack("<H", kind))
    body += _element(0x0120, asked[0x0110]) + _element(0x0800, struct.pack("<H", 0x0101))
    body += _element(0x0900, struct.pack("<H", 0))
    body += _element(0x1000, asked[0x1000]) if 0x1000 in asked else b""
    body = _element(0x0000, struct.pack("<I", len(body))) + body
    fragment = struct.pack(">IBB", len(body) + 2, context, COMMAND | LAST) + body
    return struct.pack(">BBI", DATA, 0, len(fragment)) + fragment


def serve(connection: socket.socket, folder: Path) -> None:
    """One association, until it is released."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = connection.makefile("rb", buffering=1 << 18)
    command, data = bytearray(), bytearray()
    with connection, stream:
        while len(head := stream.read(6)) == 6:
            kind, _, length = struct.unpack(">BBI", head)
            body = stream.read(length)
            if kind == ASSOCIATE_RQ:
                connection.sendall(accept(body))
            elif kind == RELEASE_RQ:
                connection.sendall(struct.pack(">BBI", RELEASE_RP, 0, 4) + bytes(4))
                return
            elif kind == DATA:
                _take(connection, body, command, data, folder)
            else:
                return


def _take(connection: socket.socket, body: bytes, command: bytearray, data: bytearray, folder: Path) -> None:
    at = 0
    while at < len(body):
        length, context, flags = struct.unpack_from(">IBB", body, at)
        (command if flags & COMMAND else data).extend(memoryview(body)[at + 6 : at + 4 + length])
        at += 4 + length
        asked = bytes(command)
        without_data = flags == COMMAND | LAST and _elements(asked)[0x0800] == b"\x01\x01"
        if flags == LAST or without_data:
            if not without_data:
                name = _elements(asked)[0x1000].rstrip(b"\0").decode("ascii")
                (folder / name).write_bytes(data)
            connection.sendall(answer(context, asked))
            command.clear()
            data.clear()


def main() -> None:
    """Serve until killed."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection, Path(sys.argv[2])), daemon=True).start()


if __name__ == "__main__":
    main()
