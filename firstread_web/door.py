"""The door of the page: clients that say nothing, or no HTTP, take nobody's place and no time.

A connection *waits* while the page has no whole request of it in hand: before the first request, within an unfinished
one, and between two. Those that wait are bounded, all together and for one host; the one that has waited for longest
goes. A request that was begun, and the first one of a connection, must be complete in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import h11

from firstread.processes.http_peer import HttpPeer
from firstread_web.metrics import REFUSALS

BAD_REQUEST, SLOW = "bad_request", "slow"
TOO_MANY_CONNECTIONS, TOO_MANY_REQUESTS = "too_many_connections", "too_many_requests"
REASONS: Final = (BAD_REQUEST, SLOW, TOO_MANY_CONNECTIONS, TOO_MANY_REQUESTS)
SPEAK_S: Final = 60.0
"""Between two lines of the log about who was turned away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What clients may have.

    Attributes
    ----------
    request_s : float
        Until a request is complete: from the connection on, or from its own first byte.
    waiting, waiting_of_host : int
        Connections that wait, all together and of one host.
    requests : int
        Requests in hand.
    """

    request_s: float = 10.0
    waiting: int = 128
    waiting_of_host: int = 48
    requests: int = 100


class TurnedAway:
    """Counts what was turned away, and says so in one line a minute at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._spoke_at: float | None = None
        for reason in REASONS:
            REFUSALS.labels(reason)

    def note(self, reason: str) -> None:
        """One more."""
        REFUSALS.labels(reason).inc()
        self._counts[reason] += 1
        now = self._clock()
        if self._spoke_at is None or now - self._spoke_at >= SPEAK_S:
            log.warning("turned away at the page: %s", ", ".join(f"{n} {name}" for name, n in self._counts.items()))
            self._spoke_at = now
            self._counts.clear()


@dataclass
class Door:
    """Who waits; one of these for all connections of a server, used in its event loop alone."""

    limits: Limits = field(default_factory=Limits)
    turned_away: TurnedAway = field(default_factory=TurnedAway)
    waiting: dict[Connection, None] = field(default_factory=dict)
    """In the order in which they began to wait."""

    def begin(self, connection: Connection) -> None:
        """A connection waits from now on; another one goes where there are too many."""
        self.waiting.pop(connection, None)
        self.waiting[connection] = None
        of_host = [other for other in self.waiting if other.host == connection.host]
        if len(of_host) > self.limits.waiting_of_host:
            of_host[0].leave(TOO_MANY_CONNECTIONS)
        elif len(self.waiting) > self.limits.waiting:
            next(iter(self.waiting)).leave(TOO_MANY_CONNECTIONS)

    def end(self, connection: Connection) -> None:
        """A connection waits no more: its request is in hand, or it is gone."""
        self.waiting.pop(connection, None)


class Connection(HttpPeer):
    """A connection of a client; :func:`connections_of` makes the class that knows its door."""

    door: Door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there, and owes a request."""
        super().connection_made(transport)
        self._set_deadline()
        self.door.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.drop_deadline()
        self.door.end(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of something else."""
        super().data_received(data)
        if self._owes():
            if not self.has_deadline:
                self._set_deadline()
        else:
            self.drop_deadline()
            self.door.end(self)

    def on_response_complete(self) -> None:
        """An answer went out: the client may ask again, for as long as the server keeps the connection."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self.door.begin(self)

    def note_bad_request(self) -> None:
        """Count a client that speaks no HTTP."""
        self.door.turned_away.note(BAD_REQUEST)

    def leave(self, reason: str) -> None:
        """Close the connection of a client that waits."""
        self.door.end(self)
        self.drop_deadline()
        if not self.transport.is_closing():
            self.door.turned_away.note(reason)
            self.transport.abort()

    def _owes(self) -> bool:
        """Whether the rest of a request is to come."""
        if self.conn.their_state is h11.SEND_BODY:
            return True
        return self.conn.their_state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))

    def _set_deadline(self) -> None:
        self.set_deadline(self.door.limits.request_s, self.leave, SLOW)


def connections_of(door: Door) -> type[Connection]:
    """The class of the connections of one server."""
    return type("Connection", (Connection,), {"door": door})
