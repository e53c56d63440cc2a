"""Who serves which association: the places over all processes, and which process leads."""

from __future__ import annotations

import itertools
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from dicom_listener.crew.channel import (
    COMPARE,
    ENDED,
    GUEST,
    KEPT,
    LEAD,
    LEFT,
    READY,
    STALLED,
    STALLS,
    TAKEN,
    WAKE,
    Message,
)
from dicom_listener.crew.seats import Member, Seat
from dicom_listener.scp.lobby import NobodyServes
from dicom_listener.scp.places import Places
from dicom_listener.scp.visitors import Caller, Visitor

LOGGER = logging.getLogger(__name__)
ASK_S: Final = 0.1
"""Pause between two questions who is stalled, while somebody waits for a place."""


class Roster:
    """The members, their seats, and the thread that listens to them.

    Stands where :class:`dicom_listener.scp.places.Places` does for a lobby. Where a process is gone its places are free
    at once, and connections that it had not taken go to another.

    Parameters
    ----------
    places : Places
        Of all together.
    each : int
        Most associations of one process.
    on_gone : callable
        Called when a process is gone.
    """

    def __init__(self, places: Places, each: int, on_gone: Callable[[], None]) -> None:
        self._places = places
        self._each = each
        self._on_gone = on_gone
        self._lock = threading.RLock()
        self._members: list[Member] = []
        self._leader: Member | None = None
        self._numbers = itertools.count(1)
        self._asked_s = 0.0
        self._is_stopping = False
        self.anyone_ready = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def add(self, member: Member) -> None:
        """Listen to a process that was started."""
        with self._lock:
            self._members.append(member)
            self._selector.register(member.channel, selectors.EVENT_READ, member)
        self._rope.send(b"!")

    def stop(self) -> None:
        """Listen to nobody any more, and appoint nobody."""
        self._is_stopping = True
        self._rope.send(b"!")

    # What a lobby asks

    @property
    def is_served(self) -> bool:
        """Whether there is a process that takes connections at all."""
        with self._lock:
            return any(member.is_served_by for member in self._members)

    def has_room(self, calling_ae: str, host: str) -> bool:
        """Whether such a caller may have a place now, in a process that takes it."""
        with self._lock:
            if self._least_busy() is None:
                return False
            if self._places.has_room(calling_ae, host):
                return True
            self._ask_who_is_stalled()
            return False

    def make_room(self, host: str) -> bool:
        """Let an association end that does not use its place, for a caller of another host; whether one goes."""
        with self._lock:
            return self._least_busy() is not None and self._places.make_room(host)

    def let_in(self, visitor: Visitor, caller: Caller) -> None:
        """Hand a connection to the process with the fewest. Raises NobodyServes where none takes it."""
        fields = {"number": next(self._numbers), "host": visitor.host, "port": visitor.peer[1]}
        with self._lock:
            self._seat(Message(GUEST, fields, bytes(visitor.data), visitor.sock), caller.calling_ae, visitor.host)

    def _seat(self, message: Message, calling_ae: str, host: str) -> None:
        for member in self._by_load():
            seat = Seat(message.fields["number"], member, message)
            try:
                member.channel.send(message, wait=False)
            except OSError:
                continue
            member.seats[seat.number] = seat
            self._places.take(seat, calling_ae, host)
            return
        raise NobodyServes

    def _by_load(self) -> list[Member]:
        """Members that take another connection, the least busy first; of equals, that which was given one first."""
        there = [m for m in self._members if m.is_served_by and len(m.seats) < self._each]
        return sorted(there, key=lambda m: (len(m.seats), max(m.seats, default=0)))

    def _least_busy(self) -> Member | None:
        return next(iter(self._by_load()), None)

    def _ask_who_is_stalled(self) -> None:
        if time.monotonic() - self._asked_s >= ASK_S:
            self._asked_s = time.monotonic()
            for member in self._members:
                member.tell(STALLS)

    # What members say

    def run(self) -> None:
        """Listen until :meth:`stop`."""
        while not self._is_stopping:
            for key, _ in self._selector.select():
                if key.fileobj is self._bell:
                    self._bell.recv(4096)
                else:
                    self._hear(key.data)

    def _hear(self, member: Member) -> None:
        message = member.channel.receive()
        with self._lock:
            if message is None:
                self._dismiss(member)
            else:
                self._note(member, message)

    def _note(self, member: Member, message: Message) -> None:
        kind, fields = message.kind, message.fields
        seat = member.seats.get(int(fields.get("number", 0)))
        if kind == READY:
            member.is_ready = True
            self._appoint()
            self.anyone_ready.set()
        elif kind == ENDED and self._leader is not None:
            self._leader.tell(WAKE)
        elif kind == STALLED:
            now, seconds = time.monotonic(), fields["seconds"]
            for number, place in member.seats.items():
                stalled_s = seconds.get(str(number))
                place.stalled_since = None if stalled_s is None else now - stalled_s
        elif seat is not None and kind == TAKEN:
            seat.let_go()
        elif seat is not None and kind == KEPT:
            self._places.keep(seat)
        elif seat is not None and kind == LEFT:
            seat.let_go()
            del member.seats[seat.number]
            self._places.leave(seat)

    def _appoint(self) -> None:
        """Let a process lead, if none does."""
        if self._leader is None and not self._is_stopping:
            self._leader = next((m for m in self._members if m.is_ready and not m.is_gone), None)
            if self._leader is not None:
                LOGGER.info("process %d of the listener leads", self._leader.number)
                self._leader.tell(LEAD)

    def _dismiss(self, member: Member) -> None:
        """A process is gone: free its places, hand on what it had not taken, and let another lead if it did."""
        self._selector.unregister(member.channel)
        member.channel.close()
        member.is_gone = True
        self._members.remove(member)
        seats, member.seats = list(member.seats.values()), {}
        for seat in seats:
            calling_ae, host = self._places.leave(seat) or ("", "")
            message = seat.message
            if message is None:
                continue
            try:
                self._seat(message, calling_ae, host)
            except NobodyServes:
                seat.let_go()
        if self._leader is member:
            self._leader = None
            self._appoint()  # it compares spool and rows as it begins
        elif self._leader is not None and member.is_ready:
            self._leader.tell(COMPARE)
        self._on_gone()
