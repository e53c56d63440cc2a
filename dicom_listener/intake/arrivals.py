"""What the doors hand to the rows: arrivals, refusals, and the deliveries that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from dicom_listener.intake.part10 import IntakeNote
from firstread.clock import utcnow
from firstread.dicom.files import Header


@dataclass(eq=False)
class Delivery:
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
    delivery : Delivery or None
        None where a restart found the file: whoever brought it is gone.
    """

    spool_key: str
    header: Header
    note: IntakeNote
    sha256: str
    size_bytes: int
    delivery: Delivery | None = None

    @property
    def warnings(self) -> list[str]:
        return list(dict.fromkeys((*self.header.warnings, *self.note.warnings)))


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


@dataclass(frozen=True)
class Ending:
    """A delivery is over: ``released`` or ``aborted``."""

    delivery: Delivery
    ending: str
    at: datetime
