"""What the inbox takes in: bytes as a claimed file, and all that must hold of what became of it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dicom_listener.inbox.admission import Admission
from dicom_listener.inbox.claims import InboxClaim, look_of
from dicom_listener.inbox.wholeness import judge
from dicom_listener.intake.arrivals import Arrival, Entry, IncomingDelivery, Refusal
from dicom_listener.intake.storage import Storage
from firstread.codes import REFUSAL_CODES
from firstread.dicom.datasets import opened as opened_file
from firstread.dicom.files import header_of
from tests.builders.site import settings_in
from tests.fuzz.bounds import Bounds
from tests.fuzz.door import Broken, Feed

ZIP_MAX_MB: Final = 16
ZIP_MAX_FILES: Final = 50


class _Rows:
    """Keeps what would become rows."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def put(self, entry: Entry, timeout_s: float = 0.0) -> None:
        self.entries.append(entry)

    def taken(self) -> tuple[list[Arrival], list[Refusal]]:
        entries, self.entries = self.entries, []
        return [e for e in entries if isinstance(e, Arrival)], [e for e in entries if isinstance(e, Refusal)]


Look = Callable[[Path], str]
"""Goes on with a stored file; says what came of it, or raises :class:`Broken`."""


class Inbox:
    """An inbox with nobody around it.

    Parameters
    ----------
    folder : Path
        Of its own.
    place : Path
        Where files are dropped, below the inbox.
    look : callable, optional
        What is done with each file that was stored.
    """

    def __init__(self, folder: Path, place: Path, look: Look = lambda _path: "") -> None:
        self._folder = folder
        self._place = place
        self._look = look
        values = {"zip_max_mb": ZIP_MAX_MB, "zip_max_files": ZIP_MAX_FILES, "max_instance_mb": 64}
        settings = settings_in(folder / "home", **values)
        self._inbox = settings.inbox_dir
        self._storage = Storage(settings)
        self._rows = _Rows()
        self._admission = Admission(settings, self._storage, self._rows, "fuzz")
        self._claims = self._inbox / ".claimed" / "fuzz"
        self._bounds = Bounds()
        self._expected = set(folder.iterdir()) | {folder / "home"}

    def feed(self, data: bytes) -> str:
        """One file; the outcome."""
        path = self._claims / uuid.uuid4().hex / self._place
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        claim = InboxClaim(path, self._place, looked=look_of(path))
        delivery = IncomingDelivery("inbox")
        with self._bounds.kept():
            judge(path)
            is_taken = self._admission.admit(claim, delivery)
        arrivals, refusals = self._rows.taken()
        try:
            self._check(data, is_taken, path, arrivals, refusals)
            words = [self._stored(arrival) for arrival in arrivals]
        finally:
            self._tidy()
        outcome = [f"stored {word}".strip() for word in words] + [refusal.reason for refusal in refusals]
        return ", ".join(sorted(set(outcome))) or "nothing"

    def _check(self, data: bytes, is_taken: bool, path: Path, arrivals: list[Arrival], refusals: list[Refusal]) -> None:
        if not arrivals and not refusals:
            raise Broken("a file left no row")
        if is_taken != path.exists():
            raise Broken("a file that was taken is gone, or a refused one is still there")
        for refusal in refusals:
            if refusal.reason == "error":
                raise Broken(f"a file broke its reader: {_last_error()}")
            if refusal.reason not in REFUSAL_CODES:
                raise Broken(f"a reason that is not in the documents: {refusal.reason}")
            kept = Path(refusal.kept_path or "")
            if not kept.is_relative_to(self._inbox / "rejected") or not kept.is_file():
                raise Broken("a refused file was not kept in the folder for them")
            if not kept.with_name(kept.name + ".txt").is_file():
                raise Broken("a refused file has no text beside it")
        if not is_taken and len(refusals) == 1 and Path(refusals[0].kept_path or "").read_bytes() != data:
            raise Broken("a refused file was changed")
        outside = set(self._folder.iterdir()) - self._expected
        if outside:
            raise Broken("something was written outside of the home")
        if list(self._storage.spool.root.rglob("*.part")) or list(self._claims.rglob(".unpacked")):
            raise Broken("something unfinished was left behind")
        if len([p for p in self._storage.spool.root.rglob("*") if p.is_file()]) != len(arrivals):
            raise Broken("a file in the spool has no row")

    def _stored(self, arrival: Arrival) -> str:
        """A stored file says what its row says."""
        path = self._storage.spool.path(arrival.spool_key)
        with opened_file(path) as content:
            body = path.read_bytes()[content.body_offset :]
            if hashlib.sha256(body).hexdigest() != arrival.sha256:
                raise Broken("the digest is not that of the stored file")
            header = header_of(content.ds, content.ds.file_meta, content.notes)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "patient_key", "Rows", "Columns"):
            if getattr(header, name) != getattr(arrival.header, name):
                raise Broken(f"the stored file has another {name} than its row")
        return self._look(path)

    def _tidy(self) -> None:
        for place in (self._claims, self._inbox / "rejected"):
            shutil.rmtree(place, ignore_errors=True)
        for path in self._storage.spool.root.rglob("*.dcm"):  # its folders are known to be synced
            path.unlink()


class _LastError(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            from tests.fuzz.findings import signature_of

            error = record.exc_info[1]
            self.words = signature_of(error) if isinstance(error, Exception) else type(error).__name__


_LAST = _LastError()


def _last_error() -> str:
    return _LAST.words


@contextlib.contextmanager
def inbox(folder: Path, place: Path, look: Look = lambda _path: "") -> Iterator[Feed]:
    """An :class:`Inbox`, to be fed."""
    logger = logging.getLogger("dicom_listener.inbox")
    logger.addHandler(_LAST)
    logger.propagate = False
    try:
        yield Inbox(folder, place, look).feed
    finally:
        logger.removeHandler(_LAST)
        logger.propagate = True
