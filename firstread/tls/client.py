"""TLS as a client: what we trust and show, and what is wrong where there is no connection."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from firstread.tls.certificates import load_chain, trust

ALERT_S = 5.0
"""A server of TLS 1.3 looks at our certificate after the handshake: so long we listen for what it says."""


@dataclass(frozen=True)
class ClientTls:
    """How to call a server.

    Attributes
    ----------
    ca_file : Path or None
        Authority of its certificate; without one, those of the system.
    cert_file, key_file : Path or None
        What we show of ourselves.
    server_name : str or None
        Name in its certificate, where it is not the host.
    is_checked : bool
        Whether its certificate is checked. False is for a look at a port, whoever is there, and for no data.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None
    is_checked: bool = True

    def context(self) -> ssl.SSLContext:
        """What to call with. Raises CertificateError for a file that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.is_checked:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_file is not None:
            trust(context, self.ca_file)
        else:
            context.load_default_certs()
        if self.cert_file is not None:
            load_chain(context, self.cert_file, self.key_file)
        return context


def shown_certificate(host: str, port: int, timeout_s: float) -> bytes:
    """The certificate (DER) that a server shows. Raises OSError."""
    context = ClientTls(is_checked=False).context()
    with (
        socket.create_connection((host, port), timeout=timeout_s) as sock,
        context.wrap_socket(sock, server_hostname=host) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def speaks_tls(host: str, port: int) -> bool:
    """Whether a port wants TLS: for whoever got no answer there without it."""
    try:
        return bool(shown_certificate(host, port, ALERT_S))
    except OSError:
        return False


def handshake_problem(host: str, port: int, context: ssl.SSLContext, server_name: str, timeout_s: float) -> str:
    """What is wrong with a connection by TLS, in words; empty where nothing is, or nothing that TLS says."""
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as sock,
            context.wrap_socket(sock, server_hostname=server_name) as tls,
        ):
            tls.settimeout(min(ALERT_S, timeout_s))
            tls.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    except TimeoutError:
        return ""
    except ssl.SSLError as error:
        return _in_words(error.reason or type(error).__name__)
    except OSError:
        return ""
    return ""


def _in_words(reason: str) -> str:
    if reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
        return "it wants a client certificate"
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
        return "it wants a client certificate, or other cipher suites"
    if reason in {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}:
        return "it does not speak TLS on this port"
    if "UNKNOWN_CA" in reason or "BAD_CERTIFICATE" in reason or "CERTIFICATE_" in reason:
        return f"it does not accept our certificate ({reason})"
    return f"TLS failed ({reason})"
