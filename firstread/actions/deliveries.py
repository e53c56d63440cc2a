"""Deliveries that a person has tried again, or gives up."""

from __future__ import annotations

from sqlalchemy import select

from firstread import effects
from firstread.actions import audit
from firstread.errors import FirstreadError
from firstread.records import Database, Delivery
from firstread.records.clock import now_of
from firstread.states import UNDELIVERED, DeliveryState


class DeliveryError(FirstreadError):
    """That delivery cannot be changed; the text says why."""


def retry_delivery(db: Database, delivery_id: int, *, by: str | None = None) -> Delivery:
    """Make a delivery due at once, with its attempts counted from zero.

    Raises :class:`DeliveryError` for one that is done.
    """
    with db.write(effects.DELIVERY_BY_HAND) as session:
        row = session.scalar(select(Delivery).where(Delivery.id == delivery_id).with_for_update())
        if row is None:
            raise DeliveryError("no such delivery; `firstread deliveries` lists them")
        if row.state == DeliveryState.DELIVERED:
            raise DeliveryError(f"delivery {delivery_id} is {row.state}; there is nothing to retry")
        row.payload = {**row.payload, "at_once": True}
        row.state, row.attempts, row.next_at, row.finished_at = DeliveryState.PENDING, 0, now_of(session), None
        audit.record(session, "delivery.retry", subject=f"delivery/{row.id}", actor=by)
        return row


def retry_failed(db: Database, destination: str | None = None, *, by: str | None = None) -> int:
    """Make every failed delivery (of a destination) due at once; returns how many."""
    query = select(Delivery.id).where(Delivery.state == DeliveryState.FAILED)
    if destination is not None:
        query = query.where(Delivery.destination == destination)
    with db.read() as session:
        keys = list(session.scalars(query))
    for key in keys:
        retry_delivery(db, key, by=by)
    return len(keys)


def cancel_delivery(db: Database, delivery_id: int, *, by: str | None = None) -> Delivery:
    """Give a delivery up, so that it no longer keeps the study's files. Raises :class:`DeliveryError`."""
    with db.write(effects.DELIVERY_BY_HAND) as session:
        row = session.scalar(select(Delivery).where(Delivery.id == delivery_id).with_for_update())
        if row is None:
            raise DeliveryError("no such delivery; `firstread deliveries` lists them")
        if row.state not in UNDELIVERED:
            raise DeliveryError(f"delivery {delivery_id} is {row.state}; there is nothing to give up")
        row.state, row.next_at, row.finished_at = DeliveryState.CANCELLED, None, now_of(session)
        audit.record(session, "delivery.cancel", subject=f"delivery/{row.id}", actor=by)
        return row
