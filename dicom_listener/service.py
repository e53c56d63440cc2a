"""The listener process: the two doors, the assembler, and what keeps time."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable
from types import FrameType

from dicom_listener.assembler import Assembler
from dicom_listener.closer import Closer
from dicom_listener.doorbell import Doorbell
from dicom_listener.handlers import Handlers
from dicom_listener.rows import RowWriter
from dicom_listener.scp import Scp
from dicom_listener.storage import Storage
from firstread.clock import utcnow
from firstread.records import Database, Listener
from firstread.records.migrate import require_head
from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)


class ListenerService:
    """Everything that one listener process runs. ``start`` and ``stop`` may be called once each."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.db = Database(settings.database_url)
        self.id = uuid.uuid4().hex
        now = utcnow()
        self.row = Listener(id=self.id, host=socket.gethostname(), pid=os.getpid(), started_at=now, heartbeat_at=now)
        self.storage = Storage(settings)
        self.writer = RowWriter(Assembler(self.db, self.id), self.storage.spool)
        self.doorbell = Doorbell(self.db, settings)
        self.closer = Closer(self.db, settings, self.row, self.doorbell)
        self.scp = Scp(settings, Handlers(settings, self.storage, self.writer, self.id), self.writer)

    @property
    def port(self) -> int:
        """Port of the DICOM door."""
        return self.scp.port

    def start(self) -> None:
        """Open the doors. Raises FirstreadError with what a person can do about it."""
        require_head(self.db)
        self.closer.start()
        self.writer.start()
        self.doorbell.start()
        self.scp.start()
        LOGGER.info("listening on %s:%s as %s", self.settings.dicom_host, self.port, self.settings.ae_title)

    def stop(self) -> None:
        """Close the doors, write what is in hand, end."""
        self.scp.stop()
        self.writer.stop()
        self.closer.stop()
        self.doorbell.stop()
        self.db.dispose()


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
    service = ListenerService(settings)
    service.start()
    try:
        if ready_callback:
            ready_callback(service)
        while not stop.wait(0.5):
            pass
    finally:
        service.stop()
    return 0
