"""Reading what arrives: any file that may hold a DICOM data set, with limits on memory.

Reads with or without preamble and file meta group, in implicit, explicit, big endian and deflated encodings (PS3.10
section 7, PS3.5 section 7 and annex A). Nothing here reads pixel data.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from firstread.dicom.elements import UNDEFINED_LENGTH as UNDEFINED_LENGTH
from firstread.dicom.elements import Encoding, HeaderTooLong, Scanner, TooManyElements, Window
from firstread.dicom.fragments import walk_fragments
from firstread.dicom.values import PARSE_ERRORS, number, text

INFLATED_LIMIT_BYTES: Final = 32 * 2**20
"""How much of a deflated data set is inflated to find its header."""

PIXEL_DATA: Final = 0x7FE00010
_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
_CHARACTER_SET: Final = 0x00080005
GE_BIG_ENDIAN_PIXELS: Final = "1.2.840.113619.5.2"
"""GE's private transfer syntax: implicit little endian, with pixel data in big endian."""


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


def read_dataset(path: Path) -> Dataset:
    """The header of a file: everything before the pixel data.

    Parameters
    ----------
    path : Path
        A file with or without preamble, with or without file meta group.

    Returns
    -------
    Dataset
        Elements before the pixel data, without those beyond the limits of :mod:`firstread.dicom.elements`.
        ``file_meta`` always names a TransferSyntaxUID: the one of the file, else the one that was found by looking.

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
    ``pixel_tag`` and ``pixel_vr`` are those of the element: Pixel Data, or one of the two kinds of float pixels; the
    VR is None in implicit encodings. ``size_bytes`` is the length of the file.
    ``padded`` says that zeros stand where the header should go on, ``last_tag`` which element was the last.
    """

    ds: Dataset
    notes: tuple[str, ...]
    fp: BinaryIO
    pixel_offset: int | None
    pixel_length: int | None
    source: BinaryIO
    body_offset: int
    pixel_tag: int | None = None
    pixel_vr: str | None = None
    padded: bool = False
    last_tag: int = 0
    size_bytes: int = 0

    @property
    def is_deflated(self) -> bool:
        """Whether the pixel data must be inflated before they can be read."""
        return self.fp is not self.source


def read_content(path: Path) -> Content:
    """:func:`read_dataset`, with where the pixel data lie, so that :func:`opened` need not parse the file again.

    The files of what is returned are closed.
    """
    with opened(path) as content:
        nothing = io.BytesIO()
        return replace(content, fp=io.BytesIO() if content.is_deflated else nothing, source=nothing)


@contextmanager
def opened(path: Path, content: Content | None = None) -> Iterator[Content]:
    """Open a file and read its header, as :func:`read_dataset` does; closed at the end of the block.

    Parameters
    ----------
    content : Content, optional
        What :func:`read_content` gave for the file. It is parsed again where it has another length by now, and where it
        is deflated.
    """
    with path.open("rb") as fp:
        if content is not None and not content.is_deflated and fp.seek(0, io.SEEK_END) == content.size_bytes:
            yield replace(content, fp=fp, source=fp)
            return
        yield content_of(fp)


def content_of(fp: BinaryIO) -> Content:
    """The header of an open file, as :func:`read_dataset` reads it."""
    fp.seek(0)
    start, has_meta = _start_of_content(fp)
    try:
        meta, body_offset = _read_meta(fp, start) if has_meta else (FileMetaDataset(), start)
        return replace(_read_body(fp, body_offset, meta), size_bytes=fp.seek(0, io.SEEK_END))
    except HeaderTooLong as error:
        raise NotDicom("bomb", "the header is larger than the limit") from error
    except TooManyElements as error:
        raise NotDicom("corrupt", f"the data set has {error}") from error
    except PARSE_ERRORS as error:
        raise NotDicom("corrupt", f"the data set cannot be parsed ({type(error).__name__})") from error


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


def _read_meta(fp: BinaryIO, start: int) -> tuple[FileMetaDataset, int]:
    """File meta group (PS3.10 section 7.1), and where it ends."""
    header = Scanner(Window(fp), Encoding(implicit=False, little=True), lambda tag: tag >> 16 != 2).run(start)
    if header.cut or header.padded:
        raise NotDicom("truncated", "the file ends in its meta group")
    return FileMetaDataset(Dataset(header.by_tag)), header.end


def _read_body(fp: BinaryIO, body_offset: int, meta: FileMetaDataset) -> Content:
    notes: list[str] = []
    syntax = text(meta, "TransferSyntaxUID")
    source, start = fp, body_offset
    deflated = syntax == DeflatedExplicitVRLittleEndian
    if deflated:
        # Most of a deflated file is pixel data: the header is looked for in its first part alone.
        source.seek(body_offset)
        fp, start = io.BytesIO(inflate(source, INFLATED_LIMIT_BYTES)), 0
    if not syntax:
        syntax = _guess_syntax(fp, start)
        notes.append("no_transfer_syntax")
    window, encoding = Window(fp), encoding_of(syntax)
    header = Scanner(window, encoding, _PIXEL_TAGS.__contains__).run(start)
    pixels = header.stopped_at
    if deflated and window.size >= INFLATED_LIMIT_BYTES and not pixels:
        raise NotDicom("bomb", "the header is larger than the limit")
    if not header.by_tag and window.size - start < 8:
        raise NotDicom("no_dataset", "nothing follows the file meta group")
    if not header.by_tag and not pixels:
        raise NotDicom("truncated" if header.cut or header.padded else "corrupt", "no element could be read")
    if header.left_out:
        notes.append("large_element_skipped")
    ds = Dataset(header.by_tag)
    ds.set_original_encoding(encoding.implicit, encoding.little, _character_sets(ds))
    tag, offset, length, vr = pixels if pixels else (None, None, None, None)
    last_tag = int(tag or max(header.by_tag, default=0))
    content = Content(
        ds, tuple(notes), fp, offset, length, source, body_offset, tag, vr, padded=header.padded, last_tag=last_tag
    )
    if not deflated and (header.cut or not pixels_end(content)):
        content = replace(content, notes=(*notes, "truncated"))
    meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta = meta
    return content


def encoding_of(syntax: str) -> Encoding:
    """How a transfer syntax encodes elements (PS3.5 section 10 and annex A)."""
    return Encoding(syntax in (ImplicitVRLittleEndian, GE_BIG_ENDIAN_PIXELS), syntax != ExplicitVRBigEndian)


def _character_sets(ds: Dataset) -> str | MutableSequence[str]:
    """Specific Character Set (0008,0005) in Python's words."""
    raw = ds.get_item(_CHARACTER_SET)
    return (
        convert_encodings(convert_raw_data_element(raw).value) if isinstance(raw, RawDataElement) else default_encoding
    )


def pixels_end(content: Content) -> bool:
    """Whether the pixel data, if there are any, end in the file, by their length or by their last fragment."""
    if content.pixel_offset is None or content.pixel_length is None:
        return True
    if content.pixel_length != UNDEFINED_LENGTH:
        return content.pixel_offset + content.pixel_length <= content.fp.seek(0, io.SEEK_END)
    return walk_fragments(content.fp, content.pixel_offset).are_whole(int(number(content.ds, "NumberOfFrames") or 1))


def _guess_syntax(fp: BinaryIO, start: int) -> str:
    """Transfer syntax by the look of the first element."""
    fp.seek(start)
    head = fp.read(6)
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
