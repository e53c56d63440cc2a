"""What a value of a setting must look like, where its type alone does not say so. Errors never repeat a secret."""

from __future__ import annotations

import ipaddress
import math

from firstread.dicom.uids import is_standard_uid

DATABASES = ("sqlite", "postgresql", "postgres")
BROKERS = ("redis://", "rediss://", "redis+socket://", "unix://")

LEARNED = "auto"


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
