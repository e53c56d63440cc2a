"""A door without a network: arrivals handed straight to an assembler, at times of the test's choosing."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from dicom_listener.intake.arrivals import Arrival, Ending, IncomingDelivery
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.studies.assembler import Assembler
from dicom_listener.studies.closing import close_due
from firstread.clock import utcnow
from firstread.dicom.files import header_of
from firstread.records import Database, Process, write_heartbeat
from firstread.settings import Settings

LISTENER = "listener-1"


class Door:
    """Hands small series to an assembler, at times of the test's choosing (seconds before the present)."""

    def __init__(self, db: Database, settings: Settings, listener_id: str = LISTENER) -> None:
        self.db, self.settings, self.listener_id = db, settings, listener_id
        self.assembler = Assembler(db, listener_id, settings.max_wait_s)
        self.numbers = 0
        started_at = utcnow() - timedelta(hours=1)
        write_heartbeat(db, Process(id=listener_id, kind="listener", host="test", pid=1, started_at=started_at))

    def open(
        self, ago_s: float = 0.0, calling_ae: str = "CT1", source: str = "dicom", host: str | None = None
    ) -> IncomingDelivery:
        opened_at = utcnow() - timedelta(seconds=ago_s)
        return IncomingDelivery(source=source, calling_ae=calling_ae, peer_host=host, opened_at=opened_at)

    def arrival(self, ds: Any, delivery: IncomingDelivery | None, ago_s: float = 0.0, **note: Any) -> Arrival:
        self.numbers += 1
        fields: dict[str, Any] = {
            "source": delivery.source if delivery else "dicom",
            "source_name": "10.0.0.9",
            "received_at": (utcnow() - timedelta(seconds=ago_s)).isoformat(),
            "listener_id": self.listener_id,
            "calling_ae": delivery.calling_ae if delivery else None,
        } | note
        digest = hashlib.sha256(repr(ds).encode()).hexdigest()
        key = f"20260101/00/{self.listener_id[-1]}{self.numbers:031x}.dcm"
        return Arrival(key, header_of(ds, ds.file_meta), IntakeNote(**fields), digest, 1000, delivery)

    def bring(
        self, objects: list[Any], delivery: IncomingDelivery | None, ago_s: float = 0.0, **note: Any
    ) -> list[Arrival]:
        arrivals = [self.arrival(ds, delivery, ago_s, **note) for ds in objects]
        self.assembler.write(arrivals)
        return arrivals

    def end(self, delivery: IncomingDelivery, ending: str = "released", ago_s: float = 0.0) -> None:
        self.assembler.write([Ending(delivery, ending, utcnow() - timedelta(seconds=ago_s))])

    def close(self) -> list[str]:
        return [done.reason for done in close_due(self.db, self.settings).closed]
