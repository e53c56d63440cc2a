"""What becomes of a file that the inbox has claimed: instances, or a place in ``rejected`` with the reason."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

from dicom_listener.archive import Member, members, open_archive, safe_name, unpack
from dicom_listener.arrivals import Arrival, Delivery, Refusal
from dicom_listener.handlers import Rows
from dicom_listener.inbox_files import ACCEPTED, REJECTED, display_name, free_path, head_of, kind_of, pipeline_of
from dicom_listener.part10 import IntakeNote
from dicom_listener.rows import Overloaded
from dicom_listener.storage import Incoming, Storage, refusal_of
from firstread.clock import utcnow
from firstread.dicom.datasets import opened, text
from firstread.dicom.files import NoStudy, UnusableFile, read_header
from firstread.settings import Settings
from firstread.spool import DiskFull, sync_dir

LOGGER = logging.getLogger(__name__)
CHUNK_BYTES = 2**20
DICOMDIR_UID = "1.2.840.10008.1.3.10"
EXPLANATION = """reason: {reason}
detail: {detail}
dropped as: {name}
refused at: {at}

This file was not read. It is kept as it came; put it right and drop it into the inbox again, or delete it.
"""


class TryLater(Exception):
    """Nothing is wrong with the file: the disk is full, or the database does not keep up."""


@dataclass(frozen=True)
class Claim:
    """A file that is ours. ``relative`` is its path below the inbox as it was dropped."""

    path: Path
    relative: Path
    member: str | None = None

    @property
    def name(self) -> str:
        name = display_name(self.relative)
        return f"{name}/{display_name(self.member)}" if self.member is not None else name


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

    def inspect(self, path: Path) -> None:
        """Look whether a file is whole and usable, before it is claimed.

        Raises
        ------
        UnusableFile
            For what would be refused, and for what is cut off: it may still be growing.
        OSError
            If it cannot be read.
        """
        kind = kind_of(path)
        if kind == "empty":
            raise UnusableFile("empty", "the file has no bytes")
        if kind == "zip":
            with open_archive(path) as archive:
                members(archive, self._settings.zip_max_mb * 2**20, self._settings.zip_max_files)
        elif kind == "picture":
            from dicom_listener.picture import wrap_picture

            wrap_picture(path, pipeline_of(path.relative_to(self._root)))
        else:
            self._inspect_dicom(path)

    @staticmethod
    def _inspect_dicom(path: Path) -> None:
        try:
            header = read_header(path)
        except UnusableFile as error:
            # A copy may have made the file at its full size, to be filled later: then it starts with zeros.
            if error.reason == "not_dicom" and any(head_of(path)):
                raise UnusableFile("foreign", error.detail) from error
            raise
        if "truncated" in header.warnings:
            raise UnusableFile("truncated", "the file is cut off")

    def admit(self, claim: Claim, delivery: Delivery) -> None:
        """Take a claimed file in, or refuse it; either way it is gone from where it lay.

        Raises
        ------
        TryLater
            With the file where it was.
        """
        try:
            if kind_of(claim.path) == "zip":
                self._admit_archive(claim, delivery)
            else:
                self._admit_file(claim, delivery)
        except DiskFull as error:
            raise TryLater(str(error)) from error
        except Overloaded as error:
            raise TryLater(str(error)) from error
        except UnusableFile as error:
            self.reject(claim, error)
            return
        except OSError as error:
            self.reject(claim, UnusableFile("unreadable", f"the file cannot be read ({error.strerror})"))
            return
        except Exception:
            LOGGER.exception("a file of the inbox broke its reader")
            self.reject(claim, UnusableFile("error", "the file broke its reader; see the log of the listener"))
            return
        self._put_away(claim)

    def reject(self, claim: Claim, error: UnusableFile) -> None:
        """Move a file to ``rejected`` with a text beside it that says why, and record it."""
        wanted = claim.relative
        if claim.member is not None:
            wanted = claim.relative.with_name(claim.relative.name + ".members") / safe_name(claim.member)
        place = self._root / REJECTED / wanted
        place.parent.mkdir(parents=True, exist_ok=True)
        place = free_path(place)
        note = self._note(claim, reason=error.reason, detail=error.detail or None)
        explanation = EXPLANATION.format(
            reason=error.reason, detail=error.detail or "-", name=claim.name, at=note.received_at
        )
        place.with_name(place.name + ".txt").write_text(explanation, encoding="utf-8")
        os.rename(claim.path, place)
        sync_dir(place.parent)
        LOGGER.info("a file of the inbox was refused (%s)", error.reason)
        self._rows.put(refusal_of(note, display_name(place)), timeout_s=60.0)

    def _note(self, claim: Claim, reason: str | None = None, detail: str | None = None) -> IntakeNote:
        return IntakeNote(
            source="inbox",
            source_name=claim.name,
            received_at=utcnow().isoformat(),
            listener_id=self._listener_id,
            pipeline_hint=pipeline_of(claim.relative),
            reason=reason,
            detail=detail,
        )

    def _admit_file(self, claim: Claim, delivery: Delivery) -> None:
        kind = kind_of(claim.path)
        if kind == "empty":
            raise UnusableFile("empty", "the file has no bytes")
        if kind == "zip":
            raise UnusableFile("nested_archive", "an archive in an archive is not opened")
        if kind == "picture":
            from dicom_listener.picture import wrap_picture

            wrapped = wrap_picture(claim.path, pipeline_of(claim.relative))
            incoming = Incoming(
                [wrapped.body],
                len(wrapped.body),
                wrapped.TransferSyntaxUID,
                wrapped.SOPClassUID,
                wrapped.SOPInstanceUID,
            )
            self._hand_in(self._storage.store(incoming, self._note(claim), delivery))
            return
        with opened(claim.path) as content:
            meta = content.ds.file_meta
            sop_class = text(meta, "MediaStorageSOPClassUID")
            if sop_class == DICOMDIR_UID or "DirectoryRecordSequence" in content.ds:
                raise NoStudy("dicomdir", "a DICOMDIR names files and holds no image")
            content.source.seek(0, os.SEEK_END)
            size = content.source.tell() - content.body_offset
            content.source.seek(content.body_offset)
            incoming = Incoming(
                _chunks(content.source),
                size,
                text(meta, "TransferSyntaxUID"),
                sop_class,
                text(meta, "MediaStorageSOPInstanceUID"),
                text(meta, "SourceApplicationEntityTitle", 16) or None,
            )
            found = tuple(note for note in content.notes if note == "no_transfer_syntax")
            note = self._note(claim)
            note = IntakeNote(**{**vars(note), "warnings": found})
            self._hand_in(self._storage.store(incoming, note, delivery))

    def _hand_in(self, arrival: Arrival) -> None:
        try:
            self._rows.put(arrival)
        except Overloaded:
            self._storage.spool.delete(arrival.spool_key)
            raise

    def _admit_archive(self, claim: Claim, delivery: Delivery) -> None:
        """Take every member in; a bad one is refused alone. An interrupted archive starts over: repeats are noted."""
        limit = self._settings.zip_max_mb * 2**20
        folder = claim.path.with_name(claim.path.name + ".unpacked")
        folder.mkdir(exist_ok=True)
        try:
            with open_archive(claim.path) as archive:
                for member in members(archive, limit, self._settings.zip_max_files):
                    self._admit_member(claim, delivery, folder, archive, member)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _admit_member(self, claim: Claim, delivery: Delivery, folder: Path, archive: ZipFile, member: Member) -> None:
        self._storage.spool.check_space(2 * member.info.file_size)
        inner = Claim(folder / "member", claim.relative, member.name)
        try:
            with inner.path.open("wb") as target:
                unpack(archive, member, target)
            self._admit_file(inner, delivery)
        except UnusableFile as error:
            self.reject(inner, error)
        inner.path.unlink(missing_ok=True)

    def _put_away(self, claim: Claim) -> None:
        if self._settings.inbox_keep_accepted:
            place = self._root / ACCEPTED / claim.relative
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(claim.path, free_path(place))
        else:
            claim.path.unlink()


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def unrecorded(root: Path, known: Callable[[str], bool], listener_id: str) -> Iterator[Refusal]:
    """Refusals whose file lies in ``rejected`` but whose row was never written, from the text beside it."""
    for explanation in sorted((root / REJECTED).rglob("*.txt")):
        kept = explanation.with_name(explanation.name.removesuffix(".txt"))
        path = display_name(kept)
        if not kept.is_file() or known(path):
            continue
        said = dict(
            line.split(": ", 1)
            for line in explanation.read_text(encoding="utf-8", errors="replace").splitlines()
            if ": " in line
        )
        if not {"reason", "dropped as", "refused at"} <= said.keys():
            continue
        note = IntakeNote(
            source="inbox",
            source_name=said["dropped as"],
            received_at=said["refused at"],
            listener_id=listener_id,
            reason=said["reason"],
            detail=said.get("detail"),
        )
        yield refusal_of(note, path)
