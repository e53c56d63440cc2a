"""What ``firstread doctor`` says of the doors: who was turned away, and what lies in the inbox and is never read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from firstread.clock import utcnow
from firstread.errors import FirstreadError
from firstread.records import AssociationRefusal
from firstread.settings import Settings
from firstread_cli.database import open_database
from firstread_cli.doctor import Check

SHOWN = 5
RECENT = timedelta(days=7)


def check_refusals(settings: Settings) -> Iterator[Check]:
    """The last hosts that were turned away at the DICOM door."""
    try:
        with open_database(settings).read() as session:
            last = session.scalars(
                select(AssociationRefusal)
                .where(AssociationRefusal.last_at >= utcnow() - RECENT)
                .order_by(AssociationRefusal.last_at.desc())
                .limit(SHOWN)
            ).all()
    except (FirstreadError, SQLAlchemyError):
        return  # `check_database` says what is wrong
    for row in last:
        titles = f", from {row.calling_ae or '-'} to {row.called_ae or '-'}" if row.calling_ae or row.called_ae else ""
        times = f"{row.count} times, last " if row.count > 1 else ""
        refusal = f"{row.host or 'many hosts'} ({row.reason}{titles}), {times}{row.last_at:%Y-%m-%d %H:%M} UTC"
        yield Check("association refused", "warn", refusal)


def check_inbox(settings: Settings) -> Iterator[Check]:
    """What has lain in the inbox for ten minutes and is never read."""
    from dicom_listener.inbox.leftovers import in_words, left_aside

    leftovers = left_aside(settings.inbox_dir, accepted_is_ours=settings.inbox_keep_accepted)
    if leftovers:
        yield Check("inbox", "warn", f"never read: {in_words(leftovers)}")
