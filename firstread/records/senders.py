"""Who sent a study, and what they asked for."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.records.intake import OWN, Instance, Receipt


def senders_of(session: Session, study_uid: str) -> list[str]:
    """Calling AE titles that delivered something of a study, in order of their names; result objects do not count."""
    query = select(Receipt.calling_ae).where(Receipt.study_instance_uid == study_uid, Receipt.outcome != OWN).distinct()
    return sorted(ae for ae in session.scalars(query) if ae)


def asked_for(session: Session, study_id: int) -> str | None:
    """The pipeline in whose inbox folder the newest file lay; an order outlives later copies that came without one."""
    ordered = select(Instance.pipeline_hint).where(
        Instance.study_id == study_id, Instance.own.is_(False), Instance.pipeline_hint.is_not(None)
    )
    return session.scalar(ordered.order_by(Instance.received_at.desc(), Instance.id.desc()).limit(1))
