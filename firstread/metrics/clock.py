"""How far this machine's clock is from the database's: shown by every endpoint, since every host has a clock."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy.exc import SQLAlchemyError

from firstread.metrics.server import Snapshot
from firstread.records import Database
from firstread.records.clock import skew_of

log = logging.getLogger(__name__)


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "firstread_clock_skew_seconds", "Clock of the database minus that of the host that serves this endpoint."
    )


class ClockCollector:
    """Collector for ``make_registry``; without a sample while the database does not answer."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._snapshot = Snapshot(self._read)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The name without a look at the database, for the registry."""
        return [_family()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The difference as it was at the last look."""
        family = _family()
        skew_s, _ = self._snapshot.get()
        if skew_s is not None:
            family.add_metric([], skew_s)
        return [family]

    def _read(self) -> float | None:
        try:
            with self._db.read() as session:
                return skew_of(session).total_seconds()
        except SQLAlchemyError as error:
            log.warning("metrics: the database's clock cannot be read (%s)", type(error).__name__)
            return None
