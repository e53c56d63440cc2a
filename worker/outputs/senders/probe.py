"""Whether a destination can be reached, without sending it anything about a patient."""

from __future__ import annotations

import smtplib
import socket
from urllib.parse import urlsplit

from pynetdicom import AE

from firstread.dicom.network import configure_pynetdicom
from worker.outputs.destinations.file import (
    Destination,
    DestinationsError,
    DicomDestination,
    EmailDestination,
    FhirDestination,
    Hl7Destination,
    NotDelivered,
)
from worker.outputs.hl7.codes import read_codes
from worker.outputs.senders import mllp
from worker.outputs.senders.mail import connect
from worker.outputs.senders.store import why_not
from worker.outputs.senders.tls import tls_arguments

VERIFICATION = "1.2.840.10008.1.1"
LIMIT_S = 10.0
ONLY_CONNECTED = frozenset({"hl7", "fhir", "stow", "webhook"})
"""Kinds of destinations that are asked nothing: that there is a connection is all that is known of them then."""


def probe(destination: Destination, calling_ae: str) -> str:
    """What is wrong with a destination; empty where it answers.

    A C-ECHO (PS3.7 section 9.1.5) to a PACS, over TLS where that is set; greeting, STARTTLS and login to a mail
    server; a connection to a web server; one to a receiver of HL7 messages, over TLS where that is set, without a
    message, since HL7 has none that only asks. Secrets must be there, and a file of codes must be right.
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
        if isinstance(destination, Hl7Destination):
            return _open(destination)
        if isinstance(destination, FhirDestination):
            read_codes(destination.codes)
        return _connect(destination.url)
    except DestinationsError as error:
        return str(error)


def _echo(destination: DicomDestination, calling_ae: str) -> str:
    configure_pynetdicom()
    ae = AE(ae_title=destination.calling_ae or calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = LIMIT_S
    ae.add_requested_context(VERIFICATION)
    try:
        tls = tls_arguments(destination.host, destination.tls)
    except NotDelivered as error:
        return str(error)
    assoc = ae.associate(destination.host, destination.port, ae_title=destination.called_ae, tls_args=tls)
    if not assoc.is_established:
        return why_not(assoc, destination, tls)
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


def _open(destination: Hl7Destination) -> str:
    read_codes(destination.codes)
    try:
        with mllp.connect(destination, LIMIT_S):
            pass
    except NotDelivered as error:
        return str(error)
    return ""


def _connect(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=LIMIT_S).close()
    except OSError as error:
        return f"no connection ({type(error).__name__})"
    return ""
