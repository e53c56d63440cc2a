"""What one process of a listener runs: associations, rows; where it leads, the inbox and the assembler's timers."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from dicom_listener.inbox.admission import Admission, unrecorded
from dicom_listener.inbox.watcher import Inbox
from dicom_listener.intake.pace import Pace
from dicom_listener.intake.storage import Storage
from dicom_listener.peers.refusals import DoorBook
from dicom_listener.scp.associations import Associations
from dicom_listener.scp.handlers import Handlers
from dicom_listener.scp.server import Scp
from dicom_listener.stow.listening import stow_listener
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

if TYPE_CHECKING:
    from dicom_listener.stow.door import StowDoor

LOGGER = logging.getLogger(__name__)


class Intake:
    """The parts of one process.

    Every process serves associations, writes the rows of what they bring, and keeps a heartbeat. One of those that
    share a port leads: it watches the inbox, serves STOW-RS, compares spool and rows, closes studies and rings the
    doorbell.

    Parameters
    ----------
    on_ended : callable, optional
        Called when the end of a delivery is written; by default, this process looks at what may close.
    details : dict, optional
        Of the process's row.
    """

    def __init__(
        self, settings: Settings, on_ended: Callable[[], None] | None = None, details: dict[str, Any] | None = None
    ) -> None:
        self.settings = settings
        self.db = Database(settings.database_url)
        self.id = uuid.uuid4().hex
        self.row = own_process(self.id, LISTENER)
        self.row.details = details or {}
        self.storage = Storage(settings)
        self.doorbell = Doorbell(self.db, settings)
        self.closer = Closer(self.db, settings, self.row, self.doorbell)
        assembler = Assembler(self.db, self.id, settings.max_wait_s)
        self.writer = RowWriter(assembler, self.storage.spool, on_ended or self.closer.wake)
        self.door = DoorBook(self.db)
        self.pace = Pace(self.db)
        handlers = Handlers(settings, self.storage, self.writer, self.id, self.pace)
        self.associations = Associations(settings, handlers, self.writer, self.door.note)
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
        self._transfer_syntaxes = handlers.transfer_syntaxes
        self.stow: StowDoor | None = None
        self.leads = False

    def take_stow(self, listener: socket.socket | None) -> None:
        """Serve STOW-RS on a socket that listens, once this process leads; None: not at all."""
        if listener is None:
            return
        from dicom_listener.stow.door import StowDoor  # a server of HTTP, which few listeners need
        from dicom_listener.stow.request import Admission

        admission = Admission(self.storage, self.writer, self.pace, self.id, self._transfer_syntaxes)
        self.stow = StowDoor(self.settings, listener, admission, self.door.note)

    def prepare(self) -> None:
        """Make sure that there is a database and an inbox, and begin to count as alive. Raises FirstreadError."""
        require_head(self.db)
        self.inbox.prepare()
        write_heartbeat(self.db, self.row)

    def run(self) -> None:
        """Be ready for associations."""
        for part in (self.door, self.writer, self.closer, self.pace):
            part.start()

    def lead(self) -> None:
        """Do what one process alone does, from now on."""
        if not self.leads:
            self.leads = True
            self.closer.lead()
            for part in (self.doorbell, self.inbox, self.reconciler):
                part.start()
            if self.stow is not None:
                self.stow.start()

    def close(self) -> None:
        """Write what is in hand, end."""
        if self.stow is not None:
            self.stow.stop()
        if self.leads:
            self.reconciler.stop()
        self.associations.stop()
        self.pace.stop()
        self.door.stop()
        if self.leads:
            self.inbox.stop()
        self.writer.stop()
        self.closer.stop()
        if self.leads:
            self.doorbell.stop()
        self.forget()

    def forget(self) -> None:
        """Count as alive no longer."""
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


class ListenerService(Intake):
    """A listener that is one process, its doors included. ``start`` and ``stop`` may be called once each."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.scp = Scp(settings, self.associations, self.door.note)
        self.metrics: MetricsServer | None = None

    @property
    def port(self) -> int:
        """Port of the DICOM door."""
        return self.scp.ports[0]

    @property
    def tls_port(self) -> int:
        """Its port for TLS, where there is one."""
        return self.scp.ports[1]

    def start(self) -> None:
        """Open the doors. Raises FirstreadError with what a person can do about it."""
        self.prepare()
        self.associations.limits.warn_of_few(self.settings)
        try:
            if MULTIPROCESS_VARIABLE not in os.environ:
                self.metrics = serve_metrics(self.settings, "listen", self.db)
            self.take_stow(stow_listener(self.settings))
            self.scp.start()
        except FirstreadError:
            if self.stow is not None:
                self.stow.stop()
            if self.metrics is not None:
                self.metrics.close()
            self.forget()
            raise
        self.run()
        self.lead()

    def stop(self) -> None:
        """Close the doors, write what is in hand, end."""
        self.scp.stop()
        self.close()
        if self.metrics is not None:
            self.metrics.close()


def keep_garbage_small() -> None:
    """pynetdicom collects garbage every few seconds, and every association waits for it: a fifth of a second as long as
    it looks through all the modules too.
    """
    gc.collect()
    gc.freeze()


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set, where this is called in the main thread."""
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
    return stop


def run_listener(settings: Settings) -> int:
    """Run a listener of one process until SIGTERM or SIGINT; returns the exit code."""
    stop = stop_event()
    setup_logging(settings, "listen")
    service = ListenerService(settings)
    service.start()
    try:
        keep_garbage_small()
        stop.wait()
    finally:
        service.stop()
    return 0
