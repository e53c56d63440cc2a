"""Why a TLS handshake failed, by what OpenSSL says: the codes of refusals."""

from __future__ import annotations

import ssl
from typing import Final

from dicom_listener.peers.refusals import (
    CLIENT_CERTIFICATE,
    CLIENT_CERTIFICATE_EXPIRED,
    NO_CLIENT_CERTIFICATE,
    NOT_TLS,
    TLS_DISTRUSTED,
    TLS_FAILED,
    TLS_VERSIONS,
)

_NO_COMMON_GROUND: Final = frozenset(
    {
        "UNSUPPORTED_PROTOCOL",
        "VERSION_TOO_LOW",
        "NO_PROTOCOLS_AVAILABLE",
        "WRONG_VERSION_NUMBER",
        "UNKNOWN_PROTOCOL",
        "NO_SHARED_CIPHER",
        "NO_SHARED_GROUP",
        "NO_SUITABLE_KEY_SHARE",
        "NO_SUITABLE_SIGNATURE_ALGORITHM",
        "NO_SHARED_SIGNATURE_ALGORITHMS",
        "INAPPROPRIATE_FALLBACK",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    }
)
_PLAIN: Final = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})
_DISTRUST: Final = (
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_REVOKED",
    "DECRYPT_ERROR",
)
_OUT_OF_TIME: Final = frozenset({9, 10})
"""``X509_V_ERR_CERT_NOT_YET_VALID`` and ``X509_V_ERR_CERT_HAS_EXPIRED`` of OpenSSL."""


def fault_of(error: ssl.SSLError) -> tuple[str, str]:
    """Reason and detail of a handshake that failed."""
    reason = error.reason or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        is_late = error.verify_code in _OUT_OF_TIME
        return CLIENT_CERTIFICATE_EXPIRED if is_late else CLIENT_CERTIFICATE, error.verify_message
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return NO_CLIENT_CERTIFICATE, "it showed no certificate"
    if reason in _PLAIN:
        return NOT_TLS, reason
    if reason in _NO_COMMON_GROUND:
        return TLS_VERSIONS, reason
    if any(word in reason for word in _DISTRUST):
        return TLS_DISTRUSTED, f"it does not trust our certificate ({reason})"
    return TLS_FAILED, reason
