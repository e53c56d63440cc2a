"""A certificate authority of a test, and certificates of its: good ones, expired ones, with any names."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.builders.servers import Certificate

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
"""One for all certificates of a run, but where a test wants another: RSA keys take their time."""
NAMES = ("localhost", "127.0.0.1")


class Authority:
    """An authority with a file of its own.

    Attributes
    ----------
    ca_file : Path
        Its certificate.
    """

    def __init__(self, folder: Path, name: str = "Test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        made = self._builder(self._name, self._key, days=30).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: rsa.RSAPrivateKey, days: float, begins_days: float = -60.0
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=begins_days))
            .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        )

    def issue(
        self,
        file: str,
        *names: str,
        common_name: str = "firstread",
        days: float = 20.0,
        begins_days: float = -60.0,
        key: rsa.RSAPrivateKey = KEY,
        password: bytes | None = None,
    ) -> Certificate:
        """A certificate that is valid for some days more, an expired one where they are negative.

        Parameters
        ----------
        file : str
            Stem of the names of its files.
        names : str
            Alternative names; by default those of this machine.
        """
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names or NAMES])
        made = self._builder(subject, key, days, begins_days).add_extension(alternatives, critical=False)
        cert_file, key_file = self._folder / f"{file}.pem", self._folder / f"{file}.key"
        cert_file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        key_file.chmod(0o600)
        return Certificate(cert_file, key_file)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
