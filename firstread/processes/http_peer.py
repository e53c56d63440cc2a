"""A connection of a server of HTTP that strangers reach: what the worklist page and the STOW-RS door have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpPeer(H11Protocol, ABC):
    """A connection with at most one deadline, which also says no to what is no HTTP without an error in the log."""

    _deadline: asyncio.TimerHandle | None = None

    @property
    def host(self) -> str:
        """The peer's address."""
        return self.client[0] if self.client else ""

    @property
    def has_deadline(self) -> bool:
        """Whether the peer owes something in time."""
        return self._deadline is not None

    def set_deadline(self, seconds: float, late: Callable[..., object], *given: Any) -> None:
        """Have something done that many seconds from now, in the place of what was to be done before."""
        self.drop_deadline()
        self._deadline = self.loop.call_later(seconds, late, *given)

    def drop_deadline(self) -> None:
        """The peer owes nothing."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @abstractmethod
    def note_bad_request(self) -> None:
        """Count a peer that speaks no HTTP."""

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and be done with it."""
        self.note_bad_request()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer to an earlier request had been begun
            self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            # The 400 went out in the place of an earlier request's answer, which nobody takes any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _should_upgrade(self) -> bool:
        """No door speaks WebSockets: a wish for another protocol is passed over (RFC 9110, section 7.8)."""
        return False
