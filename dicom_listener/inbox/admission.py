"""What becomes of a file that the inbox has claimed: instances, or a place in ``rejected`` with the reason."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

from dicom_listener.inbox.archive import Member, members, open_archive, safe_name, unpack
from dicom_listener.inbox.claims import InboxClaim, RefusedFiles
from dicom_listener.inbox.files import (
    ACCEPTED,
    EXPLANATION_SUFFIX,
    REJECTED,
    UNPACKED,
    as_text,
    display_name,
    free_path,
    kept_name,
    kept_path,
    pipeline_of,
)
from dicom_listener.inbox.kinds import format_of, head_of, kind_of
from dicom_listener.inbox.parsed import NO_TRANSFER_SYNTAX, ParsedFile, parsed_of
from dicom_listener.intake.arrivals import Arrival, IncomingDelivery, Overloaded, Refusal, Rows
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.storage import Incoming, Storage, refusal_of
from firstread import effects
from firstread.clock import utcnow
from firstread.dicom.datasets import opened
from firstread.dicom.files import NoStudy, UnusableFile
from firstread.settings import Settings
from firstread.storage import disk
from firstread.storage.faults import machine_fault, raise_fault
from firstread.storage.home import make_like, share
from firstread.storage.spool import DiskFull

LOGGER = logging.getLogger(__name__)
CHUNK_BYTES = 2**20
MEMBERS = ".members"
EXPLANATION = """reason: {reason}
detail: {detail}
dropped as: {name}
refused at: {at}

This file was not read. It is kept as it came; put it right and drop it into the inbox again, or delete it.
"""


class TryLater(Exception):
    """Nothing is wrong with the file: the spool takes nothing, or the database does not keep up."""


class StillWritten(Exception):
    """The file changed after it was claimed: what was read of it is not all."""


class Admission:
    """Turns claimed files into durable instances.

    Parameters
    ----------
    settings : Settings
        Limits, and whether accepted files are kept.
    storage : Storage
        Where bytes go.
    rows : Rows
        Where rows go.
    listener_id : str
        Written into every note.
    """

    def __init__(self, settings: Settings, storage: Storage, rows: Rows, listener_id: str) -> None:
        self._settings = settings
        self._storage = storage
        self._rows = rows
        self._listener_id = listener_id
        self._root = settings.inbox_dir
        self.refused_files = RefusedFiles()

    def admit(self, claim: InboxClaim, delivery: IncomingDelivery) -> bool:
        """Take a claimed file in, which stays where it is for :meth:`put_away`, or refuse it, which moves it.

        Returns
        -------
        bool
            Whether it was taken in.

        Raises
        ------
        TryLater, StillWritten
            With the file where it was.
        OSError
            If a refused file cannot be moved.
        """
        try:
            self._take(claim, delivery)
        except DiskFull as error:
            raise TryLater(str(error)) from error
        except Overloaded as error:
            raise TryLater(str(error)) from error
        except UnusableFile as error:
            self.reject(claim, error)
            return False
        except OSError as error:
            if machine_fault(error) is not None:
                raise TryLater(error.strerror or str(error)) from error
            self.reject(claim, _unreadable(error))
            return False
        except (StillWritten, TryLater):
            raise
        except Exception:
            LOGGER.exception("a file of the inbox broke its reader")
            self.reject(claim, UnusableFile("error", "the file broke its reader; see the log of the listener"))
            return False
        return True

    def _take(self, claim: InboxClaim, delivery: IncomingDelivery) -> None:
        if kind_of(claim.path) == "zip":
            self._admit_archive(claim, delivery)
        else:
            self._admit_file(claim, delivery)

    def reject(self, claim: InboxClaim, error: UnusableFile) -> None:
        """Move a file to ``rejected`` with a text beside it that says why, and record it.

        Raises
        ------
        StillWritten
            If the file has changed since it was claimed: what is wrong with it may be mended.
        OSError
            If it cannot be moved.
        """
        if claim.has_changed():
            raise StillWritten
        place = self._place_of(claim)
        make_like(place.parent, self._root)
        place = free_path(place)
        note = self._note(claim, reason=error.reason, detail=error.detail or None)
        explanation = EXPLANATION.format(
            reason=error.reason, detail=error.detail or "-", name=claim.name, at=note.received_at
        )
        beside = place.with_name(place.name + EXPLANATION_SUFFIX)
        with effects.INBOX_EXPLAIN:
            beside.write_text(explanation, encoding="utf-8")
        for ours in (beside, claim.path) if claim.member is not None else (beside,):
            share(ours, self._root)
        try:
            disk.rename(effects.INBOX_REJECT, claim.path, place)
            for folder in place.parents:  # each may be new, and a power cut takes what its own parent does not know
                disk.sync_folder(effects.INBOX_REJECT_SYNC, folder)
                if folder == self._root:
                    break
        except OSError as error:
            if not place.exists():
                raise
            LOGGER.warning("a refused file was moved, and then: %s", error.strerror)  # its row must not be missing
        self.refused_files.watch(place, claim)
        try:
            self._rows.put(refusal_of(note, as_text(place)), timeout_s=60.0)
        except Overloaded:
            LOGGER.error("a refusal was not recorded: the database does not keep up; the next start does")

    def _place_of(self, claim: InboxClaim) -> Path:
        """Where a refused file is kept; two tries, for a folder may have the name of a file that was refused before."""
        wanted = kept_path(claim.relative)
        if claim.member is not None:
            wanted = wanted.with_name(kept_name(wanted.name, len(MEMBERS)) + MEMBERS) / safe_name(claim.member)
        place = self._root / REJECTED / wanted
        if any(folder.exists() and not folder.is_dir() for folder in place.parents):
            place = self._root / REJECTED / uuid.uuid4().hex / wanted
        return place

    def _note(self, claim: InboxClaim, reason: str | None = None, detail: str | None = None) -> IntakeNote:
        return IntakeNote(
            source="inbox",
            source_name=claim.name,
            received_at=utcnow().isoformat(),
            listener_id=self._listener_id,
            pipeline_hint=pipeline_of(claim.relative),
            reason=reason,
            detail=detail,
        )

    def _admit_file(self, claim: InboxClaim, delivery: IncomingDelivery) -> None:
        kind = kind_of(claim.path)
        if kind == "empty":
            raise UnusableFile("empty", "the file has no bytes")
        if kind == "zip":
            raise UnusableFile("nested_archive", "an archive in an archive is not opened")
        if kind == "foreign":
            format_name = format_of(head_of(claim.path))
            raise UnusableFile(
                "unsupported_format", f"{format_name}; DICOM, JPEG and PNG are read, and zip archives of them"
            )
        if kind == "picture":
            from dicom_listener.inbox.picture import wrap_picture

            wrapped = wrap_picture(claim.path, pipeline_of(claim.relative))
            incoming = Incoming(
                [wrapped.body],
                len(wrapped.body),
                wrapped.TransferSyntaxUID,
                wrapped.SOPClassUID,
                wrapped.SOPInstanceUID,
                header=lambda: wrapped.header,
            )
            self._hand_in(claim, self._store(incoming, self._note(claim), delivery))
            return
        parsed = claim.parsed or _parse(claim.path)
        if parsed.is_dicomdir:
            raise NoStudy("dicomdir", "a DICOMDIR names files and holds no image")
        if "truncated" in parsed.notes and pipeline_of(claim.relative) is None:
            raise UnusableFile("truncated", "the file ends before its data set does")
        with claim.path.open("rb") as source:
            size = source.seek(0, os.SEEK_END) - parsed.body_offset
            source.seek(parsed.body_offset)
            incoming = Incoming(
                _chunks(source),
                size,
                parsed.transfer_syntax_uid,
                parsed.sop_class_uid,
                parsed.sop_instance_uid,
                parsed.source_ae,
                parsed.header,
            )
            odd = tuple(code for code in parsed.notes if code == NO_TRANSFER_SYNTAX)
            note = replace(self._note(claim), warnings=odd)
            self._hand_in(claim, self._store(incoming, note, delivery))

    def _store(self, incoming: Incoming, note: IntakeNote, delivery: IncomingDelivery) -> Arrival:
        """Make it durable. A spool that cannot be written says nothing against the file: :class:`TryLater`."""
        try:
            return self._storage.store(incoming, note, delivery)
        except DiskFull:
            raise
        except OSError as error:
            raise TryLater(f"the spool takes nothing ({error.strerror})") from error

    def _hand_in(self, claim: InboxClaim, arrival: Arrival) -> None:
        try:
            if claim.has_changed():
                raise StillWritten
            self._rows.put(arrival)
        except (Overloaded, StillWritten, OSError):
            # OSError: we stood still for so long that another listener has given the file back, and takes it in.
            self._storage.spool.delete(arrival.spool_key)
            raise

    def _admit_archive(self, claim: InboxClaim, delivery: IncomingDelivery) -> None:
        """Take every member in; a bad one is refused alone. An interrupted archive starts over: repeats are noted."""
        limit = self._settings.zip_max_mb * 2**20
        folder = claim.path.with_name(UNPACKED)
        try:
            with open_archive(claim.path) as archive:
                for member in members(archive, limit, self._settings.zip_max_files):
                    self._admit_member(claim, delivery, folder, archive, member)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _admit_member(
        self, claim: InboxClaim, delivery: IncomingDelivery, folder: Path, archive: ZipFile, member: Member
    ) -> None:
        self._storage.spool.check_space(2 * member.info.file_size)
        inner = InboxClaim(folder / "member", claim.relative, member.name)
        try:
            _unpack_beside(archive, member, inner.path)
            self._admit_file(inner, delivery)
        except UnusableFile as error:
            self.reject(inner, error)
        inner.path.unlink(missing_ok=True)

    def put_away(self, claim: InboxClaim) -> None:
        """Remove a file that was taken in, or keep it where the setting says so. Raises OSError."""
        if self._settings.inbox_keep_accepted:
            place = self._root / ACCEPTED / kept_path(claim.relative)
            make_like(place.parent, self._root)
            disk.rename(effects.INBOX_KEEP, claim.path, free_path(place))
        else:
            disk.unlink(effects.INBOX_REMOVE, claim.path)


def _parse(path: Path) -> ParsedFile:
    with opened(path) as content:
        return parsed_of(content)


def _unpack_beside(archive: ZipFile, member: Member, path: Path) -> None:
    """Write one member beside its archive. A place that takes nothing says nothing against it: :class:`TryLater`."""
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as target, effects.INBOX_UNPACK:
            unpack(archive, member, target)
    except OSError as error:
        if error.errno == errno.EFBIG:  # the file system takes no file of this size, later neither
            raise
        raise TryLater(f"an archive cannot be unpacked in its folder ({error.strerror})") from error


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    """Raises UnusableFile where the file cannot be read to its end."""
    try:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        raise_fault(error)
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UnusableFile:
    return UnusableFile("unreadable", f"the file cannot be read ({error.strerror})")


def unrecorded(root: Path, known: Callable[[str], bool], listener_id: str) -> Iterator[Refusal]:
    """Refusals whose file lies in ``rejected`` but whose row was never written, from the text beside it."""
    for explanation in sorted((root / REJECTED).rglob(f"*{EXPLANATION_SUFFIX}")):
        refused = explanation.with_name(explanation.name.removesuffix(EXPLANATION_SUFFIX))
        path = as_text(refused)
        # rows of earlier versions name the file as it was shown
        if not refused.is_file() or known(path) or known(display_name(refused)):
            continue
        fields = dict(
            line.split(": ", 1)
            for line in explanation.read_text(encoding="utf-8", errors="replace").splitlines()
            if ": " in line
        )
        if not {"reason", "dropped as", "refused at"} <= fields.keys():
            continue
        note = IntakeNote(
            source="inbox",
            source_name=fields["dropped as"],
            received_at=fields["refused at"],
            listener_id=listener_id,
            reason=fields["reason"],
            detail=fields.get("detail"),
        )
        yield refusal_of(note, path)
