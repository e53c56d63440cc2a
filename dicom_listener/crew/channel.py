"""Messages between the process that accepts connections and one that serves them, with the connections themselves."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

CHANNEL_FD_VARIABLE: Final = "LISTENER_CHANNEL_FD"
"""Names the descriptor to a process that was started with one."""
STOW_FD_VARIABLE: Final = "LISTENER_STOW_FD"
"""The same of the socket of the STOW-RS door."""
MESSAGE_BYTES: Final = 64 * 2**10
INLINE_BYTES: Final = 32 * 2**10
"""More bytes than these travel as a file in memory: a message must fit into the socket's buffer."""
RIGHTS_BYTES: Final = socket.CMSG_LEN(2 * array("i").itemsize)

GUEST, LEAD, COMPARE, WAKE, STALLS, CUT = "guest", "lead", "compare", "wake", "stalls", "cut"
"""To a member: serve this connection; lead; a member is gone, compare spool and rows; look at what may close; say who
is stalled; end an association."""
READY, TAKEN, LEFT, STALLED, KEPT, ENDED = "ready", "taken", "left", "stalled", "kept", "ended"
"""From a member: it serves; it has a connection; an association has ended; who is stalled; one to be cut goes on again;
the end of a delivery is written."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes
    ----------
    fields : dict
        What goes with it, as JSON.
    data : bytes
        Bytes that were read from a connection.
    sock : socket.socket or None
        The connection; whoever receives it has to close it.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    data: bytes = b""
    sock: socket.socket | None = None


class Channel:
    """One end of a pair of sockets that keep messages apart.

    Parameters
    ----------
    sock : socket.socket
        ``SOCK_SEQPACKET``.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def of_descriptor(cls, fd: int) -> Channel:
        """The end that a process was started with."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Descriptor."""
        return self.sock.fileno()

    def send(self, message: Message, *, wait: bool = True) -> None:
        """Send a message.

        Raises
        ------
        BlockingIOError
            If the other end does not read, and this one is not to wait.
        OSError
            If the other end is gone.
        """
        data, spare = message.data, None
        fds = [message.sock.fileno()] if message.sock is not None else []
        if len(data) > INLINE_BYTES:
            spare = os.memfd_create("guest")
            with os.fdopen(os.dup(spare), "wb") as file:
                file.write(data)
            fds, data = [*fds, spare], b""
        head = json.dumps([message.kind, message.fields]).encode()
        try:
            flags = socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
            self.sock.sendmsg([len(head).to_bytes(4, "big"), head, data], rights, flags)  # send_fds() drops the flags
        finally:
            if spare is not None:
                os.close(spare)

    def receive(self) -> Message | None:
        """The next message, waited for; None where the other end is gone."""
        try:
            packet, rights, _, _ = self.sock.recvmsg(MESSAGE_BYTES, RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return None
        if not packet:
            return None
        end = 4 + int.from_bytes(packet[:4], "big")
        kind, fields = json.loads(packet[4:end])
        fds = array("i", b"".join(data for _, _, data in rights))
        data = packet[end:]
        sock = socket.socket(fileno=fds[0]) if fds else None
        if len(fds) > 1:
            with os.fdopen(fds[1], "rb") as file:
                file.seek(0)
                data = file.read()
        return Message(kind, fields, data, sock)

    def close(self) -> None:
        """Close this end."""
        with contextlib.suppress(OSError):
            self.sock.close()
