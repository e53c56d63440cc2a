"""Putting received bytes on disk: spool for what is a DICOM instance, the refused folder for what is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_listener.intake.arrivals import Arrival, IncomingDelivery, Refusal
from dicom_listener.intake.part10 import IntakeNote, file_meta
from firstread.dicom.files import Header, UnusableFile, read_header
from firstread.settings import Settings
from firstread.storage.spool import DiskFull, Spool
from firstread.storage.store import spool_of


class TooLarge(UnusableFile):
    """An object beyond ``max_instance_mb``."""


@dataclass(frozen=True)
class Incoming:
    """An encoded data set as a door got it.

    Attributes
    ----------
    chunks : iterable of bytes
        The encoded data set, in order, readable once.
    size_bytes : int
        Length of all chunks together.
    sop_class_uid, sop_instance_uid : str
        As announced beside the data set: by the C-STORE command, or by the file's own meta group.
    header : callable or None
        Gives the header of the data set, or raises UnusableFile, where the door has parsed it already.
    """

    chunks: Iterable[bytes | memoryview]
    size_bytes: int
    transfer_syntax_uid: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    source_ae: str | None = None
    header: Callable[[], Header] | None = None


class Storage:
    """The two folders that received bytes may end in.

    Parameters
    ----------
    settings : Settings
        Home, watermark, size limit and our AE title.
    """

    def __init__(self, settings: Settings) -> None:
        self.spool = spool_of(settings, settings.min_free_mb)
        self.refused = Spool(settings.home / "refused")
        self.ae_title = settings.ae_title
        self.limit_bytes = settings.max_instance_mb * 2**20

    def store(self, incoming: Incoming, note: IntakeNote, delivery: IncomingDelivery | None = None) -> Arrival:
        """Make an instance durable.

        Raises
        ------
        UnusableFile
            If the bytes are no data set, or one without the UIDs of a study; nothing stays in the spool.
        DiskFull
            Under the watermark, or if the disk refuses the bytes.
        """
        if incoming.size_bytes > self.limit_bytes:
            raise self.too_large()
        self.spool.check_space(incoming.size_bytes)
        digest, size = hashlib.sha256(), 0
        with self.spool.create() as (key, file):
            file.write(self._meta(incoming, note))
            for chunk in incoming.chunks:
                digest.update(chunk)
                file.write(chunk)
                size += len(chunk)
            file.flush()
            header = incoming.header() if incoming.header is not None else read_header(Path(file.name))
        return Arrival(key, header, note, digest.hexdigest(), size, delivery)

    def too_large(self) -> TooLarge:
        """What is said of an object beyond the limit."""
        return TooLarge("too_large", f"more than {self.limit_bytes // 2**20} MiB")

    def keep_refused(self, incoming: Incoming, note: IntakeNote, reason: str, detail: str | None) -> Refusal:
        """Keep bytes that cannot be used, with the reason in their note, as far as the disk allows."""
        refused_note = replace(note, reason=reason, detail=detail or None)
        kept_path: str | None = None
        try:
            self.spool.check_space(incoming.size_bytes)
            with self.refused.create() as (key, file):
                file.write(self._meta(incoming, refused_note))
                for chunk in incoming.chunks:
                    file.write(chunk)
            kept_path = str(self.refused.path(key))
        except DiskFull:
            refused_note = replace(refused_note, detail=f"{detail or ''} (not kept: the disk is full)".strip())
        return refusal_of(refused_note, kept_path)

    def _meta(self, incoming: Incoming, note: IntakeNote) -> bytes:
        return file_meta(
            note,
            sop_class_uid=incoming.sop_class_uid,
            sop_instance_uid=incoming.sop_instance_uid,
            transfer_syntax_uid=incoming.transfer_syntax_uid,
            receiving_ae=self.ae_title if note.source == "dicom" else None,
            source_ae=incoming.source_ae,
        )


def refusal_of(note: IntakeNote, kept_path: str | None) -> Refusal:
    """The row of a refused object, from its note."""
    return Refusal(
        received_at=note.received,
        source=note.source,
        source_name=note.source_name,
        calling_ae=note.calling_ae,
        reason=note.reason or "unusable",
        detail=note.detail,
        kept_path=kept_path,
    )
