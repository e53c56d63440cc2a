"""Reading what arrives: any file that may hold a DICOM data set, with limits on memory.

Reads with or without preamble and file meta group, in implicit, explicit, big endian and deflated encodings (PS3.10
section 7, PS3.5 section 7 and annex A). Nothing here reads pixel data.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset as _parse
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

HEADER_LIMIT_BYTES: Final = 64 * 2**20
"""Most bytes that one header may take; real ones have kilobytes, large Enhanced ones a few megabytes."""

INFLATED_LIMIT_BYTES: Final = 32 * 2**20
"""How much of a deflated data set is inflated to find its header."""

ELEMENT_LIMIT_BYTES: Final = 16 * 2**20
"""A longer element before the pixel data is stepped over and left out of the data set."""

_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
UNDEFINED_LENGTH: Final = 0xFFFFFFFF
GE_BIG_ENDIAN_PIXELS: Final = "1.2.840.113619.5.2"
"""GE's private transfer syntax: implicit little endian, with pixel data in big endian."""

PARSE_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on bytes that are no sound data set."""


class UnusableFile(Exception):
    """A file that cannot become an instance. ``reason`` is a short code, ``detail`` holds no patient data."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class NotDicom(UnusableFile):
    """No DICOM data set: ``empty``, ``not_dicom``, ``no_dataset``, ``truncated``, ``corrupt`` or ``bomb``."""


class NoStudy(UnusableFile):
    """A data set that belongs to no study: ``missing_uids`` or ``bad_uid``."""


class _BoundedReader:
    """A file for pydicom that refuses to hand out more than a header's worth of bytes.

    pydicom turns every exception inside a sequence into an ``OSError``, so the fact is kept in ``exceeded``.
    """

    def __init__(self, fp: BinaryIO, limit: int) -> None:
        self._fp = fp
        self._left = limit
        self.exceeded = False
        self.name = "<header>"
        self.tell = fp.tell
        self.seek = fp.seek

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            self.exceeded = True
            raise EOFError("header larger than the limit")
        data = self._fp.read(size)
        self._left -= len(data)
        return data


def read_dataset(path: Path) -> Dataset:
    """The header of a file: everything before the pixel data.

    Parameters
    ----------
    path : Path
        A file with or without preamble, with or without file meta group.

    Returns
    -------
    Dataset
        Elements before the pixel data, none longer than ``ELEMENT_LIMIT_BYTES``. ``file_meta`` always names a
        TransferSyntaxUID: the one of the file, else the one that was found by looking.

    Raises
    ------
    NotDicom
        If there is no data set in the file, or one beyond the limits.
    OSError
        If the file cannot be read.
    """
    return read_noted(path)[0]


def read_noted(path: Path) -> tuple[Dataset, tuple[str, ...]]:
    """:func:`read_dataset`, with the codes of what is odd: ``truncated``, ``large_element_skipped``, ..."""
    with opened(path) as content:
        return content.ds, content.notes


@dataclass(frozen=True)
class Content:
    """An open file with its header read.

    ``fp`` may be positioned anywhere; ``pixel_offset`` is where the value of the pixel data element starts in it, and
    ``pixel_length`` its length in bytes (``UNDEFINED_LENGTH`` for encapsulated data); both are None without Pixel Data.
    ``source`` is the file itself, whose data set starts at ``body_offset``: another than ``fp`` where it is deflated.
    """

    ds: Dataset
    notes: tuple[str, ...]
    fp: BinaryIO
    pixel_offset: int | None
    pixel_length: int | None
    source: BinaryIO
    body_offset: int


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open a file and read its header, as :func:`read_dataset` does; closed at the end of the block."""
    with path.open("rb") as fp:
        start, has_meta = _start_of_content(fp)
        reader = _BoundedReader(fp, HEADER_LIMIT_BYTES)
        fp.seek(start)
        try:
            meta = _read_meta(reader) if has_meta else FileMetaDataset()
            content = _read_body(fp, reader, meta)
        except PARSE_ERRORS as error:
            raise _refusal(reader, error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise _refusal(reader, error) from error
        yield content


def _refusal(reader: _BoundedReader, error: Exception) -> NotDicom:
    if reader.exceeded:
        return NotDicom("bomb", "the header is larger than the limit")
    return NotDicom("corrupt", f"the data set cannot be parsed ({type(error).__name__})")


def _start_of_content(fp: BinaryIO) -> tuple[int, bool]:
    """Offset of the first element, and whether a file meta group starts there."""
    head = fp.read(136)
    if not head:
        raise NotDicom("empty", "the file has no bytes")
    if head[128:132] == b"DICM":
        return 132, True
    if len(head) >= 8:
        little, big = struct.unpack("<H", head[:2])[0], struct.unpack(">H", head[:2])[0]
        if little == 0x0002:
            return 0, True
        if 0x0008 in (little, big) and _plausible_length(head):
            return 0, False
    raise NotDicom("not_dicom", "neither a DICM prefix nor a DICOM element at the start")


def _plausible_length(head: bytes) -> bool:
    """Whether the first element of group 0008 is short, or a sequence, as each of the standard's own is."""
    if head[4:6].isalpha() and head[4:6].isupper():
        return True
    length = cast(int, struct.unpack("<I", head[4:8])[0])
    return length < 2**16 or length == 0xFFFFFFFF


def _read_meta(reader: _BoundedReader) -> FileMetaDataset:
    fp = cast(BinaryIO, reader)
    found = _parse(
        fp,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, size: tag >> 16 != 2,
    )
    return FileMetaDataset(found)


def _read_body(fp: BinaryIO, reader: _BoundedReader, meta: FileMetaDataset) -> Content:
    notes: list[str] = []
    syntax = text(meta, "TransferSyntaxUID")
    source, body_offset = fp, fp.tell()
    if syntax == DeflatedExplicitVRLittleEndian:
        # Most of a deflated file is pixel data: the header is looked for in its first part alone.
        fp = io.BytesIO(inflate(fp, INFLATED_LIMIT_BYTES))
        reader = _BoundedReader(fp, HEADER_LIMIT_BYTES)
    if not syntax:
        syntax = _guess_syntax(fp)
        notes.append("no_transfer_syntax")
    pixels: list[tuple[int, int]] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            pixels[:] = [(fp.tell(), length)]
            return True
        return False

    start = fp.tell()
    implicit, little = syntax in (ImplicitVRLittleEndian, GE_BIG_ENDIAN_PIXELS), syntax != ExplicitVRBigEndian
    bounded = cast(BinaryIO, reader)
    ds = _parse(bounded, implicit, little, stop_when=at_pixels, defer_size=ELEMENT_LIMIT_BYTES)
    end = fp.tell()
    size = fp.seek(0, io.SEEK_END)
    swollen = fp is not source and size >= INFLATED_LIMIT_BYTES and not pixels
    if reader.exceeded or swollen:
        raise NotDicom("bomb", "the header is larger than the limit")
    if not len(ds) and size - start < 8:
        raise NotDicom("no_dataset", "nothing follows the file meta group")
    if not len(ds) and not pixels:
        raise NotDicom("corrupt", "no element could be read")
    for tag in [tag for tag, element in ds.items() if element.value is None and _was_left_out(element)]:
        del ds[tag]
        notes.append("large_element_skipped")
    offset, length = pixels[0] if pixels else (None, None)
    cut_pixels = offset is not None and length is not None and length != UNDEFINED_LENGTH and length > size - offset
    if syntax != DeflatedExplicitVRLittleEndian and (cut_pixels or (not pixels and (end > size or _cut_short(ds)))):
        notes.append("truncated")
    meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta = meta
    return Content(ds, tuple(dict.fromkeys(notes)), fp, offset, length, source, body_offset)


def _cut_short(ds: Dataset) -> bool:
    """Whether the file ends inside the value of its last element."""
    last = list(ds.values())[-1:]
    return any(isinstance(e, RawDataElement) and isinstance(e.value, bytes) and len(e.value) < e.length for e in last)


def _was_left_out(element: object) -> bool:
    length = getattr(element, "length", 0)
    return isinstance(length, int) and length > ELEMENT_LIMIT_BYTES


def _guess_syntax(fp: BinaryIO) -> str:
    """Transfer syntax by the look of the first element; leaves the position where it is."""
    start = fp.tell()
    head = fp.read(6)
    fp.seek(start)
    if len(head) < 6 or not (head[4:6].isalpha() and head[4:6].isupper()):
        return str(ImplicitVRLittleEndian)
    group = cast(int, struct.unpack("<H", head[:2])[0])
    return str(ExplicitVRBigEndian if group >= 0x0400 else ExplicitVRLittleEndian)


def inflate(fp: BinaryIO, limit: int) -> bytes:
    """The first ``limit`` bytes of a deflated data set (PS3.5 annex A.5), never more, however far it would swell."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    while len(out) < limit and not inflater.eof:
        chunk = inflater.unconsumed_tail or fp.read(2**16)
        if not chunk:
            break
        out += inflater.decompress(chunk, limit - len(out))
    return bytes(out)


def text(ds: Dataset, keyword: str, limit: int = 256) -> str:
    """An element as clean text: no padding, no control characters, at most ``limit`` characters.

    Empty where the element is absent, empty, or holds what its VR cannot mean.
    """
    try:
        value = ds.get(keyword)
    except PARSE_ERRORS:
        return ""
    if value is None:
        return ""
    many = not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") and not hasattr(value, "components")
    joined = "\\".join(str(part) for part in value) if many else str(value)
    return "".join(c for c in joined if c.isprintable()).strip()[:limit]


def number(ds: Dataset, keyword: str) -> float | None:
    """First value of an element as a finite float, or None."""
    try:
        value = ds.get(keyword)
        if value is None or value == "":
            return None
        if not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__getitem__"):
            value = value[0]
        result = float(value)
    except PARSE_ERRORS:
        return None
    return result if result - result == 0.0 else None


def numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite floats of a multi-valued element, or None."""
    try:
        value = ds.get(keyword)
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) != count:
            return None
        result = tuple(float(part) for part in value)
    except PARSE_ERRORS:
        return None
    return result if all(part - part == 0.0 for part in result) else None
