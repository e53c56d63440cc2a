"""Places in use, and the processes that serve them, as the process that accepts connections sees both."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Final

from dicom_listener.crew.channel import CUT, Channel, Message

SLOW_S: Final = 2.0
"""A process that has not taken a connection after so long gets no other until it has."""


@dataclass(eq=False)
class Seat:
    """A place in use: an association that another process serves.

    Attributes
    ----------
    message : Message or None
        What hands the connection over, until it is known to have been taken.
    stalled_since : float or None
        Monotonic time, as its process said last.
    """

    number: int
    member: Member
    message: Message | None
    given_s: float = field(default_factory=time.monotonic)
    stalled_since: float | None = None

    @property
    def stalled_s(self) -> float:
        """Seconds for which the peer has left a message unfinished."""
        return 0.0 if self.stalled_since is None else time.monotonic() - self.stalled_since

    def cut(self, reason: str) -> None:
        """End it, soon, unless it has gone on meanwhile."""
        self.member.tell(CUT, number=self.number, reason=reason)

    def let_go(self) -> None:
        """Close our end of the connection."""
        if self.message is not None and self.message.sock is not None:
            self.message.sock.close()
        self.message = None


@dataclass(eq=False)
class Member:
    """A process that serves associations.

    Attributes
    ----------
    is_ready : bool
        Whether it has said so.
    is_gone : bool
        Whether its end of the channel is closed.
    """

    number: int
    channel: Channel
    is_ready: bool = False
    is_gone: bool = False
    seats: dict[int, Seat] = field(default_factory=dict)

    def tell(self, kind: str, **fields: object) -> None:
        """Send a message, if it is there to read it."""
        with contextlib.suppress(OSError):
            self.channel.send(Message(kind, fields), wait=False)

    @property
    def silent_s(self) -> float:
        """Seconds for which it has left a connection that was handed to it."""
        waiting = [seat.given_s for seat in list(self.seats.values()) if seat.message is not None]
        return time.monotonic() - min(waiting) if waiting else 0.0

    @property
    def is_served_by(self) -> bool:
        """Whether connections may be handed to it."""
        return self.is_ready and not self.is_gone and self.silent_s < SLOW_S
