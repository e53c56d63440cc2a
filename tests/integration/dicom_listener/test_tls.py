"""TLS beside the plain port: DCMTK's profiles, certificates that are wrong in every way, and peers that say nothing."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from dicom_listener.service import ListenerService
from firstread.dicom.sender import echo, send_paths
from firstread.settings import Settings
from firstread.tls.client import ClientTls, speaks_tls
from tests.builders.authority import Authority
from tests.builders.listening import listening, outcomes, rows, small_files
from tests.builders.peers import ABORTED, ACCEPTED, answer, connect, fragment, pdu, request, store_command
from tests.builders.programs import need
from tests.builders.servers import Certificate
from tests.builders.timing import until

MakeSettings = Callable[..., Settings]
HELLO = b"\x16\x03\x01\x02\x00\x01"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Certificate:
    """What the listener shows."""
    return authority.issue("listener")


@pytest.fixture
def quick_tls(quick: MakeSettings, shown: Certificate) -> MakeSettings:
    """Makes settings with TLS, on free ports."""
    return functools.partial(quick, dicom_port=0, dicom_tls_port=0, tls_cert=shown.cert_file, tls_key=shown.key_file)


@pytest.fixture
def service(quick_tls: MakeSettings) -> Iterator[ListenerService]:
    with listening(quick_tls()) as running:
        yield running


def refusals(service: ListenerService) -> dict[str, int]:
    query = "SELECT reason, sum(count) FROM association_refusal GROUP BY reason"
    return {str(reason): int(count) for reason, count in rows(service.db, query)}


def storescu(service: ListenerService, *options: str | Path, files: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [need("storescu", "dcmtk"), *options, "127.0.0.1", str(service.tls_port), *files]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def within_tls(port: int, ca_file: Path, first: bytes = b"", source: str = "127.0.0.1") -> ssl.SSLSocket:
    """A connection after its handshake."""
    sock = connect(port, source)
    sock.sendall(first)
    return ClientTls(ca_file).context().wrap_socket(sock, server_hostname="localhost")


@pytest.mark.parametrize(
    ("profile", "version"), [("+py", "TLSv1.3"), ("+px", "TLSv1.3"), ("+pz", "TLSv1.2")], ids=["nd", "bcp195", "ex"]
)
def test_every_profile_of_bcp_195_by_dcmtk(
    service: ListenerService, authority: Authority, tmp_path: Path, profile: str, version: str
) -> None:
    files = small_files(tmp_path / "ct", 2, study=profile)
    done = storescu(service, "-d", "+tla", profile, "+cf", authority.ca_file, files=files)
    assert done.returncode == 0, done.stderr
    assert f"Protocol    : {version}" in done.stdout + done.stderr
    until(lambda: outcomes(service.db) == {"stored": 2})
    assert rows(service.db, "SELECT DISTINCT source, calling_ae, source_name FROM received_instance") == [
        ("dicom", "STORESCU", "127.0.0.1")
    ]
    assert refusals(service) == {}


def test_both_ports_side_by_side_and_large_objects(
    service: ListenerService, authority: Authority, tmp_path: Path
) -> None:
    """Objects of several megabytes, four associations at once, byte for byte as by the plain port."""
    files = small_files(tmp_path / "ct", 8, size=1024, study="large")
    address: dict[str, Any] = {"host": "127.0.0.1", "called_ae": "X", "associations": 4}
    assert all(o.ok for o in send_paths(files, port=service.tls_port, tls=ClientTls(authority.ca_file), **address))
    assert all(o.ok for o in send_paths(files, port=service.port, **address))
    until(lambda: outcomes(service.db) == {"stored": 8, "repeat": 8})


def test_a_good_sender_is_served_while_64_say_nothing(
    service: ListenerService, authority: Authority, tmp_path: Path
) -> None:
    files = small_files(tmp_path / "ct", 1)

    def seconds() -> float:
        mute = [connect(service.tls_port) for _ in range(64)]
        for sock in mute[::4]:
            sock.sendall(HELLO)
        started = time.monotonic()
        done = storescu(service, "+tla", "+cf", authority.ca_file, files=files)
        took_s = time.monotonic() - started
        assert done.returncode == 0, done.stderr
        for sock in mute:
            sock.close()
        return took_s

    until(lambda: seconds() < 1.0, limit_s=60)  # the machine may be busy


def test_who_says_nothing_is_told_to_go(quick_tls: MakeSettings, authority: Authority) -> None:
    """Before the handshake, within it, and after it."""

    with listening(quick_tls(network_timeout_s=1.5)) as service:

        def is_told_after_the_handshake() -> bool:
            with contextlib.suppress(OSError), within_tls(service.tls_port, authority.ca_file) as sock:
                return answer(sock)[:1] == bytes([ABORTED])
            return False  # a machine so busy that the handshake took all of the time

        outside, inside = connect(service.tls_port), connect(service.tls_port)
        inside.sendall(HELLO)
        until(is_told_after_the_handshake, limit_s=60)
        assert answer(outside)[:1] == bytes([ABORTED])
        assert inside.recv(1) == b""
        until(lambda: set(refusals(service)) == {"silent", "slow"})
        for sock in (outside, inside):
            sock.close()


def test_a_plain_sender_at_the_wrong_port_is_told(service: ListenerService) -> None:
    with connect(service.tls_port) as sock:
        sock.sendall(request())
        assert answer(sock)[:1] == bytes([ABORTED])
    assert speaks_tls("127.0.0.1", service.tls_port) and not speaks_tls("127.0.0.1", service.port)
    problem = echo(host="127.0.0.1", port=service.port, called_ae="X", timeout_s=5, tls=ClientTls())
    assert problem == "no connection: it does not speak TLS on this port"
    until(lambda: set(refusals(service)) == {"not_tls", "tls"})


def test_places_limits_and_balancers_hold_within_tls(quick_tls: MakeSettings, authority: Authority) -> None:
    """The header of a balancer comes before the handshake; what is against the protocol is answered within it."""
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 104\r\n"
    with listening(quick_tls(trusted_proxies=("127.0.0.1",), max_associations=1)) as service:
        with within_tls(service.tls_port, authority.ca_file, header) as sock:
            sock.sendall(request())
            assert answer(sock)[:1] == bytes([ACCEPTED])
            with within_tls(service.tls_port, authority.ca_file, header) as other:
                other.sendall(request())
                assert answer(other)[7:10] == bytes([2, 3, 2]), "no place: transient, local limit exceeded"
            sock.sendall(fragment(3, store_command(data_set_type=0x0101)))
            answer(sock)
            sock.sendall(pdu(5, bytes(4)))
            assert answer(sock)[:1] == b"\6"
        until(lambda: rows(service.db, "SELECT source_name FROM intake_refusal") == [("192.0.2.7",)])
        until(lambda: len(service.scp.places) == 0)
        with within_tls(service.tls_port, authority.ca_file) as sock:
            sock.sendall(fragment(3, store_command()))
            assert answer(sock)[:1] == bytes([ABORTED])
        with connect(service.tls_port, "127.0.0.2") as stranger:
            stranger.sendall(header)
            assert answer(stranger)[:1] == bytes([ABORTED])
        until(lambda: set(refusals(service)) == {"too_many_associations", "bad_request", "not_tls"})


def test_the_last_word_reaches_a_peer_that_goes_on_sending(service: ListenerService, authority: Authority) -> None:
    for junk in (pdu(9, bytes(4)) + bytes(300_000), pdu(9, bytes(4))):
        with within_tls(service.tls_port, authority.ca_file) as sock:
            sock.sendall(request())
            assert answer(sock)[:1] == bytes([ACCEPTED])
            sock.sendall(junk)
            assert answer(sock)[:1] == bytes([ABORTED])
    with within_tls(service.tls_port, authority.ca_file) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n" + bytes(100_000))
        assert answer(sock)[:1] == bytes([ABORTED])
    until(lambda: refusals(service) == {"bad_pdu": 2, "not_dicom": 1})


def test_hellos_with_other_bytes_end_and_break_nothing(
    service: ListenerService, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """A real ClientHello, cut or with some bytes changed, sixty times; the next good one is served."""
    hello, chance = client_hello(authority.ca_file), random.Random(7)
    with caplog.at_level(logging.WARNING):
        for number in range(60):
            data = bytearray(hello)
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(2, len(data))] = chance.randrange(256)
            with connect(service.tls_port) as sock, contextlib.suppress(OSError):
                sock.sendall(data[: chance.randrange(3, len(data))] if number % 3 == 0 else data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        with within_tls(service.tls_port, authority.ca_file) as sock:
            sock.sendall(request())
            assert answer(sock)[:1] == bytes([ACCEPTED])
    until(lambda: refusals(service))
    assert set(refusals(service)) <= {"tls_failed", "tls_versions", "bad_request"}
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "tls"])
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def client_hello(ca_file: Path) -> bytes:
    """The first bytes of a client of TLS 1.3."""
    outgoing = ssl.MemoryBIO()
    client = ClientTls(ca_file).context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_nothing_stays_behind(service: ListenerService, authority: Authority) -> None:
    """Sockets and threads go with their connections, however these end."""
    before, count = sockets(), 12
    for number in range(count):
        sock = within_tls(service.tls_port, authority.ca_file)
        if number % 3:
            sock.sendall(request())
            assert answer(sock)[:1] == bytes([ACCEPTED])
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        sock.close()
    until(lambda: len(service.scp.places) == 0)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "tls"])
    until(lambda: sockets() < before + count)  # each takes three while it lasts


def sockets() -> int:
    """How many this process has."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return count


# Certificates


@pytest.fixture
def guarded(quick_tls: MakeSettings, authority: Authority) -> Iterator[ListenerService]:
    """A listener that lets in whoever shows a certificate of two names."""
    names = ("ct7.hospital", "CT8")
    with listening(quick_tls(tls_client_ca=authority.ca_file, tls_client_names=names)) as running:
        yield running


def test_client_certificates(
    guarded: ListenerService, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path / "stranger", "Test authority").issue("stranger", "ct7.hospital")
    shown = {
        "stored": authority.issue("ct7", "ct7.hospital"),
        "stored, by its common name": authority.issue("ct8", "x.hospital", common_name="ct8"),
        "client_certificate_expired": authority.issue("expired", "ct7.hospital", days=-2),
        "client_certificate_invalid": stranger,
        "client_name_not_allowed": authority.issue("ct9", "ct9.hospital"),
    }
    files = small_files(tmp_path / "ct", 1)
    with caplog.at_level(logging.WARNING):
        for outcome, certificate in shown.items():
            own = ("+tls", certificate.key_file, certificate.cert_file)
            done = storescu(guarded, *own, "+cf", authority.ca_file, files=files)
            assert (done.returncode == 0) is outcome.startswith("stored"), (outcome, done.stderr)
        assert storescu(guarded, "+tla", "+cf", authority.ca_file, files=files).returncode != 0
        expected = {reason for reason in shown if not reason.startswith("stored")} | {"client_certificate_missing"}
        until(lambda: set(refusals(guarded)) == expected)
        until(lambda: "ct9.hospital" in caplog.text)
    assert "(client_name_not_allowed): host 127.0.0.1, from - to -; its certificate names ct9.hospital" in caplog.text
    until(lambda: outcomes(guarded.db) == {"stored": 1, "repeat": 1})


def test_our_sender_says_what_is_wrong(guarded: ListenerService, authority: Authority, tmp_path: Path) -> None:
    good, expired = authority.issue("ct7", "ct7.hospital"), authority.issue("old", "ct7.hospital", days=-2)
    other = Authority(tmp_path / "other", "Another").ca_file
    files = small_files(tmp_path / "ct", 1)

    def message(tls: ClientTls) -> str:
        address: dict[str, Any] = {"host": "127.0.0.1", "port": guarded.tls_port, "called_ae": "X", "timeout_s": 10}
        return send_paths(files, tls=tls, **address)[0].message

    assert message(ClientTls(authority.ca_file, good.cert_file, good.key_file)) == "stored"
    assert message(ClientTls(authority.ca_file)) == "no connection: it wants a client certificate"
    assert "does not accept our certificate" in message(
        ClientTls(authority.ca_file, expired.cert_file, expired.key_file)
    )
    assert "its certificate is not trusted: " in message(ClientTls(other, good.cert_file, good.key_file))
    named = message(ClientTls(authority.ca_file, good.cert_file, good.key_file, server_name="pacs.hospital"))
    assert "not trusted: Hostname mismatch" in named


def test_senders_that_do_not_trust_us_and_old_protocols(
    service: ListenerService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, other = small_files(tmp_path / "ct", 1), Authority(tmp_path / "other", "Another").ca_file
    assert storescu(service, "+tla", "+cf", other, files=files).returncode != 0
    assert storescu(service, "+tla", "-ic", "+pa", files=files).returncode != 0
    with connect(service.tls_port) as sock:
        sock.sendall(HELLO + b"junk" * 200)
        sock.recv(100)
    with caplog.at_level(logging.WARNING):
        until(lambda: refusals(service) == {"tls_distrusted": 1, "tls_versions": 1, "tls_failed": 1})


def test_files_are_read_again_when_they_change(
    quick_tls: MakeSettings, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new certificate counts for the next connection; one without its key leaves the one of before in use."""
    first, second = authority.issue("first"), authority.issue("second", key=rsa.generate_private_key(65537, 2048))
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(first.cert_file, cert_file)
    shutil.copy(first.key_file, key_file)

    def der(certificate: Certificate) -> bytes:
        return ssl.PEM_cert_to_DER_cert(certificate.cert_file.read_text(encoding="ascii"))

    settings = quick_tls(tls_cert=cert_file, tls_key=key_file)
    with listening(settings) as service, caplog.at_level(logging.INFO):

        def shows() -> bytes | None:
            with within_tls(service.tls_port, authority.ca_file) as sock:
                return sock.getpeercert(binary_form=True)

        assert shows() == der(first)
        shutil.copy(second.cert_file, cert_file)
        assert shows() == der(first)
        assert "is not that of the certificate" in caplog.text and "stays in use" in caplog.text
        with within_tls(service.tls_port, authority.ca_file) as open_before:
            shutil.copy(second.key_file, key_file)
            assert shows() == der(second)
            open_before.sendall(request())
            assert answer(open_before)[:1] == bytes([ACCEPTED])
    assert caplog.text.count("stays in use") == 1 and "was read again" in caplog.text
