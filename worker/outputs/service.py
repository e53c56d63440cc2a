"""``firstread deliver``: deliveries and upkeep in a process of their own, apart from scoring."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from firstread.logs import setup_logging
from firstread.metrics.server import serve_metrics
from firstread.processes.spawning import process_id
from firstread.records import Database, own_process, remove_process, write_heartbeat
from firstread.records.migrate import require_head
from firstread.settings import Settings
from firstread.upkeep.service import run_upkeep
from worker.outputs.deliveries.lanes import run_deliveries
from worker.outputs.deliveries.rows import CLAIM_MARGIN_S
from worker.outputs.destinations.file import complaint_at_start

KIND = "deliver"
BEAT_S = 5.0

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
        return _watch(db, threads, stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=CLAIM_MARGIN_S)
        if metrics is not None:
            metrics.close()
        db.dispose()


def _watch(db: Database, threads: list[threading.Thread], stop: threading.Event) -> int:
    """Show a sign of life; end with an error when a thread ended, so that whoever started this starts it again."""
    row = own_process(process_id(KIND), KIND)
    while not stop.is_set():
        try:
            write_heartbeat(db, row)
        except SQLAlchemyError as error:
            log.warning("no sign of life: the database does not answer (%s)", type(error).__name__)
        if not all(thread.is_alive() for thread in threads):
            log.error("a thread of deliveries ended")
            return 1
        stop.wait(BEAT_S)
    try:
        remove_process(db, row.id)
    except SQLAlchemyError as error:
        log.warning("row of this process not removed (%s)", type(error).__name__)
    return 0
