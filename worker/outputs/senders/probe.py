"""Whether a destination can be reached, without sending it anything about a patient."""

from __future__ import annotations

import smtplib
import socket
import ssl
from urllib.parse import urlsplit

from pynetdicom import AE

from firstread.dicom.network import configure_pynetdicom
from worker.outputs.destinations.file import Destination, DestinationsError, DicomDestination, EmailDestination
from worker.outputs.senders.mail import connect
from worker.outputs.senders.store import tls_arguments

VERIFICATION = "1.2.840.10008.1.1"
LIMIT_S = 10.0


def probe(destination: Destination, calling_ae: str) -> str:
    """What is wrong with a destination; empty where it answers.

    A C-ECHO (PS3.7 section 9.1.5) to a PACS, over TLS where that is set; greeting, STARTTLS and login to a mail
    server; a connection to a web server. Secrets must be there.
    """
    try:
        for name in ("secret", "password", "bearer"):
            secret = getattr(destination, name, None)
            if secret is not None:
                secret.value()
        if isinstance(destination, DicomDestination):
            return _echo(destination, calling_ae)
        if isinstance(destination, EmailDestination):
            return _greet(destination)
        return _connect(destination.url)
    except DestinationsError as error:
        return str(error)


def _echo(destination: DicomDestination, calling_ae: str) -> str:
    configure_pynetdicom()
    ae = AE(ae_title=destination.calling_ae or calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = LIMIT_S
    ae.add_requested_context(VERIFICATION)
    try:
        tls = tls_arguments(destination)
    except (OSError, ssl.SSLError) as error:
        return f"TLS files cannot be used ({type(error).__name__})"
    assoc = ae.associate(destination.host, destination.port, ae_title=destination.called_ae, tls_args=tls)
    if not assoc.is_established:
        return "association rejected" if assoc.is_rejected else "no association"
    try:
        status = assoc.send_c_echo().get("Status")
    finally:
        assoc.release()
    return "" if status == 0 else "does not answer C-ECHO"


def _greet(destination: EmailDestination) -> str:
    try:
        with connect(destination, LIMIT_S):
            pass
    except smtplib.SMTPResponseException as error:
        return f"SMTP {error.smtp_code}"
    except (smtplib.SMTPException, OSError) as error:
        return type(error).__name__
    return ""


def _connect(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=LIMIT_S).close()
    except OSError as error:
        return f"no connection ({type(error).__name__})"
    return ""
