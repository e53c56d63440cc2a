"""Learning how a sender's studies come, in the transactions that close a study and that register its images.

What counts is kept a calling AE and host, in the table ``sender_habit``, so it holds over processes and restarts:

* A study that was closed on a release, and came in one association until then, counts for its sender.
* One that took several associations takes back all that counted for its senders, whichever AEs they are.
* So does an image that comes within ``max_wait_s`` after the close: for whoever had delivered to what was closed, and
  for whoever brings it.
* A study with an association that broke off says nothing, and the phantom of ``firstread doctor`` neither.
* The inbox has no sender: nothing is learned there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from firstread.records import Association, AssociationStudy, Revision, SenderHabit, Study
from firstread.records.senders import Address
from firstread.records.studies import is_self_test

RELEASED = "released"
"""Close reason, and ending of an association."""


@dataclass(frozen=True)
class Visit:
    """One delivery's part in a study. ``ending`` is None while it is open."""

    source: str
    calling_ae: str | None
    host: str | None
    opened_at: datetime
    ended_at: datetime | None
    ending: str | None
    last_at: datetime

    @property
    def sender(self) -> Address | None:
        """Who came; None for the inbox."""
        return address_of(self.source, self.calling_ae, self.host)


def address_of(source: str, calling_ae: str | None, host: str | None) -> Address | None:
    """A sender as it is kept; None for what has none."""
    return (calling_ae or "", host or "") if source == "dicom" else None


def only_sender(visits: Sequence[Visit]) -> Address | None:
    """The sender of a study that came in one association, released by now; None for every other."""
    if len(visits) != 1 or visits[0].ending != RELEASED:
        return None
    return visits[0].sender


def note_close(session: Session, study: Study, number: int, reason: str, visits: Sequence[Visit], at: datetime) -> None:
    """Count a study for or against its senders as its first revision closes.

    Parameters
    ----------
    visits : sequence of Visit
        All that delivered to the study so far.
    """
    broke_off = any(visit.ending not in (None, RELEASED) for visit in visits)
    if number != 1 or broke_off or is_self_test(session, study.id):
        return
    if len(visits) > 1:
        _take_back(session, {visit.sender for visit in visits}, at)
    elif reason == RELEASED and (sender := only_sender(visits)) is not None:
        row = {"calling_ae": sender[0], "host": sender[1], "whole_studies": 1, "noted_at": at}
        statement = insert_into(session, SenderHabit).values(row)
        counted = {"whole_studies": SenderHabit.whole_studies + 1, "noted_at": at}
        session.execute(statement.on_conflict_do_update(index_elements=["calling_ae", "host"], set_=counted))


def note_late_images(session: Session, reopened: Sequence[tuple[Study, datetime]], max_wait_s: float) -> int:
    """Take back what counted for the senders of studies that go on though a release had closed them.

    To be called once the visits that brought the images are written.

    Parameters
    ----------
    reopened : sequence of (Study, datetime)
        Studies of which a revision was closed, and when the image came that opened the next one.

    Returns
    -------
    int
        How many of them had been closed at once: the whole grace might have waited for the image.
    """
    senders: set[Address | None] = set()
    times: list[datetime] = []
    early = 0
    for study, at in reopened:
        closed = _last_closed(session, study)
        if closed is None or closed.closed_at is None or closed.close_reason != RELEASED:
            continue
        if at > closed.closed_at + timedelta(seconds=max_wait_s) or is_self_test(session, study.id):
            continue
        early += closed.spared_s > 0
        senders |= _senders_since(session, study, closed.opened_at)
        times.append(at)
    if times:
        _take_back(session, senders, max(times), went_on_at=max(times))
    return early


def _last_closed(session: Session, study: Study) -> Revision | None:
    query = select(Revision).where(Revision.study_id == study.id, Revision.closed_at.is_not(None))
    return session.scalar(query.order_by(Revision.number.desc()).limit(1))


def _senders_since(session: Session, study: Study, since: datetime) -> set[Address | None]:
    query = (
        select(Association.source, Association.calling_ae, Association.peer_host)
        .join(AssociationStudy, AssociationStudy.association_id == Association.id)
        .where(AssociationStudy.study_id == study.id, AssociationStudy.last_at >= since)
    )
    return {address_of(*row) for row in session.execute(query)}


def _take_back(session: Session, senders: set[Address | None], at: datetime, **also: datetime) -> None:
    changed = {"whole_studies": 0, "noted_at": at, **also}
    for calling_ae, host in sorted(filter(None, senders)):  # whoever locks several does so in this order
        statement = insert_into(session, SenderHabit).values(calling_ae=calling_ae, host=host, **changed)
        session.execute(statement.on_conflict_do_update(index_elements=["calling_ae", "host"], set_=changed))


def insert_into(session: Session, table: type[Any]) -> Any:
    """An INSERT that can say ON CONFLICT on either engine."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    return dialect.insert(table)
