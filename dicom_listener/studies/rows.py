"""The one thread that writes rows: few commits for many objects, and patience with a database that is away."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dicom_listener import metrics
from dicom_listener.intake.arrivals import Ending, Entry, Overloaded
from dicom_listener.studies.assembler import Assembler, Registered
from firstread.clock import monotonic
from firstread.processes.lasting import lasting_thread
from firstread.records import is_away
from firstread.storage.spool import Spool

LOGGER = logging.getLogger(__name__)
GROUP_SIZE = 200
BACKLOG = 2000
GATHER_S = 0.5
"""A commit costs as much as fifty images in it, so a group waits this long for company."""
RETRY_S = 0.5
RETRY_LIMIT_S = 10.0


class RowWriter:
    """Queue and thread between the doors and the :class:`Assembler`.

    Order is kept, so the end of a delivery is written after all that it delivered. An entry that the database refuses
    for itself is logged and counted; its file stays, and the next start tries it again. ``on_ended`` is called once the
    end of a delivery is written.
    """

    def __init__(self, assembler: Assembler, spool: Spool, on_ended: Callable[[], None]) -> None:
        self._assembler = assembler
        self._spool = spool
        self._on_ended = on_ended
        self._queue: queue.Queue[Entry | None] = queue.Queue(BACKLOG)
        self._stopping = threading.Event()
        self._thread = lasting_thread(self._run, "row-writer")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, entry: Entry, timeout_s: float = 20.0) -> None:
        """Hand an entry over; waits while the backlog is full. Raises :class:`Overloaded` after ``timeout_s``."""
        try:
            self._queue.put(entry, timeout=timeout_s)
        except queue.Full:
            raise Overloaded("the database does not keep up") from None

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until everything that was handed over is written; False when the time is over."""
        end = monotonic() + timeout_s
        while self._queue.unfinished_tasks and monotonic() < end:
            time.sleep(0.005)
        return not self._queue.unfinished_tasks

    def stop(self, timeout_s: float = 30.0) -> None:
        """Write what waits, then end. What the time does not allow is found again at the next start."""
        self.flush(timeout_s)
        self._stopping.set()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            LOGGER.warning("rows not written in time; they follow at the next start")
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            group = self._take()
            if group:
                self._write(group)
                if any(isinstance(entry, Ending) for entry in group):
                    self._on_ended()
            for _ in group:
                self._queue.task_done()

    def _take(self) -> list[Entry]:
        """The next group: what comes within ``GATHER_S``, sooner where a delivery ends or the group is full."""
        group: list[Entry] = []
        end = 0.0
        while len(group) < GROUP_SIZE:
            try:
                entry = self._queue.get(timeout=max(0.0, end - monotonic()) if group else None)
            except queue.Empty:
                break
            if entry is None:
                self._queue.task_done()
                break
            group.append(entry)
            if isinstance(entry, Ending) and self._queue.empty():
                break
            end = end or monotonic() + GATHER_S
        return group

    def _write(self, group: Sequence[Entry]) -> None:
        wait_s = RETRY_S
        while True:
            try:
                self._account(self._assembler.write(group))
                return
            except SQLAlchemyError as error:
                kind = type(error.orig).__name__ if isinstance(error, DBAPIError) else type(error).__name__
                if is_away(error):
                    LOGGER.error("database not available (%s); rows wait", kind)
                    metrics.ROW_FAILURES.labels(reason="unavailable").inc()
                    if self._stopping.wait(wait_s):
                        return
                    wait_s = min(wait_s * 2, RETRY_LIMIT_S)
                    continue
                if len(group) > 1:
                    for entry in group:
                        self._write([entry])
                    return
                LOGGER.error("a row of type %s was refused by the database (%s)", type(group[0]).__name__, kind)
                metrics.ROW_FAILURES.labels(reason="refused").inc()
                return
            except Exception:
                LOGGER.exception("rows not written; they follow at the next start")
                metrics.ROW_FAILURES.labels(reason="error").inc(len(group))
                return

    def _account(self, done: Registered) -> None:
        for outcome, size_bytes in done.outcomes:
            metrics.RECEIVED_INSTANCES.labels(outcome=outcome).inc()
            metrics.RECEIVED_BYTES.inc(size_bytes)
        metrics.EARLY_CLOSES.labels(outcome="went_on").inc(done.went_on)
        for refusal in done.refusals:
            metrics.INTAKE_REFUSALS.labels(reason=refusal.reason).inc()
            LOGGER.warning("refusal %d through %s: %s", refusal.id, refusal.source, refusal.reason)
        for key in done.superfluous:
            try:
                self._spool.delete(key)
            except OSError as error:
                LOGGER.warning(
                    "the copy of an image that came again stays until the next start (%s)", error.strerror or error
                )
