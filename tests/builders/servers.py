"""The other side, for real: Orthanc, an SMTP server, an HTTP server, certificates; all on loopback."""

from __future__ import annotations

import contextlib
import datetime
import functools
import http.server
import ipaddress
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.builders.pacs_page import orthanc_of_page
from tests.builders.programs import DICOMWEB_PLUGIN, need_orthanc
from tests.builders.timing import free_port, until

START_LIMIT_S = 30.0


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for localhost."""

    cert_file: Path
    key_file: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate that is valid for an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(cert_file, key_file)


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc."""

    dicom_port: int
    url: str

    def get(self, path: str) -> Any:
        """A resource of its REST API."""
        with httpx.Client(trust_env=False, timeout=20) as client:
            response = client.get(self.url + path)
        response.raise_for_status()
        return response.json()

    def instances(self) -> list[dict[str, Any]]:
        """Every stored instance with its main tags."""
        return list(self.get("/instances?expand"))

    def tags(self, instance_id: str) -> dict[str, Any]:
        """All tags of an instance by keyword."""
        return dict(self.get(f"/instances/{instance_id}/simplified-tags"))


@contextlib.contextmanager
def orthanc(
    folder: Path,
    *,
    tls: Certificate | None = None,
    routes_back_to: int | None = None,
    dicomweb: bool = False,
    ports: tuple[int, int] | None = None,
) -> Iterator[Orthanc]:
    """Run Debian's Orthanc in a folder; with its DICOMweb plug-in where that is installed, or
    for sure with ``dicomweb``.

    ``routes_back_to`` is the port of a Firstread on this machine: Orthanc is configured as ``docs/pacs.md`` says, and
    sends it every study whole as soon as it has been quiet, and again whenever something was added to it. ``ports`` are
    those of DICOM and HTTP: one that was stopped comes back where it was, with what it had.
    """
    program = need_orthanc(dicomweb=dicomweb)
    folder.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = ports or (free_port(), free_port())
    config: dict[str, Any] = {
        "Name": "TEST",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "StableAge": 1,
        "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.is_file() else [],
        "DicomWeb": {"Enable": True},
    }
    if tls is not None:
        config |= {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(tls.cert_file),
            "DicomTlsPrivateKey": str(tls.key_file),
            "DicomTlsTrustedCertificates": str(tls.cert_file),
            "DicomTlsRemoteCertificateRequired": False,
        }
    if routes_back_to is not None:
        config |= orthanc_of_page(folder, firstread_port=routes_back_to)
        config |= {"HttpPort": http_port, "DicomPort": dicom_port}
    path = folder / "orthanc.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(path)], stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    server = Orthanc(dicom_port, f"http://127.0.0.1:{http_port}")
    try:
        log_text = functools.partial((folder / "orthanc.log").read_text, errors="replace")
        until(lambda: process.poll() is not None or _answers(server), START_LIMIT_S, lambda: log_text()[-2000:])
        assert process.poll() is None, log_text()[-2000:]
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _answers(server: Orthanc) -> bool:
    try:
        server.get("/system")
    except httpx.HTTPError:
        return False
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", server.dicom_port)) == 0


@dataclass
class Recorder:
    """An HTTP server that keeps what it got and answers with ``statuses`` in turn, the last one for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    answer: bytes = b""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextlib.contextmanager
def recorder(
    statuses: list[int] | None = None, answer: bytes = b"", tls: Certificate | None = None
) -> Iterator[Recorder]:
    """Run a :class:`Recorder`."""
    log = Recorder(statuses=list(statuses or [200]), answer=answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status = log.statuses[min(len(log.requests), len(log.statuses) - 1)]
            log.requests.append((self.path, dict(self.headers.items()), body))
            self.send_response(status)
            if status in {301, 302, 307}:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(log.answer)))
            self.end_headers()
            self.wfile.write(log.answer)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert_file, tls.key_file)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    log.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield log
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


@dataclass
class Mailbox:
    """What an SMTP server accepted: envelope recipients and the message."""

    port: int = 0
    mails: list[tuple[list[str], bytes]] = field(default_factory=list)
    tls_used: list[bool] = field(default_factory=list)


@contextlib.contextmanager
def smtp_sink(tls: Certificate | None = None, refuse: str = "") -> Iterator[Mailbox]:
    """Run aiosmtpd; with a certificate it takes nothing before STARTTLS and a login (``duty``, ``secret``)."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

    box = Mailbox()

    class Handler:
        async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
            if refuse and refuse in address:
                return "550 no such mailbox"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
            box.mails.append((list(envelope.rcpt_tos), bytes(envelope.content)))
            box.tls_used.append(session.ssl is not None)
            return "250 accepted"

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"duty", b"secret")
        return AuthResult(success=good)

    options: dict[str, Any] = {}
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert_file, tls.key_file)
        options = {
            "tls_context": context,
            "require_starttls": True,
            "authenticator": authenticate,
            "auth_required": True,
        }
    box.port = free_port()
    controller = Controller(Handler(), hostname="127.0.0.1", port=box.port, **options)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()
