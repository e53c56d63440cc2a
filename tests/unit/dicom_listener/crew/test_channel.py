"""Messages between the processes of a listener: whole, with the connections that they hand on."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dicom_listener.crew.channel import GUEST, INLINE_BYTES, Channel, Message


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("size", [0, 300, INLINE_BYTES, INLINE_BYTES + 1, 512 * 2**10])
def test_a_connection_travels_with_what_was_read_from_it(ends: tuple[Channel, Channel], size: int) -> None:
    ours, theirs = ends
    one, other = socket.socketpair()
    data = bytes(range(256)) * (size // 256 + 1)
    ours.send(Message(GUEST, {"number": 7, "host": "10.0.0.1"}, data[:size], one), wait=False)
    one.close()
    got = theirs.receive()
    assert got is not None
    assert (got.kind, got.fields, got.data) == (GUEST, {"number": 7, "host": "10.0.0.1"}, data[:size])
    assert got.sock is not None
    got.sock.sendall(b"hello")
    assert other.recv(10) == b"hello"
    got.sock.close()
    assert other.recv(10) == b"", "nobody else has it open"
    other.close()


def test_messages_stay_apart(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for number in range(3):
        ours.send(Message("left", {"number": number}))
    assert [getattr(theirs.receive(), "fields", None) for _ in range(3)] == [{"number": n} for n in range(3)]


def test_the_end_of_the_other_is_seen(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.close()
    assert theirs.receive() is None
    with pytest.raises(OSError):
        theirs.send(Message("ready"))


def test_one_that_does_not_read_is_not_waited_for(ends: tuple[Channel, Channel]) -> None:
    ours, _ = ends
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            ours.send(Message("wake", {}, bytes(1000)), wait=False)
