"""TLS as a server: TLS 1.2 and 1.3 as PS3.15 section B.10 has them, with files that are read again when they change.

The non-downgrading BCP 195 profile of PS3.15 follows RFC 9325: no version before TLS 1.2, forward secrecy and
authenticated encryption only.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from firstread.tls.certificates import Certificate, CertificateError, load_chain, read_certificate, trust
from firstread.tls.files import TlsFiles

LOGGER = logging.getLogger(__name__)
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Suites of TLS 1.2 (RFC 9325 section 4.2); those of TLS 1.3 are all good."""
NAMES_SHOWN: Final = 4
KEPT: Final = "the certificate of before stays in use"

Stamp = tuple[tuple[int, ...] | None, ...]


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What a server shows and asks for. Raises :class:`CertificateError` for a file that cannot be used.

    No session is resumed: each connection shows its certificates again, so that a changed file counts at once.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    load_chain(context, files.cert_file, files.key_file)
    if files.client_ca is not None:
        trust(context, files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def expiry_warning(files: TlsFiles) -> str:
    """One line about a certificate that is not valid now; empty for a good one. Raises :class:`CertificateError`."""
    return _expiry_words(files, read_certificate(files.cert_file))


def _expiry_words(files: TlsFiles, certificate: Certificate) -> str:
    if certificate.seconds_left < 0:
        return f"the certificate in {files.cert_file} expired on {certificate.not_after:%Y-%m-%d}; senders refuse it"
    if not certificate.is_valid_yet:
        return f"the certificate in {files.cert_file} is valid from {certificate.not_before:%Y-%m-%d} on, not yet"
    return ""


def warning_at_start(files: TlsFiles) -> str:
    """One line about files that cannot be used, or not now; empty for good ones."""
    try:
        server_context(files)
        return expiry_warning(files)
    except CertificateError as error:
        return f"{error}; nobody is served with TLS until this is mended"


class _Loaded(NamedTuple):
    """What the files held when they were read."""

    context: ssl.SSLContext
    certificate: Certificate


class ServerTls:
    """The files of a server, read again for the next connection when one has changed.

    Files that cannot be used at the start keep no other port closed: nobody is served with TLS until they are mended.
    A certificate outside of its time takes the place of one like it, and never of one that is valid.

    Parameters
    ----------
    on_failure : callable
        Called once for each state of the files that is not taken; the certificate of before stays in use then.
    """

    def __init__(self, files: TlsFiles, on_failure: Callable[[], None] = lambda: None) -> None:
        self.files = files
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._stamp = _stamp(files)
        self._served: _Loaded | None = None
        self._waiting: _Loaded | None = None
        self._read(again=False)

    def context(self) -> ssl.SSLContext:
        """What the next connection is to be served with. Raises CertificateError where nothing could be used so far."""
        with self._lock:
            stamp = _stamp(self.files)
            if stamp != self._stamp:
                self._stamp = stamp
                self._read(again=True)
            if self._waiting is not None and not self._should_wait(self._waiting):
                self._serve(self._waiting, again=True)
            if self._served is None:
                raise CertificateError("our certificate cannot be used")
            return self._served.context

    def _read(self, *, again: bool) -> None:
        self._waiting = None
        try:
            loaded = _Loaded(server_context(self.files), read_certificate(self.files.cert_file))
        except CertificateError as error:
            instead = "nobody is served with TLS" if self._served is None else KEPT
            LOGGER.error("TLS: %s; %s", error, instead)
            self._on_failure()
            return
        if self._should_wait(loaded):
            self._waiting = loaded
            LOGGER.warning("TLS: %s; %s while it is valid", _expiry_words(self.files, loaded.certificate), KEPT)
            self._on_failure()
        else:
            self._serve(loaded, again=again)

    def _should_wait(self, loaded: _Loaded) -> bool:
        """Whether what is served is valid and the other is not."""
        return self._served is not None and self._served.certificate.is_valid and not loaded.certificate.is_valid

    def _serve(self, loaded: _Loaded, *, again: bool) -> None:
        self._served, self._waiting = loaded, None
        warning = _expiry_words(self.files, loaded.certificate)
        if again and warning:
            LOGGER.warning("TLS: %s", warning)
        elif again:
            until = f"{loaded.certificate.not_after:%Y-%m-%d}"
            LOGGER.info("TLS: the certificate was read again; it is valid until %s", until)

    def lets_in(self, peer: dict[str, Any] | None) -> bool:
        """Whether a client may come in, by the certificate that was checked, as ``getpeercert`` shows it."""
        allowed = {name.casefold() for name in self.files.client_names}
        return not allowed or any(name.casefold() in allowed for name in names_of(peer))


def names_of(peer: dict[str, Any] | None) -> Iterator[str]:
    """Names in a certificate as ``getpeercert`` shows it: those of the subject, and its common name."""
    for _, name in (peer or {}).get("subjectAltName", ()):
        yield str(name)
    for attributes in (peer or {}).get("subject", ()):
        for kind, name in attributes:
            if kind == "commonName":
                yield str(name)


def names_shown(peer: dict[str, Any] | None) -> str:
    """The first names in a certificate, for the log."""
    names = ", ".join(list(dict.fromkeys(names_of(peer)))[:NAMES_SHOWN])
    return f"its certificate names {names or 'nobody'}"


def _stamp(files: TlsFiles) -> Stamp:
    """What changes when a file does."""
    stamps: list[tuple[int, ...] | None] = []
    for path in files.paths:
        try:
            stat = path.stat()
            stamps.append((stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
        except OSError:
            stamps.append(None)
    return tuple(stamps)
