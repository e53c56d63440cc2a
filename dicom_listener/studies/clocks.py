"""Times of this listener's clock as times of the database's, before they are written and compared with others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dicom_listener.intake.arrivals import Arrival, Ending, Refusal

Entry = Arrival | Refusal | Ending


def shifted(entries: Sequence[Entry], shift: timedelta) -> list[Entry]:
    """The entries with their times moved by ``shift``; the notes in their files keep what they said."""
    if not shift:
        return list(entries)
    return [_shifted(entry, shift) for entry in entries]


def _shifted(entry: Entry, shift: timedelta) -> Entry:
    if isinstance(entry, Arrival):
        at: datetime = entry.note.received + shift
        return replace(entry, note=replace(entry.note, received_at=at.isoformat()))
    if isinstance(entry, Refusal):
        return replace(entry, received_at=entry.received_at + shift)
    return replace(entry, at=entry.at + shift)
