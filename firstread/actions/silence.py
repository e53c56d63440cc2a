"""Begin and end of the silent weeks."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.actions import audit
from firstread.errors import FirstreadError
from firstread.records import Database, Delivery
from firstread.records.clock import now_of
from firstread.records.silence import BEGIN, END, SILENT, Silence, read_silence
from firstread.states import DeliveryState


class NotSilent(FirstreadError):
    """There is no silence that could be ended."""


def note_silence(db: Database, wanted: bool, actor: str) -> Silence:
    """Write begin or end down where the setting has changed; gives back the silence as it then is.

    A setting that was taken away ends a silence as ``firstread golive --end`` does.
    """
    with db.read() as session:
        silence = read_silence(session, wanted)
    if silence.holds == silence.began:
        return silence
    with db.write(effects.SILENCE_COMMIT) as session:
        silence = read_silence(session, wanted)
        if silence.holds and not silence.began:
            _event(session, BEGIN, actor)
        elif silence.began and not silence.holds:
            _end(session, actor, why="FIRSTREAD_SILENT is not set")
        return read_silence(session, wanted)


def end_silence(db: Database, wanted: bool, by: str) -> int:
    """End the silence; what was planned in it is never sent. Gives back how many deliveries had not been ended yet.

    Raises
    ------
    NotSilent
        If there is none.
    """
    with db.write(effects.SILENCE_COMMIT) as session:
        if not read_silence(session, wanted).holds:
            raise NotSilent("nothing is silent here: FIRSTREAD_SILENT is not set, or its silence was ended before")
        return _end(session, by)


def _end(session: Session, actor: str, why: str | None = None) -> int:
    pending = session.scalars(select(Delivery).where(Delivery.state == DeliveryState.PENDING).with_for_update()).all()
    now = now_of(session)
    for row in pending:
        row.state, row.next_at, row.finished_at, row.last_status = DeliveryState.SKIPPED, None, now, SILENT
    kept = session.scalar(
        select(func.count()).select_from(Delivery).where(Delivery.last_status == SILENT, Delivery.state == "SKIPPED")
    )
    _event(session, END, actor, {"not_sent": kept or 0} | ({"why": why} if why else {}))
    return len(pending)


def _event(session: Session, action: str, actor: str, detail: dict[str, object] | None = None) -> None:
    """A row with the database's time: deliveries are compared with it, whose times are the database's."""
    audit.record(session, action, actor=actor, detail=detail, at=now_of(session))
    session.flush()
