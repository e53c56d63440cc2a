"""Files of TLS that are missing, unreadable, expired or do not fit: one line each, from listen, up, send and doctor."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from prometheus_client.core import GaugeMetricFamily

from firstread.clock import utcnow
from firstread.dicom.sender import echo
from firstread.metrics.state import read_tls_files
from firstread.processes.ports import listen_on
from firstread.settings import Settings
from firstread.storage.home import prepare_home
from firstread.tls.certificates import CertificateError
from firstread.tls.client import ClientTls
from firstread.tls.files import TlsFiles
from firstread.tls.server import ServerTls, expiry_warning, server_context, warning_at_start
from firstread.up.checks import prepare
from firstread_cli.doctor.tls import check_tls
from tests.builders.authority import Authority
from tests.builders.listening import listening, rows, small_files
from tests.builders.site import database_in
from tests.builders.timing import free_port

Run = Callable[..., list[str]]
MakeSettings = Callable[..., Settings]
LEFT, UP = "firstread_tls_certificate_left_seconds", "firstread_tls_certificate_up"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def wrong(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], str]]:
    """Settings that cannot be used, and what is to be said of each."""
    folder = tmp_path_factory.mktemp("files")
    good = authority.issue("good")
    other = authority.issue("other", key=rsa.generate_private_key(65537, 2048))
    locked = authority.issue("locked", password=b"geheim")
    junk, missing = folder / "junk.pem", folder / "missing.pem"
    junk.write_text("no certificate", encoding="ascii")
    cert, key = good.cert_file, good.key_file
    return {
        "no certificate there": ({"tls_cert": missing}, f"{missing} cannot be read (No such file or directory)"),
        "no key there": (
            {"tls_cert": cert, "tls_key": missing},
            f"{missing} cannot be read (No such file or directory)",
        ),
        "no certificate in it": ({"tls_cert": junk, "tls_key": key}, f"{junk} holds no certificate (PEM)"),
        "no key in it": ({"tls_cert": cert, "tls_key": junk}, f"{junk} holds no private key (PEM)"),
        "no key in the one file": (
            {"tls_cert": cert},
            f"{cert} holds no private key (PEM); name the file of its own that does",
        ),
        "another key": (
            {"tls_cert": cert, "tls_key": other.key_file},
            f"the key in {other.key_file} is not that of the certificate in {cert}",
        ),
        "a key with a password": (
            {"tls_cert": cert, "tls_key": locked.key_file},
            f"the key in {locked.key_file} has a password; write it without one (openssl pkey), for its owner only",
        ),
        "a folder": ({"tls_cert": cert, "tls_key": folder}, f"{folder} cannot be read (Is a directory)"),
        "no authority in it": (
            {"tls_cert": cert, "tls_key": key, "tls_client_ca": junk},
            f"{junk} holds no certificate of an authority (PEM)",
        ),
        "no authority there": (
            {"tls_cert": cert, "tls_key": key, "tls_client_ca": missing},
            f"{missing} cannot be read (No such file or directory)",
        ),
    }


def test_each_is_said_in_one_line(wrong: dict[str, tuple[dict[str, Any], str]], make_settings: MakeSettings) -> None:
    for what, (files, words) in wrong.items():
        settings = make_settings(**files)
        assert settings.tls_files is not None
        with pytest.raises(CertificateError) as raised:
            server_context(settings.tls_files)
        assert str(raised.value) == words, what
        assert warning_at_start(settings.tls_files).startswith(words), what
        assert [(check.status, check.detail) for check in check_tls(settings)] == [("fail", words)], what


def test_files_that_cannot_be_used_keep_no_plain_port_closed(
    authority: Authority,
    wrong: dict[str, tuple[dict[str, Any], str]],
    make_settings: MakeSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A host that starts again at night takes images; TLS is served as soon as the files are mended."""
    files, _ = wrong["another key"]
    mended = authority.issue("mended")
    cert, key = tmp_path / "served.pem", tmp_path / "served.key"
    shutil.copy(files["tls_cert"], cert)
    shutil.copy(files["tls_key"], key)
    settings = make_settings(dicom_port=0, dicom_tls_port=0, tls_cert=cert, tls_key=key)
    prepare_home(settings, inbox=True)
    prepare(settings.model_copy(update={"broker_url": ""}))[1].dispose()
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("TLS: the key in")]
    client = ClientTls(authority.ca_file, server_name="localhost")
    with listening(settings) as service:
        where: dict[str, Any] = {"host": "127.0.0.1", "called_ae": "FIRSTREAD"}
        assert echo(**where, port=service.port) == ""
        assert echo(**where, port=service.tls_port, tls=client) != ""
        shutil.copy(mended.cert_file, cert)
        shutil.copy(mended.key_file, key)
        assert echo(**where, port=service.tls_port, tls=client) == ""
    db = database_in(settings)
    assert rows(db, "SELECT reason, host FROM association_refusal") == [("tls_failed", "127.0.0.1")]
    db.dispose()


def test_the_figures_are_those_of_files_that_can_be_used(
    authority: Authority, wrong: dict[str, tuple[dict[str, Any], str]], make_settings: MakeSettings
) -> None:
    def figures(**files: Any) -> dict[str, list[float]]:
        settings, found = make_settings(**files), {name: GaugeMetricFamily(name, "-") for name in (LEFT, UP)}
        assert settings.tls_files is not None
        read_tls_files(settings.tls_files, found)
        left, up = found[LEFT].samples, found[UP].samples
        return {"days": [sample.value // 86400 for sample in left], "up": [sample.value for sample in up]}

    good, late = authority.issue("good"), authority.issue("late", days=-3)
    assert figures(tls_cert=good.cert_file, tls_key=good.key_file) == {"days": [20], "up": [1]}
    assert figures(tls_cert=late.cert_file, tls_key=late.key_file) == {"days": [-3], "up": [0]}
    assert figures(**wrong["another key"][0]) == {"days": [], "up": [0]}


def test_a_valid_certificate_gives_no_place_to_one_that_is_not(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = tmp_path / "served.pem", tmp_path / "served.key"
    failures: list[int] = []

    def put(days: float, begins_days: float = -60.0) -> None:
        made = authority.issue("made", days=days, begins_days=begins_days)
        shutil.copy(made.cert_file, cert)
        shutil.copy(made.key_file, key)

    put(days=-5)
    tls = ServerTls(TlsFiles(cert, key), lambda: failures.append(1))
    expired = tls.context()
    put(days=-3)
    with caplog.at_level(logging.INFO):
        assert tls.context() is not expired and "expired on" in caplog.text and not failures
        put(days=5)
        good = tls.context()
        assert good is not expired and "was read again" in caplog.text
        caplog.clear()
        put(days=40, begins_days=10)
        assert tls.context() is good and tls.context() is good
        (record,) = caplog.records
        assert (record.levelno, len(failures)) == (logging.WARNING, 1)
        assert "is valid from" in record.message and "stays in use while it is valid" in record.message
        put(days=-2)
        assert tls.context() is good
        now = utcnow() + timedelta(days=6)
        monkeypatch.setattr("firstread.tls.certificates.utcnow", lambda: now)
        caplog.clear()
        assert tls.context() is not good, "none of both is valid: the files say what is wanted"
        assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_port_for_tls_that_is_taken(authority: Authority, run: Run, make_settings: MakeSettings) -> None:
    good = authority.issue("good")
    with listen_on("127.0.0.1", 0, "X") as holder:
        ports = {"dicom_port": free_port(), "dicom_tls_port": holder.getsockname()[1]}
        (line,) = run("listen", make_settings(tls_cert=good.cert_file, tls_key=good.key_file, **ports))
    assert "set FIRSTREAD_DICOM_TLS_PORT to another port" in line


@pytest.mark.parametrize(("days", "begins", "words"), [(-3, -60, "expired on"), (30, 2, "is valid from")])
def test_a_certificate_outside_of_its_time_serves_and_is_said(
    days: int,
    begins: int,
    words: str,
    authority: Authority,
    make_settings: MakeSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    late = authority.issue("late", days=days, begins_days=begins)
    settings = make_settings(dicom_port=0, dicom_tls_port=0, tls_cert=late.cert_file, tls_key=late.key_file)
    assert settings.tls_files is not None and words in expiry_warning(settings.tls_files)
    assert next(check_tls(settings)).status == "fail"
    prepare_home(settings, inbox=True)
    ready, db = prepare(settings.model_copy(update={"broker_url": ""}))
    db.dispose()
    assert ready.dicom_tls_port > 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("TLS: ")]
    assert words in line


def test_doctor_speaks_of_certificate_and_port(authority: Authority, make_settings: MakeSettings) -> None:
    """The days that are left, the certificate that is shown, a C-ECHO; and a port that is dead."""
    good, another = authority.issue("good", days=40), authority.issue("another", days=10)
    ports = {"dicom_port": 0, "dicom_tls_port": 0}
    settings = make_settings(tls_cert=good.cert_file, tls_key=good.key_file, **ports)
    assert list(check_tls(make_settings())) == []
    with listening(settings) as service:
        running = settings.model_copy(update={"dicom_tls_port": service.tls_port})
        certificate, port = check_tls(running)
        assert (certificate.status, port.status) == ("ok", "ok"), (certificate, port)
        assert "valid for 40 days more" in certificate.detail and "answers C-ECHO by TLS" in port.detail
        files = {"tls_cert": another.cert_file, "tls_key": another.key_file}
        certificate, port = check_tls(running.model_copy(update=files))
        assert (certificate.status, port.status) == ("warn", "warn"), (certificate, port)
        assert "valid for 10 days more" in certificate.detail and "another certificate" in port.detail
        _, port = check_tls(running.model_copy(update={"tls_client_ca": authority.ca_file}))
        assert port.status == "ok" and "show a certificate of" in port.detail
    good.key_file.chmod(0o640)
    _, key, port = check_tls(running)
    assert key.status == "warn" and "may read" in key.detail
    assert port.status == "fail" and "Connection refused" in port.detail


def test_send_says_what_is_missing(run: Run, make_settings: MakeSettings, authority: Authority, tmp_path: Path) -> None:
    files = [str(path) for path in small_files(tmp_path / "ct", 1)]
    good = authority.issue("good")
    settings = make_settings(dicom_port=0, dicom_tls_port=0, tls_cert=good.cert_file, tls_key=good.key_file)
    (line,) = run("send", settings, *files, "--tls", "--ca", str(good.key_file))
    assert line == f"firstread: {good.key_file} holds no certificate of an authority (PEM)"
    assert "--tls" in run("send", settings, *files, "--ca", str(authority.ca_file), code=2)[-1]
    with listening(settings) as service:
        assert f"port {service.tls_port} of 127.0.0.1 speaks TLS: --tls" in run(
            "send", settings, *files, "--port", str(service.tls_port)
        )
        tls = ("--tls", "--ca", str(authority.ca_file), "--port", str(service.tls_port))
        assert run("send", settings, *files, *tls, code=0) == ["1 of 1 stored"]
