"""Secrets among the settings: how a URL is shown without them, and how they are kept out of what is written."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from firstread.settings import Settings

HIDDEN = "***"
SHORTEST = 4
"""A shorter secret is not looked for in texts: it would be found in words that have nothing to do with it."""

URL_FIELDS = ("database_url", "broker_url", "store_url")
"""Settings whose URL may hold a password."""

STORE_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_QUERY = re.compile(r"([?&](?:ssl)?(?:password|passwd|pass|secret|token|key)=)([^&]*)", re.IGNORECASE)


def shown_url(url: str) -> str:
    """A URL with its password, and whatever in its query is called one, as ``***``."""
    scheme, sign, rest = url.partition("://")
    if not rest.startswith("/"):
        user, at, host = rest.rpartition("@")
        name, colon, _ = user.partition(":")
        rest = f"{name}{colon}{HIDDEN if colon else ''}{at}{host}"
    return _QUERY.sub(rf"\g<1>{HIDDEN}", scheme + sign + rest)


def passwords_in(url: str) -> Iterator[str]:
    """What :func:`shown_url` hides, as it is written and as it is meant."""
    rest = url.partition("://")[2]
    found = [match[2] for match in _QUERY.finditer(url)]
    if not rest.startswith("/"):
        found.append(rest.rpartition("@")[0].partition(":")[2])
    for password in found:
        yield password
        yield unquote(password)


def secrets_of(settings: Settings, environ: Mapping[str, str] | None = None) -> frozenset[str]:
    """Every secret that a process of this site knows: in URLs, of destinations, of the store."""
    env = os.environ if environ is None else environ
    secrets = {password for name in URL_FIELDS for password in passwords_in(getattr(settings, name))}
    if settings.heartbeat_url is not None:
        secrets.add(settings.heartbeat_url.get_secret_value())
    if settings.stow_token is not None:
        secrets.add(settings.stow_token.get_secret_value())
    names = named_in(settings.destinations_file, "env")
    secrets |= {env.get(name, "") for name in (*STORE_SECRETS, *names)}
    secrets |= {_content(Path(name)) for name in named_in(settings.destinations_file, "file")}
    return _long_enough(secrets)


def secrets_in_urls(values: Iterable[str]) -> frozenset[str]:
    """URLs among some values, and the passwords in them: for a site whose settings cannot be read."""
    return _long_enough(secret for value in values if "://" in value for secret in (value, *passwords_in(value)))


def _long_enough(secrets: Iterable[str]) -> frozenset[str]:
    return frozenset(secret for secret in secrets if len(secret) >= SHORTEST)


def without(secrets: Iterable[str], text: str) -> str:
    """A text in which every secret is ``***``, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def named_in(path: Path | None, kind: str) -> set[str]:
    """Environment variables (``env``) or files (``file``) that a file of destinations takes secrets from.

    None where it cannot be read.
    """
    if path is None:
        return set()
    try:
        return set(_named(tomllib.loads(path.read_text(encoding="utf-8")), kind))
    except (OSError, ValueError):
        return set()


def _named(value: Any, kind: str) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get(kind), str):
            yield value[kind]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _named(item, kind)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
