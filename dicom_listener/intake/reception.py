"""One object that a network door gets: to the disk while it comes, then stored or refused, and never held whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from dicom_listener import metrics
from dicom_listener.intake.arrivals import Arrival, IncomingDelivery, Overloaded, Rows
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.status import SUCCESS, StoreFailure, failure_of
from dicom_listener.intake.storage import Incoming, Storage, Writing, refusal_of
from firstread.dicom.files import Header, NotDicom, UnusableFile

LOGGER = logging.getLogger(__name__)
PATIENCE: Final = 4
"""Times the size limit that a data set may take before its sender is cut off."""
LOOK_AT_DISK_BYTES: Final = 64 * 2**20
"""So often the free space is looked at again while an object comes."""


class Endless(Exception):
    """An object that goes on beyond all patience."""


class Reception:
    """Takes the bytes of one data set.

    An object that cannot be stored is read to its end and dropped, so that its sender gets a status and can go on with
    the next one. One that goes on to :data:`PATIENCE` times the size limit ends the delivery.

    Parameters
    ----------
    incoming : Incoming
        What was announced; without bytes.
    check : callable
        Called with the header; raises UnusableFile for an object that is not wanted.
    fault : UnusableFile or None
        Why the object is refused whatever its data set is.
    """

    def __init__(
        self,
        storage: Storage,
        rows: Rows,
        incoming: Incoming,
        note: IntakeNote,
        delivery: IncomingDelivery,
        check: Callable[[Header], None] = lambda header: None,
        fault: UnusableFile | None = None,
    ) -> None:
        self._storage = storage
        self._rows = rows
        self._incoming = incoming
        self._note = note
        self._delivery = delivery
        self._check = check
        self._fault = fault
        self._size = 0
        self._look_at = 0
        self._writing: Writing | None = None
        self._failure: StoreFailure | None = None

    def write(self, data: memoryview) -> None:
        """Take the next bytes. Raises :class:`Endless` for an object without an end."""
        self._size += len(data)
        if self._failure is not None:
            self._check_end()
            return
        try:
            if self._size > self._storage.limit_bytes:
                raise self._storage.too_large()
            if self._size > self._look_at:
                self._storage.spool.check_space(len(data))
                self._look_at = self._size + LOOK_AT_DISK_BYTES
            if self._writing is None:
                self._writing = self._storage.begin(self._incoming, self._note)
            self._writing.write(data)
        except (OSError, UnusableFile) as error:
            if isinstance(error, OSError):
                LOGGER.error("object refused: the spool takes nothing (%s)", error.strerror or error)
            self._failure = failure_of(error)
            self.discard()
            self._check_end()

    def _check_end(self) -> None:
        if self._size > PATIENCE * self._storage.limit_bytes:
            assert self._failure is not None
            self._refuse(self._failure)
            raise Endless

    def finish(self) -> tuple[int, str]:
        """Store the object; the status of a C-STORE, and an error comment."""
        done = self.conclude()
        return (SUCCESS, "") if isinstance(done, Arrival) else (done.status, done.comment)

    def conclude(self) -> Arrival | StoreFailure:
        """Store the object: what arrived, once it is safe, or why it is not stored."""
        started = time.perf_counter()
        try:
            return self._refuse(self._failure) if self._failure is not None else self._store()
        finally:
            self.discard()
            metrics.STORE_SECONDS.observe(time.perf_counter() - started)

    def discard(self) -> None:
        """Drop what is not stored."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _store(self) -> Arrival | StoreFailure:
        try:
            if self._writing is None or not self._size:
                raise NotDicom("no_dataset", "nothing was sent of a data set")
            if self._fault is not None:
                raise self._fault
            arrival = self._writing.keep(partial(self._header, self._writing), self._delivery)
        except UnusableFile as error:
            return self._turn_down(failure_of(error))
        except OSError as error:
            LOGGER.error("object refused: the spool takes nothing (%s)", error.strerror or error)
            return self._turn_down(failure_of(error))
        except Exception as error:
            LOGGER.exception("an object broke its reader")
            return self._turn_down(failure_of(error))
        try:
            self._rows.put(arrival)
        except Overloaded as error:
            self._storage.spool.delete(arrival.spool_key)
            failure = failure_of(error)
            metrics.INTAKE_REFUSALS.labels(reason=failure.reason).inc()
            return failure
        return arrival

    def _header(self, writing: Writing) -> Header:
        header = writing.header()
        self._check(header)
        return header

    def _turn_down(self, failure: StoreFailure) -> StoreFailure:
        """Answer with a failure; what sending again would not help is kept, so that a person can look at it."""
        if not failure.is_kept:
            return self._refuse(failure)
        chunks = self._writing.chunks() if self._writing is not None else ()
        bytes_to_keep = replace(self._incoming, chunks=chunks, size_bytes=self._size)
        try:
            self._rows.put(self._storage.keep_refused(bytes_to_keep, self._note, failure.reason, failure.detail))
        except Overloaded:
            LOGGER.error("a refusal was not recorded: the database does not keep up")
        return failure

    def _refuse(self, failure: StoreFailure) -> StoreFailure:
        """Refuse without keeping; one row a delivery and reason, since a sender may try again for hours."""
        if failure.reason not in self._delivery.refused_for:
            self._delivery.refused_for.add(failure.reason)
            refused_note = replace(self._note, reason=failure.reason, detail=failure.detail)
            try:
                self._rows.put(refusal_of(refused_note, None), timeout_s=1.0)
            except Overloaded:
                LOGGER.error("a refusal was not recorded: the database does not keep up")
        else:
            metrics.INTAKE_REFUSALS.labels(reason=failure.reason).inc()
        return failure
