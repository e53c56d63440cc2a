"""Spool and rows made to agree: every durable file has its rows, whatever happened to the process that wrote it."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from dicom_listener.intake.arrivals import Arrival
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.storage import Storage, refusal_of
from dicom_listener.studies.closing import LOST_AFTER_S
from dicom_listener.studies.rows import RowWriter
from firstread import effects
from firstread.dicom.datasets import Content, opened
from firstread.dicom.files import UnusableFile, header_of
from firstread.processes.lasting import lasting_thread
from firstread.processes.spawning import is_running
from firstread.records import LISTENER, Database, Instance, IntakeRefusal, Process, Receipt
from firstread.records.clock import now_of
from firstread.storage import disk
from firstread.storage.home import make_private

LOGGER = logging.getLogger(__name__)
CHUNK = 400
ROUND_S = 5.0
ROUNDS = 6
STRANGER_PARTIAL_S = 900.0
"""Age at which a half-written file of the spool cannot be another listener's work in progress."""


@dataclass
class Reconciled:
    """What one round found."""

    arrivals: int = 0
    refusals: int = 0
    superfluous: int = 0
    partials: int = 0
    deferred: int = 0
    """Files of a listener that lives: it writes their rows itself."""
    aside: set[str] = field(default_factory=set)
    """Paths of files that were set aside in this round: their rows are on their way."""


def alive_listeners(db: Database, own: Process) -> dict[str, Process]:
    """The other listeners that live, by id; those of this host whose process is gone are struck off."""
    with db.read() as session:
        rows = list(session.scalars(select(Process).where(Process.kind == LISTENER)))
        since = now_of(session) - timedelta(seconds=LOST_AFTER_S)
    # A row with our own pid is of a process before us: the number was given anew.
    others = [row for row in rows if row.id != own.id]
    gone = [r.id for r in others if r.host == own.host and (r.pid == own.pid or not is_running(r.pid))]
    if gone:
        with db.write(effects.STRIKE_COMMIT) as session:
            session.execute(delete(Process).where(Process.id.in_(gone)))
    return {row.id: row for row in others if row.heartbeat_at >= since and row.id not in gone}


class Reconciler:
    """A thread that runs at start, and again when another listener is found dead.

    Parameters
    ----------
    lost : threading.Event
        Set by the closer when it finds deliveries of a listener that fell silent.
    reconciled : threading.Event
        Set after the first round, when its rows are written.
    take_over : callable
        Called with the ids of the other listeners that live; gives back what the dead had claimed from the inbox.
    """

    def __init__(
        self,
        db: Database,
        storage: Storage,
        rows: RowWriter,
        listener: Process,
        lost: threading.Event,
        reconciled: threading.Event,
        take_over: Callable[[set[str]], None],
    ) -> None:
        self._db = db
        self._storage = storage
        self._rows = rows
        self._listener = listener
        self._lost = lost
        self._reconciled = reconciled
        self._take_over = take_over
        self._stopping = threading.Event()
        self._thread = lasting_thread(self._run, "reconcile")

    def start(self) -> None:
        """Begin with the first round."""
        self._thread.start()

    def stop(self) -> None:
        """End after the file in hand."""
        self._stopping.set()
        self._lost.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._lost.clear()
            for _ in range(ROUNDS):
                if not self._round() or self._stopping.wait(ROUND_S):
                    break
            while not self._lost.wait(STRANGER_PARTIAL_S):
                self._clear_partials(STRANGER_PARTIAL_S)  # of a process beside this one that was killed

    def _round(self) -> bool:
        """One round; returns whether another is needed."""
        try:
            done = self.reconcile()
        except (SQLAlchemyError, OSError) as error:
            LOGGER.error("spool and rows not compared (%s)", type(error).__name__)
            return True
        if not self._reconciled.is_set() and not self._lost.is_set():
            self._rows.flush()
            self._reconciled.set()
        if done.arrivals or done.refusals or done.superfluous or done.partials:
            LOGGER.info(
                "after a restart: %d images and %d refusals without rows, %d superfluous and %d unfinished files",
                done.arrivals,
                done.refusals,
                done.superfluous,
                done.partials,
            )
        return done.deferred > 0

    def reconcile(self) -> Reconciled:
        """Compare once. Rows are handed to the row writer; nothing is registered twice."""
        done = Reconciled()
        others = alive_listeners(self._db, self._listener)
        alive = set(others)
        self._take_over(alive)
        done.partials = self._clear_partials(self._eldest_s([self._listener, *others.values()]))
        for keys in _chunks(self._storage.spool.keys()):
            self._compare(keys, alive, done)
        for keys in _chunks(self._storage.refused.keys()):
            self._compare_refused(keys, alive, done)
        return done

    def _clear_partials(self, older_than_s: float) -> int:
        """Remove half-written files of that age; how many. One that cannot be removed now is left to the next time."""
        count = 0
        for spool in (self._storage.spool, self._storage.refused):
            try:
                count += spool.clear_partials(older_than_s)
            except OSError as error:
                LOGGER.error("half-written files stay (%s)", error.strerror)
        return count

    def _eldest_s(self, listeners: list[Process]) -> float:
        """Seconds since the first of these started, a little more: what is younger may be their work in progress."""
        if any(listener.host != self._listener.host for listener in listeners):
            return STRANGER_PARTIAL_S  # times of files are of another clock
        return (self._db.now() - min(listener.started_at for listener in listeners)).total_seconds() + 1.0

    def _compare(self, keys: list[str], alive: set[str], done: Reconciled) -> None:
        with self._db.read() as session:
            received = set(session.scalars(select(Receipt.spool_key).where(Receipt.spool_key.in_(keys))))
            wanted = set(session.scalars(select(Instance.spool_key).where(Instance.spool_key.in_(keys))))
        for key in keys:
            if self._stopping.is_set():
                return
            if key in wanted:
                continue
            if key in received:  # a repeat, whose copy was not removed in time
                self._storage.spool.delete(key)
                done.superfluous += 1
                continue
            self._restore(key, alive, done)

    def _restore(self, key: str, alive: set[str], done: Reconciled) -> None:
        path = self._storage.spool.path(key)
        try:
            with opened(path) as content:
                note = _note_in(content, path)
                if self._is_at_work(note, alive, done):
                    return
                arrival = arrival_of(key, content, note)
        except FileNotFoundError:
            return
        except UnusableFile as error:
            self._set_aside(key, path, error, done)
            return
        self._rows.put(arrival)
        done.arrivals += 1

    def _set_aside(self, key: str, path: Path, error: UnusableFile, done: Reconciled) -> None:
        """Keep a file of the spool that is no instance in the refused folder, with a row."""
        LOGGER.error("a file of the spool cannot be read (%s); it is kept in the refused folder", error.reason)
        refused_path = self._storage.refused.path(key)
        if not refused_path.exists():
            make_private(refused_path.parent)
            disk.rename(effects.SPOOL_TO_REFUSED, path, refused_path)
            note = replace(_stranger(refused_path), reason=error.reason, detail=error.detail or None)
            self._rows.put(refusal_of(note, str(refused_path)))
            done.refusals += 1
            done.aside.add(str(refused_path))
        self._storage.spool.delete(key)  # what was moved is a copy, where the spool lies in a shared store

    def _compare_refused(self, keys: list[str], alive: set[str], done: Reconciled) -> None:
        paths = {str(self._storage.refused.path(key)): key for key in keys}
        with self._db.read() as session:
            known = set(
                session.scalars(select(IntakeRefusal.kept_path).where(IntakeRefusal.kept_path.in_(list(paths))))
            )
        for path in paths.keys() - known - done.aside:
            note = refused_note_of(Path(path))
            if not self._is_at_work(note, alive, done):
                self._rows.put(refusal_of(note, path))
                done.refusals += 1

    def _is_at_work(self, note: IntakeNote, alive: set[str], done: Reconciled) -> bool:
        """Whether the listener that wrote a file lives, so that its rows are on their way."""
        if note.listener_id in alive:
            done.deferred += 1
        return note.listener_id in alive or note.listener_id == self._listener.id


def _note_in(content: Content, path: Path) -> IntakeNote:
    """The intake note of a stored file; for a file that has none, what its name and time say."""
    return IntakeNote.of(content.ds.file_meta) or _stranger(path)


def refused_note_of(path: Path) -> IntakeNote:
    """The note of a refused file, whose data set may be none at all."""
    try:
        with opened(path) as content:
            return _note_in(content, path)
    except UnusableFile as error:
        note = IntakeNote.in_bytes(_head(path)) or _stranger(path)
        return note if note.reason else replace(note, reason=error.reason)


def arrival_of(key: str, content: Content, note: IntakeNote) -> Arrival:
    """Rebuild an arrival from its open file alone.

    Raises
    ------
    UnusableFile
        If the file is no instance.
    """
    header = header_of(content.ds, content.ds.file_meta, content.notes)
    digest, size = hashlib.sha256(), 0
    content.source.seek(content.body_offset)
    while chunk := content.source.read(2**20):
        digest.update(chunk)
        size += len(chunk)
    return Arrival(key, header, note, digest.hexdigest(), size)


def _stranger(path: Path) -> IntakeNote:
    at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return IntakeNote(source="dicom", source_name=None, received_at=at.isoformat(), listener_id="")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2**16)


def _chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(keys)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
