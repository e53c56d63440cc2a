"""What a value of a setting must look like, where its type alone does not say so. Errors never repeat a secret."""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path

from firstread.dicom.uids import is_standard_uid

DATABASES = ("sqlite", "postgresql", "postgres")
BROKERS = ("redis://", "rediss://", "redis+socket://", "unix://")

LEARNED = "auto"

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
"""A bearer token (RFC 6750 section 2.1) that cannot be guessed."""


def is_local(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return host in LOCAL_NAMES or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bearer_token(value: str) -> str:
    """A token that a header can carry."""
    if not TOKEN.fullmatch(value):
        raise ValueError("a token has 16 characters or more, of letters, digits and -._~+/")
    return value


def absolute(value: object) -> object:
    """A path from the root of the file system; what is no path stays as it is. Raises ValueError."""
    if not isinstance(value, str | Path):
        return value
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"{value}: no such user") from None


def seconds_or_auto(value: object) -> float | str:
    """Seconds of 0 or more, or ``auto``."""
    if isinstance(value, str) and value.strip().lower() == LEARNED:
        return LEARNED
    try:
        seconds = float(value) if isinstance(value, str | int | float) else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ValueError("takes seconds of 0 or more, or auto")
    return seconds


def ae_title(value: str) -> str:
    """An AE title as PS3.5 section 6.2 allows it: 1 to 16 printable ASCII characters, no backslash."""
    title = value.strip(" ")
    if not title or len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


def database_url(value: str) -> str:
    """A URL that SQLAlchemy understands, of a database that we know."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        backend = make_url(value).get_backend_name()
    except (ArgumentError, ValueError):
        backend = ""
    if backend not in DATABASES:
        raise ValueError(
            "not the URL of a database; write sqlite:////path/file or postgresql://user:password@host:5432/name"
        )
    return value


def broker_url(value: str) -> str:
    """A URL of a Redis server."""
    from urllib.parse import urlsplit

    try:
        usable = value.startswith(BROKERS) and (urlsplit(value).port or 1) > 0
    except ValueError:
        usable = False
    if value and not usable:
        raise ValueError("not the URL of a Redis server; write redis://:password@host:6379/0")
    options = {option.partition("=")[0] for option in value.partition("?")[2].split("&")}
    if options & {"password", "username"}:
        raise ValueError("name and password stand before the host: redis://name:password@host:6379/0")
    if value.startswith("redis://") and any(name.startswith("ssl_") for name in options):
        raise ValueError("TLS is rediss://, with two s; redis:// knows no certificates")
    return value


def web_url(value: str) -> str:
    """A URL that can be posted to."""
    if not value.startswith(("http://", "https://")):
        raise ValueError("not the URL of a web server; write https://host/path")
    return value


def page_url(value: str) -> str:
    """The address of a page without a path, query or fragment, and without a slash at its end; empty for none."""
    from urllib.parse import urlsplit

    value = value.strip().rstrip("/")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if value and (not usable or parts.path or parts.query or parts.fragment or parts.username is not None):
        raise ValueError("takes the address of a page without a path, such as https://worklist.hospital.example")
    return value


def header_name(value: str) -> str:
    """The name of an HTTP header (RFC 9110 section 5.1), or nothing."""
    if value and not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value):
        raise ValueError("takes the name of a header, such as X-Remote-User")
    return value


def network(value: str) -> str:
    """An IP address, or a network in the notation with a slash."""
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("takes IP addresses and networks, such as 10.0.0.4 or 10.0.0.0/24") from None


def uid(value: str) -> str:
    """A UID (PS3.5 section 9.1)."""
    if not is_standard_uid(value):
        raise ValueError("takes UIDs: digits and dots, at most 64 characters")
    return value
