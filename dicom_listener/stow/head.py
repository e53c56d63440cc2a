"""The file meta group of a DICOM file that is still on its way (PS3.10 section 7.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from firstread.dicom.elements import LONG_VRS
from firstread.dicom.files import NoStudy, NotDicom
from firstread.dicom.uids import UID_LIMIT

PREAMBLE_BYTES: Final = 128
PREFIX: Final = b"DICM"
HEAD_BYTES: Final = 64 * 2**10
"""Longest preamble and file meta group; private information is all that may be long in it."""
SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX, SOURCE_AE = 0x0002, 0x0003, 0x0010, 0x0016


@dataclass(frozen=True)
class FileHead:
    """What the file meta group says. UIDs stand as they came; empty where there is none."""

    transfer_syntax_uid: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    source_ae: str | None = None


class HeadReader:
    """Takes the first bytes of a file until its file meta group is complete.

    Attributes
    ----------
    data : bytearray
        All that was taken.
    body_offset : int
        Where the data set begins, once the group is complete.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.body_offset = PREAMBLE_BYTES + len(PREFIX)
        self._is_bare = False
        self._elements: dict[int, bytes] = {}

    def take(self, data: bytes | memoryview, *, is_end: bool = False) -> FileHead | None:
        """Take the next bytes; what the group says once it is complete.

        Parameters
        ----------
        is_end : bool
            Whether nothing follows.

        Raises
        ------
        NotDicom, NoStudy
            If this is no DICOM file.
        """
        self.data += data
        if not self._elements and _is_bare(self.data[:6]):
            self.body_offset, self._is_bare = 0, True
        if len(self.data) < self.body_offset:
            if is_end:
                raise NotDicom("not_dicom", "no DICOM file (PS3.10): it ends before its preamble does")
            return None
        if not self._is_bare and self.data[PREAMBLE_BYTES : PREAMBLE_BYTES + len(PREFIX)] != PREFIX:
            raise NotDicom("not_dicom", "no DICOM file (PS3.10): the prefix DICM is missing")
        while (length := self._next_length(is_end)) is not None:
            if not length:
                return self._complete()
            self.body_offset += length
        if self.body_offset > HEAD_BYTES or len(self.data) > 2 * HEAD_BYTES:
            raise NotDicom("not_dicom", "the file meta group has no end")
        return None

    def _next_length(self, is_end: bool) -> int | None:
        """Length of the next element of the group, which is noted; 0 where the group ends, None where bytes lack."""
        at, data = self.body_offset, self.data
        if len(data) < at + 12 and not is_end:
            return None
        if data[at : at + 2] != b"\x02\x00":
            return 0
        try:
            _, element, vr, length = struct.unpack_from("<HH2sH", data, at)
            head = 8
            if vr in LONG_VRS:
                (length,), head = struct.unpack_from("<I", data, at + 8), 12
        except struct.error as error:
            raise NotDicom("truncated", "the file ends within its file meta group") from error
        if not vr.isalpha() or length > HEAD_BYTES:
            raise NotDicom("not_dicom", "the file meta group is none of explicit VR")
        if len(data) < at + head + length:
            if is_end:
                raise NotDicom("truncated", "the file ends within its file meta group")
            return None
        self._elements[element] = bytes(data[at + head : at + head + length])
        return head + int(length)

    def _complete(self) -> FileHead:
        head = FileHead(
            self._uid(TRANSFER_SYNTAX), self._uid(SOP_CLASS), self._uid(SOP_INSTANCE), self._text(SOURCE_AE) or None
        )
        if not head.transfer_syntax_uid:
            raise NotDicom("not_dicom", "the file meta group names no transfer syntax")
        return head

    def _uid(self, element: int) -> str:
        uid = self._text(element)
        if len(uid) > UID_LIMIT:
            raise NoStudy("bad_uid", "a UID of the file meta group is too long")
        return uid

    def _text(self, element: int) -> str:
        return self._elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")


def _is_bare(start: bytes | bytearray) -> bool:
    """Whether a file begins with its file meta group: pydicom leaves preamble and prefix out of what never had them."""
    return start[:2] == b"\x02\x00" and start[3:4] == b"\0" and start[4:6] in (b"UL", b"OB", b"UI")
