"""The doctor's look at clocks and time zones: ours, and those of the scanners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from firstread.cli.checks import Check
from firstread.cli.open_database import open_database
from firstread.clock import utcnow
from firstread.errors import FirstreadError
from firstread.records import Revision, Study
from firstread.settings import ENV_PREFIX, Settings

LOOK_BACK = timedelta(days=30)


@dataclass
class Sender:
    """What an AE's studies say of their age."""

    studies: int = 0
    old: int = 0
    ahead: int = 0
    newest: datetime | None = None


def check_senders(settings: Settings) -> Iterator[Check]:
    """An AE of which every study is old, or comes from the future, has a wrong clock, or is an archive."""
    try:
        db = open_database(settings)
        with db.read() as session:
            senders = look_at(session, settings)
    except (FirstreadError, SQLAlchemyError):
        return  # `check_database` says what is wrong
    for ae, seen in sorted(senders.items()):
        whole = "its only study" if seen.studies == 1 else f"all {seen.studies} studies"
        if seen.old == seen.studies and seen.newest is not None:
            yield Check(
                f"clock of {ae}",
                "warn",
                f"{whole} of the last {LOOK_BACK.days} days came more than {settings.fresh_h:g} h after they were made "
                f"(the newest {seen.newest:%Y-%m-%d %H:%M} UTC): look at the clock of this AE. If it is no archive, a "
                f"rule in {ENV_PREFIX}PRIORITY_BY_CALLING_AE makes its studies count as fresh",
            )
        if seen.ahead == seen.studies:
            yield Check(
                f"clock of {ae}",
                "warn",
                f"{whole} of the last {LOOK_BACK.days} days bear a date in the future: look at the clock of this AE, "
                f"and at {ENV_PREFIX}TIME_ZONE",
            )


def look_at(session: Session, settings: Settings) -> dict[str, Sender]:
    """Every AE that sent studies with a date lately. Orders and rules do not count here: the clock is asked for."""
    query = (
        select(Study.calling_ae, Revision.made_at, Revision.last_seen_at, Revision.warnings)
        .join(Study, Study.id == Revision.study_id)
        .where(
            Study.calling_ae.is_not(None),
            Revision.number == 1,
            Revision.made_at.is_not(None),
            Revision.last_seen_at >= utcnow() - LOOK_BACK,
        )
    )
    found: dict[str, Sender] = defaultdict(Sender)
    for ae, made_at, seen_at, warnings in session.execute(query):
        assert made_at is not None
        sender = found[str(ae)]
        sender.studies += 1
        sender.old += settings.fresh_h > 0 and made_at < seen_at - timedelta(hours=settings.fresh_h)
        sender.ahead += "date_in_future" in (warnings or [])
        sender.newest = max(sender.newest or made_at, made_at)
    return found
