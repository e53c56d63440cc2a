"""What ``firstread doctor`` says of TLS: the listener's certificate, and the port that shows it."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator

from firstread.settings import Settings
from firstread.tls.certificates import Certificate, CertificateError, read_certificate
from firstread.tls.client import ClientTls, shown_certificate
from firstread.tls.server import expiry_warning, server_context
from firstread_cli.doctor import Check

WARN_DAYS = 21
LIMIT_S = 10.0


def check_tls(settings: Settings) -> Iterator[Check]:
    """Certificate and key can be used, and for how long; the port answers with them."""
    files = settings.tls_files
    if files is None:
        return
    try:
        server_context(files)
        certificate, problem = read_certificate(files.cert_file), expiry_warning(files)
    except CertificateError as error:
        yield Check("certificate", "fail", str(error))
        return
    days = certificate.seconds_left / 86400
    if problem:
        yield Check("certificate", "fail", problem)
    else:
        detail = f"{files.cert_file} is valid for {days:.0f} days more, until {certificate.not_after:%Y-%m-%d}"
        yield Check("certificate", "ok" if days >= WARN_DAYS else "warn", detail)
    key = files.key_file or files.cert_file
    if key.stat().st_mode & 0o077:
        yield Check("certificate key", "warn", f"other users of this host may read {key}: chmod 600")
    yield _check_port(settings, certificate)


def _check_port(settings: Settings, certificate: Certificate) -> Check:
    from firstread.dicom.sender import echo

    host = "127.0.0.1" if settings.tls_host == "0.0.0.0" else settings.tls_host
    port = settings.dicom_tls_port
    where = f"{settings.ae_title} at {host}:{port}"
    try:
        if settings.tls_client_ca is not None:
            socket.create_connection((host, port), timeout=LIMIT_S).close()
            whose = (
                f" with one of the names {', '.join(settings.tls_client_names)}" if settings.tls_client_names else ""
            )
            return Check(
                "dicom tls", "ok", f"{where} listens; senders show a certificate of {settings.tls_client_ca}{whose}"
            )
        shown = hashlib.sha256(shown_certificate(host, port, LIMIT_S)).digest()
    except OSError as error:
        return Check("dicom tls", "fail", f"{where} does not answer ({error.strerror or type(error).__name__})")
    if shown != certificate.sha256:
        return Check("dicom tls", "warn", f"{where} shows another certificate than the file holds; the log says why")
    tls = ClientTls(is_checked=False)
    problem = echo(host=host, port=port, called_ae=settings.ae_title, calling_ae="DOCTOR", tls=tls)
    return Check("dicom tls", "fail" if problem else "ok", f"{where} {problem or 'answers C-ECHO by TLS'}")
