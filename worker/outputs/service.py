"""``firstread deliver``: deliveries and upkeep in a process of their own, apart from scoring."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

from firstread.logs import setup_logging
from firstread.metrics.server import serve_metrics
from firstread.processes.heartbeat import beat
from firstread.records import Database
from firstread.records.migrate import require_head
from firstread.settings import Settings
from firstread.upkeep.service import run_upkeep
from worker.outputs.deliveries.lanes import run_deliveries
from worker.outputs.deliveries.rows import CLAIM_MARGIN_S
from worker.outputs.destinations.file import complaint_at_start

KIND = "deliver"

log = logging.getLogger(__name__)


def run_outputs(settings: Settings) -> int:
    """Deliver, escalate, clean up and write heartbeats until SIGTERM or SIGINT.

    Returns
    -------
    int
        Exit status.

    Raises
    ------
    DestinationsError, SchemaMismatch
    """
    setup_logging(settings, KIND)
    complaint_at_start(settings)
    db = Database(settings.database_url)
    require_head(db)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    metrics = serve_metrics(settings, KIND, clock=db)
    threads = [
        threading.Thread(target=run_deliveries, args=(settings, stop), name="deliveries", daemon=True),
        threading.Thread(target=run_upkeep, args=(settings, stop), name="upkeep", daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        if beat(db, KIND, stop, lambda: all(thread.is_alive() for thread in threads)):
            return 0
        log.error("a thread of deliveries ended")  # whoever started this process starts it again
        return 1
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=CLAIM_MARGIN_S)
        if metrics is not None:
            metrics.close()
        db.dispose()
