"""Short messages between the worker, the fork server and the decoders: JSON behind its length, on a Unix socket."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

_LENGTH: Final = struct.Struct("<I")
_LONGEST: Final = 2**16
_MOST_FDS: Final = 2

Message = dict[str, Any]


def send(connection: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a message, and open files with it. Raises :class:`OSError` where nobody listens."""
    body = json.dumps(message).encode()
    data = _LENGTH.pack(len(body)) + body
    if fds:
        sent = socket.send_fds(connection, [data], list(fds))
        data = data[sent:]
    if data:
        connection.sendall(data)


def receive(connection: socket.socket) -> Message | None:
    """The next message; None where the other side is gone."""
    return receive_fds(connection)[0]


def receive_fds(connection: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and the open files that came with it."""
    try:
        data, fds, _, _ = socket.recv_fds(connection, _LONGEST, _MOST_FDS)  # one message at a time is under way
        data += _read(connection, _LENGTH.size - len(data)) if data else b""
        if len(data) < _LENGTH.size:
            return None, fds
        body = data[_LENGTH.size :]
        length = min(_LENGTH.unpack(data[: _LENGTH.size])[0], _LONGEST)
        body += _read(connection, length - len(body))
    except OSError:
        return None, []
    try:
        message = json.loads(body) if body else None
    except ValueError:
        message = None
    return (message if isinstance(message, dict) else None), fds


def _read(connection: socket.socket, length: int) -> bytes:
    """So many bytes more; nothing where they do not come."""
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            return b""
        data += chunk
    return data
