"""Who serves an association, and what becomes of the places of a process that is gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from dicom_listener.crew import seats
from dicom_listener.crew.channel import (
    COMPARE,
    CUT,
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
    Channel,
    Message,
)
from dicom_listener.crew.roster import Roster
from dicom_listener.crew.seats import Member
from dicom_listener.scp.places import Places
from dicom_listener.scp.visitors import Caller, Visitor
from tests.builders.timing import until

CALLER = Caller("CT1", "FIRSTREAD", 1)


class Process:
    """The other end of a channel: a process that does what a test says."""

    def __init__(self, roster: Roster, number: int) -> None:
        ours, self.channel = Channel.pair()
        self.channel.sock.settimeout(10)
        self.member = Member(number, ours)
        roster.add(self.member)

    def say(self, kind: str, **fields: object) -> None:
        self.channel.send(Message(kind, fields))

    def be_ready(self) -> None:
        self.say(READY)
        until(lambda: self.member.is_ready)

    def heard(self, kind: str) -> Message:
        """The next message, which is of this kind; questions that no test asked for are passed over."""
        while (got := self.channel.receive()) is not None and STALLS == got.kind != kind:
            pass
        assert got is not None
        assert got.kind == kind
        return got

    def die(self) -> None:
        self.channel.close()
        until(lambda: self.member.is_gone)


@pytest.fixture
def make_roster() -> Iterator[Callable[..., Roster]]:
    made: list[tuple[Roster, threading.Thread]] = []

    def make(count: int = 8, each: int = 8) -> Roster:
        roster = Roster(Places(count), each, lambda: None)
        thread = threading.Thread(target=roster.run)
        thread.start()
        made.append((roster, thread))
        return roster

    yield make
    for roster, thread in made:
        roster.stop()
        thread.join()


def let_in(roster: Roster, host: str = "10.0.0.1") -> socket.socket:
    """One that is let in; the peer's end of its connection."""
    ours, theirs = socket.socketpair()
    roster.let_in(Visitor(ours, (host, 104), host, 0.0, data=bytearray(b"request")), CALLER)
    return theirs


def two(roster: Roster) -> tuple[Process, Process]:
    """Two that are ready; the first leads."""
    first, second = Process(roster, 1), Process(roster, 2)
    first.be_ready()
    first.heard(LEAD)
    second.be_ready()
    return first, second


def test_nobody_is_let_in_before_a_process_is_ready(make_roster: Callable[..., Roster]) -> None:
    roster = make_roster()
    process = Process(roster, 1)
    assert not roster.has_room("CT1", "h")
    process.be_ready()
    assert roster.has_room("CT1", "h")


def test_the_least_busy_process_serves_and_the_limit_is_that_of_all(make_roster: Callable[..., Roster]) -> None:
    roster = make_roster(count=4)
    first, second = two(roster)
    peers = [let_in(roster) for _ in range(3)]
    taken = [first.heard(GUEST), second.heard(GUEST), first.heard(GUEST)]
    assert [m.data for m in taken] == [b"request"] * 3
    assert not roster.has_room("CT1", "10.0.0.1"), "three quarters are one caller's most"
    assert roster.has_room("CT2", "10.0.0.2")
    first.say(LEFT, number=taken[0].fields["number"])
    until(lambda: roster.has_room("CT1", "10.0.0.1"))
    assert len(peers) == 3


def test_places_of_a_dead_process_are_free_and_what_it_had_not_taken_goes_to_another(
    make_roster: Callable[..., Roster],
) -> None:
    roster = make_roster(count=2)
    first, second = two(roster)
    peer, other = let_in(roster), let_in(roster, "10.0.0.2")
    number = first.heard(GUEST).fields["number"]
    second.heard(GUEST)
    assert not roster.has_room("CT3", "10.0.0.3")
    first.die()
    again = second.heard(GUEST)
    second.heard(LEAD)
    assert again.fields["number"] == number
    assert again.sock is not None
    again.sock.sendall(b"yes")
    assert peer.recv(3) == b"yes"
    assert not roster.has_room("CT3", "10.0.0.3")
    second.say(TAKEN, number=number)
    second.say(LEFT, number=number)
    until(lambda: roster.has_room("CT3", "10.0.0.3"))
    other.close()


def test_what_a_dead_process_served_is_over(make_roster: Callable[..., Roster]) -> None:
    roster = make_roster(count=2)
    first, second = two(roster)
    peer = let_in(roster)
    guest = first.heard(GUEST)
    first.say(TAKEN, number=guest.fields["number"])
    until(lambda: all(seat.message is None for seat in first.member.seats.values()))
    assert guest.sock is not None
    guest.sock.close()
    first.die()
    second.heard(LEAD)
    assert peer.recv(1) == b"", "its sender sees the end"
    assert roster.has_room("CT1", "10.0.0.1")


def test_one_leads_at_a_time_and_is_told_of_ends_and_deaths(make_roster: Callable[..., Roster]) -> None:
    roster = make_roster()
    first, second = two(roster)
    second.say(ENDED)
    first.heard(WAKE)
    second.die()
    first.heard(COMPARE)
    third = Process(roster, 3)
    third.be_ready()
    first.die()
    third.heard(LEAD)


def test_a_process_that_does_not_take_what_it_is_given_gets_no_more(
    make_roster: Callable[..., Roster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "SLOW_S", 0.05)
    roster = make_roster()
    first, second = two(roster)
    peer = let_in(roster)
    until(lambda: not first.member.is_served_by)
    others = [let_in(roster) for _ in range(2)]
    for _ in range(2):
        second.say(TAKEN, number=second.heard(GUEST).fields["number"])
    peer.close()
    assert len(others) == 2


def test_one_that_stalls_is_cut_for_another_host_unless_it_goes_on(make_roster: Callable[..., Roster]) -> None:
    roster = make_roster(count=1)
    process = Process(roster, 1)
    process.be_ready()
    process.heard(LEAD)
    peer = let_in(roster)
    number = process.heard(GUEST).fields["number"]
    process.say(TAKEN, number=number)
    assert not roster.has_room("CT2", "10.0.0.2")
    process.heard(STALLS)
    process.say(STALLED, seconds={})
    assert not roster.make_room("10.0.0.2")
    process.say(STALLED, seconds={number: 5.0})
    until(lambda: roster.make_room("10.0.0.2"))
    assert process.heard(CUT).fields["number"] == number
    process.say(KEPT, number=number)
    until(lambda: not roster.has_room("CT2", "10.0.0.2"))
    peer.close()
