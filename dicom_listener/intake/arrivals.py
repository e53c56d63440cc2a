"""What a door hands to the thread that writes rows: arrivals, refusals, and the ends of deliveries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from dicom_listener.intake.part10 import IntakeNote
from firstread.clock import utcnow
from firstread.dicom.files import Header


@dataclass(eq=False)
class IncomingDelivery:
    """One association, or one drain of the inbox, while it lasts. ``row_id`` is set with its first committed row."""

    source: str
    calling_ae: str | None = None
    called_ae: str | None = None
    peer_host: str | None = None
    opened_at: datetime = field(default_factory=utcnow)
    row_id: int | None = None
    refused_for: set[str] = field(default_factory=set)
    """Reasons for which a refusal was recorded already."""


@dataclass(frozen=True)
class Arrival:
    """One object whose file is durable.

    Attributes
    ----------
    sha256 : str
        Of the encoded data set, the file meta group apart.
    size_bytes : int
        Of the encoded data set.
    delivery : IncomingDelivery or None
        None where a restart found the file: whoever brought it is gone.
    """

    spool_key: str
    header: Header
    note: IntakeNote
    sha256: str
    size_bytes: int
    delivery: IncomingDelivery | None = None

    @property
    def warnings(self) -> list[str]:
        """Codes of the header and of the door, each once."""
        return list(dict.fromkeys((*self.header.warnings, *self.note.warnings)))

    def shifted(self, shift: timedelta) -> Arrival:
        """The same at another time; the note inside of the file keeps what it says."""
        received = self.note.received + shift
        return replace(self, note=replace(self.note, received_at=received.isoformat()))


@dataclass(frozen=True)
class Refusal:
    """Something that could not become an instance. ``detail`` holds no patient data."""

    received_at: datetime
    source: str
    source_name: str | None
    calling_ae: str | None
    reason: str
    detail: str | None
    kept_path: str | None

    def shifted(self, shift: timedelta) -> Refusal:
        """The same at another time."""
        return replace(self, received_at=self.received_at + shift)


@dataclass(frozen=True)
class Ending:
    """A delivery is over: ``released`` or ``aborted``."""

    delivery: IncomingDelivery
    ending: str
    at: datetime

    def shifted(self, shift: timedelta) -> Ending:
        """The same at another time."""
        return replace(self, at=self.at + shift)


Entry = Arrival | Refusal | Ending


class Overloaded(Exception):
    """The database does not keep up; senders have to wait."""


class Rows(Protocol):
    """Where a door puts its entries; :class:`dicom_listener.studies.rows.RowWriter`."""

    def put(self, entry: Entry, timeout_s: float = ...) -> None:
        """Hand an entry over. Raises :class:`Overloaded` where that takes longer than ``timeout_s``."""
