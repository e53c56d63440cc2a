"""TLS as a client, as a destination's ``tls`` says."""

from __future__ import annotations

import ssl

from firstread.tls.certificates import CertificateError
from firstread.tls.client import ClientTls
from worker.outputs.destinations.file import NotDelivered, Tls

TlsArguments = tuple[ssl.SSLContext, str] | None
"""A context that checks the peer's certificate, and the name that stands in it; None without TLS."""


def tls_arguments(host: str, tls: Tls | None) -> TlsArguments:
    """How to call a host. Raises :class:`NotDelivered` where a file cannot be used."""
    if tls is None:
        return None
    try:
        context = ClientTls(tls.ca_file, tls.cert_file, tls.key_file).context()
    except CertificateError as error:
        raise NotDelivered(f"TLS: {error}") from error
    return context, tls.server_name or host
