"""Time: always UTC, always aware; and the names of time zones."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones


def utcnow() -> datetime:
    """The present moment by this machine's clock, aware, in UTC."""
    return datetime.now(UTC)


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
