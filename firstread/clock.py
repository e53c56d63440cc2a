"""Time: always UTC, always aware; and the names of time zones."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones


class Clock(Protocol):
    """What tells the time."""

    def utcnow(self) -> datetime:
        """The present moment, aware, in UTC; somebody may set it."""

    def monotonic(self) -> float:
        """Seconds since some moment, which nobody can set."""


class SystemClock:
    """This machine's."""

    def utcnow(self) -> datetime:
        """See :class:`Clock`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return time.monotonic()


_clock: Clock = SystemClock()


def use(clock: Clock) -> Clock:
    """Put another clock in place, for tests; returns the one before."""
    global _clock
    before, _clock = _clock, clock
    return before


def utcnow() -> datetime:
    """The present moment by this machine's clock, aware, in UTC."""
    return _clock.utcnow()


def monotonic() -> float:
    """Seconds since some moment, for how long something takes: no change of the machine's clock moves it."""
    return _clock.monotonic()


def is_zone(name: str) -> bool:
    """Whether a name is one of the IANA time zone data base, as this system or the package ``tzdata`` has it."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def has_zones() -> bool:
    """Whether there is any time zone data at all: a slim container may have none."""
    return bool(available_timezones())
