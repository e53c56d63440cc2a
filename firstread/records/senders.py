"""What is known of senders: whether the studies of a calling AE on a host came whole, or went on after a release."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, UniqueConstraint, select, tuple_
from sqlalchemy.orm import Mapped, Session, mapped_column

from firstread.records.base import Base

WHOLE_STUDIES = 20
"""So many studies in a row must have come whole before those of their sender are closed at once."""

Address = tuple[str, str]
"""Calling AE title and host, each empty where it is not known."""


class SenderHabit(Base):
    """How the studies of a calling AE on a host came: how many in a row were whole in one association."""

    __tablename__ = "sender_habit"
    __table_args__ = (UniqueConstraint("calling_ae", "host"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    calling_ae: Mapped[str]
    host: Mapped[str]
    whole_studies: Mapped[int] = mapped_column(default=0)
    """Studies in a row that came in one association each; 0 after one that did not, or that went on after its close."""
    went_on_at: Mapped[datetime | None]
    """When an image last came for a study of this sender that had been closed."""
    noted_at: Mapped[datetime]
    """When a study last counted, for or against."""


def comes_whole() -> ColumnElement[bool]:
    """Condition that a sender's studies may be closed at once."""
    return SenderHabit.whole_studies >= WHOLE_STUDIES


def known_as_whole(session: Session, senders: set[Address]) -> set[Address]:
    """Those of these senders whose studies may be closed at once."""
    if not senders:
        return set()
    address = (SenderHabit.calling_ae, SenderHabit.host)
    rows = session.execute(select(*address).where(comes_whole(), tuple_(*address).in_(sorted(senders))))
    return {(calling_ae, host) for calling_ae, host in rows}
