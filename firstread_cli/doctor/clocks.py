"""The doctor's look at clocks and time zones: ours, and those of the scanners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.dicom.dates import has_offset, offset_text
from firstread.errors import FirstreadError
from firstread.records import Instance, Revision, Study
from firstread.records.clock import now_of, skew_of
from firstread.settings import ENV_PREFIX, Settings
from firstread_cli.database import open_database
from firstread_cli.doctor import Check

LOOK_BACK = timedelta(days=30)
MOST_SKEW_S = 5.0
NEWEST = 500
"""So many images tell whether scanners say where they are."""


@dataclass
class Sender:
    """What an AE's studies say of their age."""

    studies: int = 0
    old: int = 0
    ahead: int = 0
    newest: datetime | None = None


def check_clock(settings: Settings) -> Iterator[Check]:
    """This machine's clock and the database's agree; the time zone of result objects is known."""
    try:
        db = open_database(settings)
        with db.read() as session:
            skew_s = skew_of(session).total_seconds()
            offsets = _offsets(session)
    except (FirstreadError, SQLAlchemyError):
        return  # `check_database` says what is wrong
    side = "ahead of" if skew_s < 0 else "behind"
    if abs(skew_s) < MOST_SKEW_S:
        yield Check("clock", "ok", "agrees with the database's")
    else:
        yield Check("clock", "warn", f"this machine is {abs(skew_s):.0f} s {side} the database: set it by NTP")
    if settings.time_zone:
        now = utcnow()
        yield Check("time zone", "ok", f"{settings.time_zone}, {offset_text(settings.zone or UTC, now)}")
    elif offsets and all(offsets):
        yield Check("time zone", "ok", "the images say theirs")
    else:
        some = f" ({offsets.count(False)} of the newest {len(offsets)})" if offsets else ""
        yield Check(
            "time zone",
            "warn",
            f"{ENV_PREFIX}TIME_ZONE is not set: result objects of images that do not say theirs{some} have no "
            "Timezone Offset From UTC, and a PACS may show them hours off",
        )


def _offsets(session: Session) -> list[bool]:
    """Of each of the newest images, whether it says its offset from UTC."""
    query = select(Instance.made_dt).where(Instance.own.is_(False)).order_by(Instance.id.desc()).limit(NEWEST)
    return [moment is not None and has_offset(moment) for moment in session.scalars(query)]


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
                f"{whole} of the last {LOOK_BACK.days} days have a date in the future: look at the clock of this AE, "
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
            Revision.last_seen_at >= now_of(session) - LOOK_BACK,
        )
    )
    senders: dict[str, Sender] = defaultdict(Sender)
    for ae, made_at, seen_at, warnings in session.execute(query):
        assert made_at is not None
        sender = senders[str(ae)]
        sender.studies += 1
        sender.old += settings.fresh_h > 0 and made_at < seen_at - timedelta(hours=settings.fresh_h)
        sender.ahead += "date_in_future" in (warnings or [])
        sender.newest = max(sender.newest or made_at, made_at)
    return senders
