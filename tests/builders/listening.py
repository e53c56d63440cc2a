"""A listener that runs inside a test, small CT series to send to it, and looks at what it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from sqlalchemy import text

from dicom_listener.service import ListenerService
from firstread.dicom.sender import SendOutcome, send_paths
from firstread.phantoms.ct import CtGrid, CtLabels, ct_series, write_series
from firstread.processes.broker import EmbeddedBroker
from firstread.queue import broker_url
from firstread.records import Database
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from tests.builders.timing import until

QUICK: dict[str, Any] = {
    "grace_s": 0.3,
    "inbox_grace_s": 0.3,
    "inbox_settle_s": 0.1,
    "inbox_rescan_s": 0.5,
    "quiet_s": 20.0,
}
"""Short timers."""
GRID = CtGrid(spacing_mm=1.0, step_mm=5.0, thickness_mm=5.0)


def small_series(n: int = 4, size: int = 16, **labels: Any) -> list[Dataset]:
    """CT objects of a few hundred bytes; equal arguments give equal bytes."""
    hu = np.arange(n * size * size, dtype=np.float32).reshape(n, size, size) % 100
    return ct_series(hu, GRID, CtLabels(**labels))


def small_files(folder: Path, n: int = 4, size: int = 16, **labels: Any) -> list[Path]:
    """:func:`small_series` as files."""
    return write_series(small_series(n, size, **labels), folder)


@contextmanager
def broker_in(home: Path) -> Iterator[str]:
    """URL of an embedded broker of its own."""
    settings = Settings(home=home)
    broker = EmbeddedBroker(settings)
    broker.start()
    try:
        yield broker_url(settings)
    finally:
        broker.close()


@contextmanager
def listening(settings: Settings) -> Iterator[ListenerService]:
    """A listener on a free port, its database made, stopped at the end."""
    db = Database(settings.database_url)
    upgrade(db)
    db.dispose()
    service = ListenerService(settings)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def send(service: ListenerService, *paths: Path, **options: Any) -> list[SendOutcome]:
    """Send with our own sender."""
    defaults: dict[str, Any] = {"host": "127.0.0.1", "port": service.port, "called_ae": "FIRSTREAD"}
    return send_paths(paths, **(defaults | options))


def rows(db: Database, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """Result of a query as plain tuples."""
    with db.read() as session:
        return [tuple(row) for row in session.execute(text(query), values)]


def closed(db: Database) -> list[tuple[Any, ...]]:
    """``(StudyInstanceUID, number, close_reason, images, warnings)`` of every closed revision, in order."""
    return rows(
        db,
        """SELECT s.study_instance_uid, r.number, r.close_reason,
                  (SELECT count(*) FROM revision_instance m WHERE m.revision_id = r.id), r.warnings
           FROM revision r JOIN study s ON s.id = r.study_id WHERE r.state = 'CLOSED' ORDER BY r.id""",
    )


def all_closed(db: Database, n: int = 1, limit_s: float = 15.0) -> list[tuple[Any, ...]]:
    """Wait until ``n`` revisions are closed and none is open; returns :func:`closed`."""

    def look() -> Sequence[Any]:
        still_open = rows(db, "SELECT id FROM revision WHERE state = 'RECEIVING'")
        done = closed(db)
        return done if not still_open and len(done) >= n else ()

    return list(until(look, limit_s))


def outcomes(db: Database) -> dict[str, int]:
    """How many receipts of each outcome."""
    return {str(k): int(v) for k, v in rows(db, "SELECT outcome, count(*) FROM received_instance GROUP BY outcome")}


def refusals(db: Database) -> dict[str, str]:
    """Reason by source name."""
    return {str(k): str(v) for k, v in rows(db, "SELECT source_name, reason FROM intake_refusal")}
