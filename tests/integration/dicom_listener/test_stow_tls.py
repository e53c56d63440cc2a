"""The STOW-RS door with TLS: the listener's certificate, client certificates, mute handshakes."""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from dicom_listener.service import ListenerService
from firstread.settings import Settings
from firstread_cli.doctor.intake import check_stow
from tests.builders.authority import Authority
from tests.builders.listening import QUICK, listening, outcomes, rows, small_series
from tests.builders.servers import Certificate
from tests.builders.stow import CONTENT_TYPE, body_of, file_of
from tests.builders.timing import free_port, until

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(make_settings: MakeSettings, broker: str, authority: Authority) -> MakeSettings:
    """Makes settings with the door open and a certificate."""
    ours = authority.issue("listener")
    files = {"tls_cert": ours.cert_file, "tls_key": ours.key_file, "dicom_tls_port": 0}
    return functools.partial(make_settings, **QUICK, **files, broker_url=broker, stow_port=free_port())


@pytest.fixture
def service(secure: MakeSettings, authority: Authority) -> Iterator[ListenerService]:
    """A door that lets in who shows a certificate of one name."""
    with listening(secure(tls_client_ca=authority.ca_file, tls_client_names=("router",))) as running:
        yield running


def _post(service: ListenerService, authority: Authority, shown: Certificate | None = None) -> int:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if shown is not None:
        context.load_cert_chain(shown.cert_file, shown.key_file)
    body = body_of([file_of(ds) for ds in small_series(3, 300)])
    url = f"https://localhost:{service.settings.stow_port}/studies"
    return httpx.post(url, content=body, headers={"Content-Type": CONTENT_TYPE}, verify=context, timeout=30).status_code


def test_a_request_over_tls(secure: MakeSettings, authority: Authority) -> None:
    with listening(secure()) as service:
        assert _post(service, authority) == 200
        assert [check.status for check in check_stow(service.settings)] == ["ok"]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{service.settings.stow_port}/healthz")
        service.writer.flush()
        assert outcomes(service.db) == {"stored": 3}
        found = "SELECT reason FROM association_refusal"
        assert until(lambda: rows(service.db, found)) == [("not_tls",)]


def test_a_certificate_lets_in_and_no_other_does(
    service: ListenerService, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    assert _post(service, authority, authority.issue("good", common_name="router")) == 200
    for shown in (None, authority.issue("other", "other"), authority.issue("late", common_name="router", days=-2)):
        with pytest.raises(httpx.TransportError):
            _post(service, authority, shown)
    found = "SELECT DISTINCT reason FROM association_refusal"
    until(lambda: len(rows(service.db, found)) == 3, what=lambda: str(rows(service.db, found)))
    said = ("its certificate names other, firstread", "it showed no certificate", "certificate has expired")
    until(lambda: [words for words in said if words not in caplog.text] == [], what=lambda: caplog.text)
    assert [check.status for check in check_stow(service.settings)] == ["ok"]


def test_mute_handshakes_keep_nobody_out(secure: MakeSettings, authority: Authority) -> None:
    with listening(secure(network_timeout_s=2.0)) as service, ExitStack() as stack:
        address = ("127.0.0.1", service.settings.stow_port)
        mute = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(64)]
        for sock in mute[::2]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert _post(service, authority) == 200
        assert [sock.recv(1) for sock in mute[1::2]] == [b""] * 32


def test_a_changed_certificate_counts_at_once(secure: MakeSettings, authority: Authority, tmp_path: Path) -> None:
    with listening(secure()) as service:
        assert _post(service, authority) == 200
        other = Authority(tmp_path / "other")
        made = other.issue("listener")
        for name, path in (("tls_key", made.key_file), ("tls_cert", made.cert_file)):
            getattr(service.settings, name).write_bytes(path.read_bytes())
        assert _post(service, other) == 200


def test_plain_for_a_proxy_before_it(secure: MakeSettings) -> None:
    with listening(secure(stow_tls=False)) as service:
        assert httpx.get(f"http://127.0.0.1:{service.settings.stow_port}/healthz").status_code == 200
