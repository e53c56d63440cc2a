"""One request that stores: its parts become objects while they come, one after the other, never held whole."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from dicom_listener import metrics
from dicom_listener.intake.arrivals import Ending, IncomingDelivery, Overloaded, Rows
from dicom_listener.intake.pace import Pace
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.intake.reception import Endless, Reception
from dicom_listener.intake.status import OtherStudy, StoreFailure, UnknownSyntax
from dicom_listener.intake.storage import Incoming, Storage
from dicom_listener.stow.answer import Result
from dicom_listener.stow.head import FileHead, HeadReader
from firstread.clock import utcnow
from firstread.dicom.files import Header, UnusableFile

LOGGER = logging.getLogger(__name__)
MOST_PARTS: Final = 10_000
PART_HEADERS: Final = 16
PART_HEADER_BYTES: Final = 4096
OUTSIDE_BYTES: Final = 2**20
"""Most bytes before the first part, or after the last one."""
PADDING_BYTES: Final = 80
"""Most blanks behind the first boundary."""
NO_MESSAGE: Final = "the body is no multipart message with the boundary of its Content-Type"
END_S: Final = 60.0

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of what a stranger sent


class BrokenBody(Exception):
    """The body is no multipart message; the text says why."""


class TooMuch(Exception):
    """More than one request may bring; the text says of what."""


@dataclass(frozen=True)
class Admission:
    """Where the objects of a request go.

    Attributes
    ----------
    listener_id : str
        Written into every note.
    transfer_syntaxes : frozenset of str
        UIDs of those that are taken.
    """

    storage: Storage
    rows: Rows
    pace: Pace
    listener_id: str
    transfer_syntaxes: frozenset[str]


class _Part:
    """One part: a DICOM file, its head first, then its data set."""

    def __init__(self, begin: Callable[[FileHead, UnusableFile | None], Reception], syntaxes: frozenset[str]) -> None:
        self._begin = begin
        self._syntaxes = syntaxes
        self._reader = HeadReader()
        self._head = FileHead()
        self._reception: Reception | None = None

    def write(self, data: memoryview, *, is_end: bool = False) -> None:
        """Take the next bytes. Raises :class:`Endless`."""
        if self._reception is None:
            self._read_head(data, is_end)
        else:
            self._reception.write(data)

    def _read_head(self, data: memoryview, is_end: bool) -> None:
        reader, offset, fault = self._reader, 0, None
        try:
            head = reader.take(data, is_end=is_end)
            if head is None:
                return
            self._head, offset = head, reader.body_offset
            if head.transfer_syntax_uid not in self._syntaxes:
                raise UnknownSyntax("unknown_transfer_syntax", "the transfer syntax is none that is taken")
        except UnusableFile as error:
            fault = error
        self._reception = self._begin(self._head, fault)
        rest = memoryview(bytes(reader.data))[offset:]
        if rest:
            self._reception.write(rest)

    def conclude(self) -> Result:
        """Store it."""
        if self._reception is None:
            self.write(memoryview(b""), is_end=True)
        assert self._reception is not None
        done = self._reception.conclude()
        if isinstance(done, StoreFailure):
            return Result(self._head.sop_class_uid, self._head.sop_instance_uid, done)
        header = done.header
        return Result(header.SOPClassUID or "", header.SOPInstanceUID, warnings=tuple(done.warnings))

    def discard(self) -> None:
        """Drop what is not stored."""
        if self._reception is not None:
            self._reception.discard()


class _Preamble:
    """What stands before the first boundary, and is no part of the message (RFC 2046 section 5.1.1)."""

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._line = re.compile(rb"\n--%b(--|[ \t]{0,%d}\r\n)" % (re.escape(boundary), PADDING_BYTES))
        self._kept = b"\n"
        self.is_over = False

    def behind(self, data: bytes) -> bytes:
        """The message from its first boundary on, without blanks behind that; empty while it has not come."""
        if self.is_over:
            return data
        data = self._kept + data
        found = self._line.search(data)
        if found is None:
            self._kept = data[-(len(self._boundary) + PADDING_BYTES + 8) :]
            return b""
        self.is_over, self._kept = True, b""
        return b"--" + self._boundary + found[1].lstrip(b" \t") + data[found.end() :]


class StoreRequest:
    """Takes the body of a request. One thread at a time calls it, in whatever order of threads.

    Parameters
    ----------
    boundary : bytes
        Between the parts.
    host : str or None
        Who sends.
    study_uid : str or None
        The study that all objects must be of.

    Attributes
    ----------
    results : list of Result
        Of the parts that are complete.
    """

    def __init__(self, intake: Admission, boundary: bytes, host: str | None, study_uid: str | None) -> None:
        self._intake = intake
        self._study_uid = study_uid
        self._delivery = IncomingDelivery(source="stow", peer_host=host)
        self._lock = threading.Lock()
        self._part: _Part | None = None
        self._outside = 0
        self._has_end = self._is_over = False
        self.results: list[Result] = []
        callbacks = {
            "on_part_begin": self._begin_part,
            "on_part_data": self._take_data,
            "on_part_end": self._end_part,
            "on_end": self._note_end,
        }
        self._preamble = _Preamble(boundary)
        self._parser = MultipartParser(
            boundary,
            callbacks,  # type: ignore[arg-type]
            max_header_count=PART_HEADERS,
            max_header_size=PART_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises
        ------
        BrokenBody, TooMuch
            Nothing more may be fed then.
        """
        with self._lock:
            if self._is_over:
                return
            try:
                self._parser.write(self._preamble.behind(data))
            except FormParserError as error:
                raise BrokenBody(NO_MESSAGE) from error
            except Endless:
                raise TooMuch("an instance goes on beyond every limit") from None
            if self._part is None:
                self._outside += len(data)
                if self._outside > OUTSIDE_BYTES:
                    raise BrokenBody("too much stands outside of the parts")

    def finish(self) -> None:
        """The body is complete: end the delivery. Raises :class:`BrokenBody` where it has no end, or no part."""
        with self._lock:
            if not self._preamble.is_over:
                raise BrokenBody(NO_MESSAGE)
            if not self._has_end:
                raise BrokenBody("the body ends before its last boundary")
            if not self.results:
                raise BrokenBody("the body has no part")
            self._end("released")

    def break_off(self) -> None:
        """End the delivery as one that was cut off. Harmless after :meth:`finish`."""
        with self._lock:
            if self._part is not None:
                self._part.discard()
                self._part = None
            self._end("aborted")

    def _end(self, ending: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        metrics.ASSOCIATIONS.labels(outcome=ending).inc()
        try:
            self._intake.rows.put(Ending(self._delivery, ending, utcnow()), timeout_s=END_S)
        except Overloaded:
            LOGGER.error("the end of a STOW-RS request was not recorded: the database does not keep up")

    # What the parser calls

    def _begin_part(self) -> None:
        if len(self.results) >= MOST_PARTS:
            raise TooMuch(f"a request may have {MOST_PARTS} parts")
        self._outside = 0
        self._intake.pace.step()
        self._part = _Part(self._reception, self._intake.transfer_syntaxes)

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        assert self._part is not None
        self.results.append(self._part.conclude())
        self._part = None

    def _note_end(self) -> None:
        self._has_end = True

    def _reception(self, head: FileHead, fault: UnusableFile | None) -> Reception:
        note = IntakeNote(
            source="stow",
            source_name=self._delivery.peer_host,
            received_at=utcnow().isoformat(),
            listener_id=self._intake.listener_id,
        )
        incoming = Incoming(
            chunks=(),
            size_bytes=0,
            transfer_syntax_uid=head.transfer_syntax_uid,
            sop_class_uid=head.sop_class_uid,
            sop_instance_uid=head.sop_instance_uid,
            source_ae=head.source_ae,
        )
        return Reception(self._intake.storage, self._intake.rows, incoming, note, self._delivery, self._check, fault)

    def _check(self, header: Header) -> None:
        if self._study_uid is not None and header.StudyInstanceUID != self._study_uid:
            raise OtherStudy("other_study", "the instance is of another study than the one in the address")
