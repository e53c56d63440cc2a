"""The silent weeks of a new site (``FIRSTREAD_SILENT``): all is scored and stored, and nothing leaves the house.

Begin and end are rows of the audit trail, which nobody can change. What was planned before the end is never sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.records.outcomes import AuditEvent

BEGIN: Final = "silence.begin"
END: Final = "silence.end"
SILENT: Final = "SILENT"
"""What stands in ``last_status`` of a delivery that was not sent for it."""


@dataclass(frozen=True)
class Silence:
    """Whether nothing may leave the house.

    Attributes
    ----------
    holds : bool
        Nothing may be sent now.
    began_at : datetime or None
        When the last silence began, by the database's clock; None where there was none yet.
    ended_at : datetime or None
        When the last one ended: what is older is not sent.
    """

    holds: bool = False
    began_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def began(self) -> bool:
        """Whether the trail holds a begin without its end."""
        return self.began_at is not None and (self.ended_at is None or self.began_at > self.ended_at)


def read_silence(session: Session, wanted: bool) -> Silence:
    """The silence as setting and audit trail say it.

    Parameters
    ----------
    wanted : bool
        ``FIRSTREAD_SILENT``. An end by a person (``firstread golive --end``) outlasts it.
    """
    newest = {}
    for action in (BEGIN, END):
        newest[action] = session.scalar(
            select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id.desc()).limit(1)
        )
    begin, end = newest[BEGIN], newest[END]
    ended = end is not None and (begin is None or begin.at <= end.at)
    return Silence(
        holds=wanted and not ended,
        began_at=None if begin is None else begin.at,
        ended_at=None if end is None else end.at,
    )
