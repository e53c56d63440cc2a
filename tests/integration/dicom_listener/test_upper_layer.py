"""Peers that misbehave below DICOM's messages cost bounded memory, time and places, and each is told why it must go."""

from __future__ import annotations

import logging
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dicom_listener.peers.limits import COMMAND_BYTES
from dicom_listener.scp import association
from dicom_listener.service import ListenerService
from firstread.settings import Settings
from tests.builders.listening import listening, rows
from tests.builders.peers import (
    ABORTED,
    REJECTED,
    answer,
    associate,
    connect,
    fragment,
    pdu,
    request,
    seconds_until_accepted,
    store_command,
)
from tests.builders.timing import stays, until

MakeSettings = Callable[..., Settings]
OTHER_HOST = "127.0.0.2"
WITHIN_S = 1.0
AFTER_A_FLOOD_S = 10.0


@pytest.fixture(params=["fragments read here", "fragments read by pynetdicom"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to read P-DATA-TF PDUs keep the same promises."""
    if request.param == "fragments read by pynetdicom":
        monkeypatch.setattr(association, "reads_fragments", lambda: False)


@pytest.fixture
def service(quick: MakeSettings) -> Iterator[ListenerService]:
    """A listener whose patience is short."""
    with listening(quick(network_timeout_s=2.0)) as running:
        yield running


def quickest(port: int, source: str = "127.0.0.1") -> float:
    """Of three tries, since the machine may be busy."""
    return min(seconds_until_accepted(port, source) for _ in range(3))


def refusals(service: ListenerService) -> dict[str, int]:
    return {
        str(k): int(v)
        for k, v in rows(service.db, "SELECT reason, sum(count) FROM association_refusal GROUP BY reason")
    }


BAD_REQUESTS = {
    "even context ID": request(context_id=2),
    "user identity of no type": request(identity=b"\0\0\0\1a\0\0"),
    "user identity of type 99": request(identity=b"\x63\0\0\1a\0\0"),
    "abstract syntax that is no UID": request(abstract=b"junk\xff" * 20),
    "an item longer than the PDU": request(more=b"\x20\0\xff\xff"),
    "an item of no type": request(more=b"\x99\0\0\0"),
    "a short one": pdu(1, b"abcd"),
    "one that announces 64 MiB": struct.pack(">BBI", 1, 0, 64 * 2**20),
    "more items than any has": request(more=b"\x10\0\0\0" * 50_000),
    "a P-DATA-TF": fragment(3, store_command()),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_a_bad_request_is_aborted_or_rejected_and_holds_nothing(
    service: ListenerService, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with connect(service.port) as sock:
            sock.sendall(BAD_REQUESTS[what])
            got = answer(sock)
        for _ in range(70):
            with connect(service.port) as sock:
                sock.sendall(BAD_REQUESTS[what])
        assert seconds_until_accepted(service.port) < AFTER_A_FLOOD_S
        if got[0] != 2:  # where pynetdicom finds nothing wrong with it, it is served
            assert got[0] in (ABORTED, REJECTED)
            until(lambda: refusals(service))
            assert set(refusals(service)) <= {"bad_request", "too_many_connections"}
            lines = [r.getMessage() for r in caplog.records if "association was refused" in r.getMessage()]
            assert lines and all("127.0.0.1" in line for line in lines) and len(lines) <= 2
    until(lambda: len(service.scp.places) == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_unsupported_version_is_rejected(service: ListenerService) -> None:
    with connect(service.port) as sock:
        sock.sendall(request(version=2))
        assert answer(sock) == bytes([REJECTED, 0, 0, 0, 0, 4, 0, 1, 2, 2])


BAD_PDUS = {
    "a PDU of no type": pdu(9, bytes(4)),
    "another A-ASSOCIATE-RQ": request(),
    "a P-DATA-TF that announces 64 MiB": struct.pack(">BBI", 4, 0, 64 * 2**20),
    "a release that announces 1 MiB": struct.pack(">BBI", 5, 0, 2**20),
    "an item longer than its PDU": pdu(4, struct.pack(">IBB", 100, 1, 3) + b"abcd"),
    "an item without a header": pdu(4, b"\0\0"),
    "an item of no length": pdu(4, struct.pack(">IBB", 0, 1, 3)),
    "a command that is none": fragment(3, b"not a command"),
    "a context that was not accepted": fragment(3, store_command(), context_id=3),
    "a data set without a command": fragment(2, b"data"),
    "a command within a data set": fragment(3, store_command()) + fragment(0, b"data") + fragment(3, store_command()),
    "a command without an end": fragment(1, bytes(16000)) * (COMMAND_BYTES // 16000 + 1),
}


@pytest.mark.parametrize("what", BAD_PDUS)
def test_a_bad_pdu_ends_its_association_with_an_abort(
    reader: None, service: ListenerService, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), associate(service.port) as sock:
        sock.sendall(BAD_PDUS[what])
        got = answer(sock)
        assert got[:1] == bytes([ABORTED]) and got[8] in (0, 2)
        until(lambda: len(service.scp.places) == 0)
        until(lambda: refusals(service))
    assert set(refusals(service)) <= {"bad_pdu", "command_too_long"}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not list(service.storage.spool.root.rglob("*.part"))


def test_halves_end_by_the_clock(reader: None, service: ListenerService) -> None:
    """However often a byte comes."""
    halves = [connect(service.port) for _ in range(3)]
    for sock, part in zip(halves, (b"\1\0\0", request()[:6], request()[:40]), strict=True):
        sock.sendall(part)
    inside = associate(service.port)
    inside.sendall(fragment(3, store_command()) + fragment(0, bytes(100))[:50])
    dripping, stop_event = associate(service.port), threading.Event()

    def drip() -> None:
        data = fragment(1, bytes(1000))
        for n in range(1000):
            try:
                dripping.sendall(data[n : n + 1])
            except OSError:
                return
            if stop_event.wait(0.1):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    try:
        for sock in (*halves, inside, dripping):
            assert answer(sock)[:1] == bytes([ABORTED])
        assert 1.5 < time.monotonic() - started < 10
    finally:
        stop_event.set()
        thread.join()
    until(lambda: refusals(service).get("slow") == 5)
    until(lambda: len(service.scp.places) == 0)
    for sock in (*halves, inside, dripping):
        sock.close()


def test_a_data_set_that_hardly_comes(reader: None, quick: MakeSettings) -> None:
    """Each of its PDUs comes in time; the whole does not."""
    with listening(quick(network_timeout_s=1.0)) as service, associate(service.port) as sock:
        sock.sendall(fragment(3, store_command()))
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < 20:
                sock.sendall(fragment(0, bytes(10)))
                time.sleep(0.05)
        until(lambda: refusals(service) == {"slow": 1})


@pytest.mark.parametrize("titles", ["one title", "many titles"])
def test_another_host_is_accepted_while_one_stalls_in_every_place(quick: MakeSettings, titles: str) -> None:
    with listening(quick()) as service:
        _stall(service, titles)


def _stall(service: ListenerService, titles: str) -> None:
    held: list[socket.socket] = []
    for number in range(64):
        sock = connect(service.port)
        sock.sendall(request(b"BAD" if titles == "one title" else b"BAD%d" % number))
        held.append(sock)
    accepted = [sock for sock in held if answer(sock)[:1] == b"\2"]
    assert len(accepted) == (48 if titles == "one title" else 64)
    for sock in accepted:
        sock.sendall(fragment(3, store_command()) + struct.pack(">BBI", 4, 0, 1000) + bytes(10))
    assert quickest(service.port, OTHER_HOST) < WITHIN_S
    for sock in held:
        sock.close()
    until(lambda: len(service.scp.places) == 0)


def test_another_host_is_accepted_while_one_says_nothing(quick: MakeSettings) -> None:
    with listening(quick()) as service:
        mute = [connect(service.port) for _ in range(300)]
        for sock in mute[::2]:
            sock.sendall(b"\1\0\0")
        assert quickest(service.port, OTHER_HOST) < WITHIN_S
        assert quickest(service.port) < WITHIN_S
        until(lambda: refusals(service).get("too_many_connections"))
        for sock in mute:
            sock.close()


def test_a_balancer_speaks_for_its_hosts_and_a_stranger_does_not(quick: MakeSettings) -> None:
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 104\r\n"
    with listening(quick(trusted_proxies=("127.0.0.1",))) as service:
        with associate(service.port, first=header) as sock:
            sock.sendall(fragment(3, store_command(data_set_type=0x0101)))
            answer(sock)
        until(lambda: rows(service.db, "SELECT source_name FROM intake_refusal") == [("192.0.2.7",)])
        with associate(service.port):
            pass
        with connect(service.port, OTHER_HOST) as sock:
            sock.sendall(header + request())
            assert answer(sock)[:1] == bytes([ABORTED])


def test_a_long_request_that_is_sound_is_accepted(service: ListenerService) -> None:
    with connect(service.port) as sock:
        role = struct.pack(">BBHH", 0x54, 0, 29, 25) + b"1.2.840.10008.5.1.4.1.1.2" + b"\1\0"
        sock.sendall(request(more=struct.pack(">BBH", 0x50, 0, len(role)) + role))
        assert answer(sock)[:1] in (b"\2", bytes([ABORTED]))


def test_few_descriptors_leave_the_inbox_its_own(quick: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (200, 200))
    with listening(quick()) as service:
        before = len(os.listdir("/proc/self/fd"))
        mute = [connect(service.port) for _ in range(150)]
        stays(lambda: len(os.listdir("/proc/self/fd")) - before - len(mute) <= 100, 1.0)
        for sock in mute:
            sock.close()
