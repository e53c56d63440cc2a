"""Certificates and keys in PEM files: what they say, and what is wrong with them in one line."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

from firstread.clock import utcnow
from firstread.errors import FirstreadError

FILE_BYTES: Final = 2**20
"""Longest file that is read as certificates."""


class CertificateError(FirstreadError):
    """A file of a certificate or key cannot be used."""


@dataclass(frozen=True)
class Certificate:
    """The first certificate of a file.

    Attributes
    ----------
    not_before, not_after : datetime
        From when to when it is valid, UTC.
    sha256 : bytes
        Fingerprint.
    """

    not_before: datetime
    not_after: datetime
    sha256: bytes

    @property
    def seconds_left(self) -> float:
        """Until it expires; negative afterwards."""
        return (self.not_after - utcnow()).total_seconds()

    @property
    def is_valid_yet(self) -> bool:
        """Whether its time has begun."""
        return self.not_before <= utcnow()

    @property
    def is_valid(self) -> bool:
        """Whether this is within its time."""
        return self.is_valid_yet and self.seconds_left >= 0


def read_certificate(path: Path) -> Certificate:
    """Read the first certificate of a PEM file. Raises :class:`CertificateError`."""
    from cryptography import x509  # slow to load, and not wanted by whoever has no certificate
    from cryptography.hazmat.primitives import hashes

    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        first, *_ = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate (PEM)") from error
    return Certificate(first.not_valid_before_utc, first.not_valid_after_utc, first.fingerprint(hashes.SHA256()))


def unreadable(path: Path, error: OSError) -> CertificateError:
    """A file that the system does not give us."""
    return CertificateError(f"{path} cannot be read ({error.strerror or type(error).__name__})")


def load_chain(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    """Let a context show a certificate with its chain.

    Parameters
    ----------
    key_file : Path or None
        None where the key stands in the file of the certificate.

    Raises
    ------
    CertificateError
        For a file that is missing or holds something else, a key of another certificate, and a key with a password.
    """
    read_certificate(cert_file)
    key = key_file or cert_file
    try:
        key.open("rb").close()
    except OSError as error:
        raise unreadable(key, error) from error

    def ask() -> NoReturn:
        raise CertificateError(
            f"the key in {key} has a password; write it without one (openssl pkey), for its owner only"
        )

    try:
        context.load_cert_chain(cert_file, key, ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(f"the key in {key} is not that of the certificate in {cert_file}") from error
        if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
            raise CertificateError(f"the certificate in {cert_file} is too weak ({error.reason})") from error
        elsewhere = "" if key_file else "; name the file of its own that does"
        raise CertificateError(f"{key} holds no private key (PEM){elsewhere}") from error
    except OSError as error:
        raise unreadable(key, error) from error


def trust(context: ssl.SSLContext, ca_file: Path) -> None:
    """Let a context believe certificates of the authorities in a file. Raises :class:`CertificateError`."""
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError as error:
        raise CertificateError(f"{ca_file} holds no certificate of an authority (PEM)") from error
    except OSError as error:
        raise unreadable(ca_file, error) from error
