"""The database's clock: hosts that share a database agree on nothing else.

Whatever one process writes and another compares (leases, heartbeats, when something is due, when a study was last
seen) is a time of this clock. SQLite lives on one machine, and its clock is that machine's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from firstread.clock import utcnow

NOISE = timedelta(seconds=1)
"""A smaller difference is the round trip to the database, and not one of the clocks."""

_QUERIES = {
    "postgresql": text("SELECT clock_timestamp()"),
    "sqlite": text("SELECT strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"),
}


def now_of(session: Session) -> datetime:
    """The present moment by the database's clock, aware, in UTC; not that of the transaction's start."""
    value = session.execute(_QUERIES[session.get_bind().dialect.name]).scalar_one()
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(moment, datetime)
    return moment.astimezone(UTC)


def skew_of(session: Session) -> timedelta:
    """How far the database's clock is ahead of this machine's, negative where it is behind."""
    before = utcnow()
    now = now_of(session)
    return now - (before + (utcnow() - before) / 2)


def shift_of(session: Session) -> timedelta:
    """What must be added to a time of this machine's clock to convert it to the database's; zero where they agree."""
    skew = skew_of(session)
    return skew if abs(skew) >= NOISE else timedelta()
