"""Passwords: Argon2id, a few checks at once, and a pause for whoever tries many."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from firstread.errors import FirstreadError

SHORTEST, LONGEST = 12, 128
"""Characters of a password (NIST SP 800-63B section 5.1.1.2 asks for 8 and more)."""

AT_ONCE = threading.BoundedSemaphore(2)
"""Each check takes 64 MiB for a while (RFC 9106 section 4, second recommended option)."""

FAILURES, PAUSE_S = 5, 60.0
MOST_KEPT = 10_000

_HASHER = PasswordHasher()


class WeakPassword(FirstreadError):
    """A password that is too short, or too long to be one."""


def hash_of(password: str) -> str:
    """What is kept of a password. Raises :class:`WeakPassword`."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise WeakPassword(f"a password has {SHORTEST} to {LONGEST} characters")
    with AT_ONCE:
        return _HASHER.hash(password)


@cache
def _nobodys() -> str:
    return _HASHER.hash("a password that nobody has")


def is_password(known: str | None, password: str) -> bool:
    """Whether a password fits; it takes as long where there is nobody of that name."""
    if len(password) > LONGEST:
        return False
    with AT_ONCE:
        try:
            fits = _HASHER.verify(known or _nobodys(), password)
        except (Argon2Error, InvalidHashError):
            return False
    return fits and known is not None


class Throttle:
    """Failures by name and by address: after ``FAILURES`` of them nothing is checked for ``PAUSE_S``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def lets(self, name: str, host: str) -> bool:
        """Whether a password may be tried now."""
        now = time.monotonic()
        with self._lock:
            return not any(
                n >= FAILURES and now - at < PAUSE_S
                for n, at in (self._failures.get(key, (0, 0.0)) for key in _keys(name, host))
            )

    def note_failure(self, name: str, host: str) -> None:
        """Count a failure."""
        now = time.monotonic()
        with self._lock:
            for key in _keys(name, host):
                n, at = self._failures.pop(key, (0, now))
                self._failures[key] = (1 if now - at > PAUSE_S else n + 1, now)
            while len(self._failures) > MOST_KEPT:
                self._failures.popitem(last=False)

    def forget(self, name: str, host: str) -> None:
        """Count anew after a success."""
        with self._lock:
            for key in _keys(name, host):
                self._failures.pop(key, None)


def _keys(name: str, host: str) -> tuple[str, str]:
    return f"name {name}", f"host {host}"
