"""The listener process: the two doors, the assembler, and what keeps time."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import uuid
from collections.abc import Callable
from types import FrameType

from sqlalchemy import select

from dicom_listener.inbox.admission import Admission, unrecorded
from dicom_listener.inbox.watcher import Inbox
from dicom_listener.intake.storage import Storage
from dicom_listener.scp.handlers import Handlers
from dicom_listener.scp.refusals import DoorBook
from dicom_listener.scp.server import Scp
from dicom_listener.studies.assembler import Assembler
from dicom_listener.studies.doorbell import Doorbell
from dicom_listener.studies.reconcile import Reconciler
from dicom_listener.studies.rows import RowWriter
from dicom_listener.studies.timer import Closer
from firstread.errors import FirstreadError
from firstread.logs import setup_logging
from firstread.metrics.server import MULTIPROCESS_VARIABLE, MetricsServer, serve_metrics
from firstread.records import LISTENER, Database, IntakeRefusal, own_process, remove_process, write_heartbeat
from firstread.records.migrate import require_head
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)


class ListenerService:
    """Everything that one listener process runs. ``start`` and ``stop`` may be called once each."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.db = Database(settings.database_url)
        self.id = uuid.uuid4().hex
        self.row = own_process(self.id, LISTENER)
        self.storage = Storage(settings)
        self.doorbell = Doorbell(self.db, settings)
        self.closer = Closer(self.db, settings, self.row, self.doorbell)
        assembler = Assembler(self.db, self.id, settings.max_wait_s)
        self.writer = RowWriter(assembler, self.storage.spool, self.closer.wake)
        self.door = DoorBook(self.db)
        handlers = Handlers(settings, self.storage, self.writer, self.id)
        self.scp = Scp(settings, handlers, self.writer, self.door.note)
        admission = Admission(settings, self.storage, self.writer, self.id)
        self.inbox = Inbox(settings, admission, self.writer, self.id)
        self.reconciler = Reconciler(
            self.db,
            self.storage,
            self.writer,
            self.row,
            self.closer.lost,
            self.closer.reconciled,
            self._take_over_inbox,
        )
        self.metrics: MetricsServer | None = None

    @property
    def port(self) -> int:
        """Port of the DICOM door."""
        return self.scp.port

    def start(self) -> None:
        """Open the doors. Raises FirstreadError with what a person can do about it."""
        require_head(self.db)
        self.inbox.prepare()
        write_heartbeat(self.db, self.row)
        try:
            if MULTIPROCESS_VARIABLE not in os.environ:
                self.metrics = serve_metrics(self.settings, "listen", self.db)
            self.scp.start()
        except FirstreadError:
            if self.metrics is not None:
                self.metrics.close()
            remove_process(self.db, self.id)
            raise
        for part in (self.door, self.writer, self.closer, self.doorbell, self.inbox, self.reconciler):
            part.start()
        LOGGER.info("listening on %s:%s as %s", self.settings.dicom_host, self.port, self.settings.ae_title)

    def stop(self) -> None:
        """Close the doors, write what is in hand, end."""
        self.reconciler.stop()
        self.scp.stop()
        self.door.stop()
        self.inbox.stop()
        self.writer.stop()
        self.closer.stop()
        self.doorbell.stop()
        if self.metrics is not None:
            self.metrics.close()
        remove_process(self.db, self.id)
        self.db.dispose()

    def _take_over_inbox(self, alive: set[str]) -> None:
        """Take up what dead listeners had in hand, and record refusals that they did not come to."""
        self.inbox.take_over(alive)

        def known(path: str) -> bool:
            with self.db.read() as session:
                refusal_id = session.scalar(select(IntakeRefusal.id).where(IntakeRefusal.kept_path == path))
            return refusal_id is not None

        for refusal in unrecorded(self.settings.inbox_dir, known, self.id):
            self.writer.put(refusal)


def run_listener(
    settings: Settings,
    stop_event: threading.Event | None = None,
    ready_callback: Callable[[ListenerService], None] | None = None,
) -> int:
    """Run a listener until SIGTERM, SIGINT or ``stop_event``; returns the exit code.

    Signals are handled only where this runs in the main thread.
    """
    stop = stop_event or threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
    setup_logging(settings, "listen")
    service = ListenerService(settings)
    service.start()
    try:
        # pynetdicom collects garbage every few seconds, and every association waits for it: a fifth of a second as long
        # as it looks through all the modules too.
        gc.collect()
        gc.freeze()
        if ready_callback:
            ready_callback(service)
        while not stop.wait(0.5):
            pass
    finally:
        service.stop()
    return 0
