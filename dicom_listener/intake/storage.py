"""Putting received bytes on disk: spool for what is a DICOM instance, the refused folder for what is not."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from dicom_listener.intake.arrivals import Arrival, IncomingDelivery, Refusal
from dicom_listener.intake.part10 import IntakeNote, file_meta
from firstread import effects
from firstread.dicom.files import Header, UnusableFile, header_in
from firstread.dicom.glance import glance
from firstread.settings import Settings
from firstread.storage.spool import DiskFull, Spool, naming_full_disk
from firstread.storage.store import spool_of

LOGGER = logging.getLogger(__name__)
HEAD_BYTES: Final = 64 * 2**10
"""So much of a file stays in memory until its header was read; few headers have more."""
CHUNK_BYTES: Final = 2**20


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


class _NotKept(Exception):
    """Ends a block of the spool without a file."""


class Writing:
    """A data set on its way into the spool: each byte goes into the file and the digest as it comes.

    To be used as a context manager, or closed: what was not kept by then is gone.

    Parameters
    ----------
    meta : bytes
        Preamble and file meta group.
    """

    def __init__(self, spool: Spool, meta: bytes, incoming: Incoming, note: IntakeNote) -> None:
        self._incoming = incoming
        self._note = note
        self._digest = hashlib.sha256()
        self._body_offset = len(meta)
        self._head = bytearray(meta)
        self._block = ExitStack()
        self._spool = spool
        self._key, self._file = self._block.enter_context(spool.create())
        try:
            spool.write(self._file, meta)
        except BaseException:
            self.close()
            raise
        self.size_bytes = 0

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the data set. Raises OSError."""
        self._digest.update(data)
        self._spool.write(self._file, data)
        self.size_bytes += len(data)
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]

    def header(self) -> Header:
        """Header of what was written. Raises UnusableFile, or an OSError where what is buffered cannot be written."""
        with naming_full_disk():
            self._file.flush()
        size, incoming = self._body_offset + self.size_bytes, self._incoming
        file = cast(BinaryIO, HeadedFile(self._head, self._file, size))
        uids = incoming.transfer_syntax_uid, incoming.sop_class_uid, incoming.sop_instance_uid
        return glance(file, self._head, self._body_offset, size, *uids) or header_in(file)

    def chunks(self) -> Iterator[bytes]:
        """The data set once more, from the file."""
        with naming_full_disk():
            self._file.flush()
        with Path(self._file.name).open("rb") as again:
            again.seek(self._body_offset)
            while chunk := again.read(CHUNK_BYTES):
                yield chunk

    def keep(self, header: Callable[[], Header], delivery: IncomingDelivery | None) -> Arrival:
        """Make it durable.

        Raises
        ------
        UnusableFile
            From the header; nothing is kept then.
        OSError
            If the disk refuses the bytes.
        """
        found = header()
        self._block.close()
        return Arrival(self._key, found, self._note, self._digest.hexdigest(), self.size_bytes, delivery)

    def close(self) -> None:
        """Remove what was not kept."""
        with suppress(_NotKept, OSError):
            self._block.__exit__(_NotKept, _NotKept(), None)


class HeadedFile(io.RawIOBase):
    """A file that is being written, to read: its first bytes from memory, the rest from the disk.

    Parameters
    ----------
    head : bytes or bytearray
        The first bytes.
    size_bytes : int
        Of the whole.
    """

    def __init__(self, head: bytes | bytearray, file: BinaryIO, size_bytes: int) -> None:
        self._head = head
        self._written = file
        self._size = size_bytes
        self._at = 0

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read from anywhere."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The present offset."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= len(self._head):
            data = bytes(self._head[self._at : end])
        elif self._at >= end:
            data = b""
        else:
            self._written.flush()
            data = os.pread(self._written.fileno(), end - self._at, self._at)
        self._at += len(data)
        return data


class Storage:
    """The two folders that received bytes may end in.

    Parameters
    ----------
    settings : Settings
        Home, watermark, size limit and our AE title.
    """

    def __init__(self, settings: Settings) -> None:
        self.spool = spool_of(settings, settings.min_free_mb)
        self.refused = Spool(settings.home / "refused", names=effects.REFUSED)
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
        with self.begin(incoming, note) as writing:
            for chunk in incoming.chunks:
                writing.write(chunk)
            return writing.keep(incoming.header or writing.header, delivery)

    def begin(self, incoming: Incoming, note: IntakeNote) -> Writing:
        """A new file of the spool with its meta group written. Raises OSError."""
        return Writing(self.spool, self._meta(incoming, note), incoming, note)

    def too_large(self) -> TooLarge:
        """What is said of an object beyond the limit."""
        return TooLarge("too_large", f"more than {self.limit_bytes // 2**20} MiB")

    def keep_refused(self, incoming: Incoming, note: IntakeNote, reason: str, detail: str | None) -> Refusal:
        """Keep bytes that cannot be used, with the reason in their note.

        Where the disk does not take them, the row that comes of it says so.
        """
        refused_note = replace(note, reason=reason, detail=detail or None)
        kept_path: str | None = None
        try:
            self.spool.check_space(incoming.size_bytes)
            with self.refused.create() as (key, file):
                self.refused.write(file, self._meta(incoming, refused_note))
                for chunk in incoming.chunks:
                    self.refused.write(file, chunk)
            kept_path = str(self.refused.path(key))
        except OSError as error:
            fault = "the disk is full"
            if not isinstance(error, DiskFull):
                fault = error.strerror or "an error of the disk"
                LOGGER.error("a refused object was not kept (%s)", fault)
            refused_note = replace(refused_note, detail=f"{detail or ''} (not kept: {fault})".strip())
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
