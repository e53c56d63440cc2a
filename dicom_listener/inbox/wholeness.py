"""Whether a file has arrived as a whole, by its own structure: a writer may pause for longer than anybody waits."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_listener.inbox import archive
from dicom_listener.inbox.kinds import head_of, kind_of, may_become_readable
from dicom_listener.inbox.parsed import ParsedFile, parsed_of
from dicom_listener.inbox.picture import FILE_LIMIT_BYTES
from dicom_listener.inbox.picture_bytes import end_of_picture
from firstread.dicom.datasets import UNDEFINED_LENGTH, Content, UnusableFile, encoding_of, opened
from firstread.dicom.elements import Scanner, Window
from firstread.dicom.fragments import walk_fragments
from firstread.dicom.values import PARSE_ERRORS, text

_IDENTIFIED_BY: Final = 0x0020000E
"""Series Instance UID, the last of the elements without which a data set belongs to no study."""
DOUBT_S: Final = 5.0
"""Seconds without a change after which a file that may end where it ends is taken as whole."""
_INFLATED_LIMIT_BYTES: Final = 512 * 2**20
_MAY_GROW: Final = frozenset({"empty", "no_dataset", "truncated"})


class Wholeness(Enum):
    """What a file's structure says of its end."""

    WHOLE = "no further byte is to come, or none that would make a difference"
    DOUBTFUL = "it may end here: between two elements, without what files of its kind have as a rule"
    CUT = "more is to come"


@dataclass(frozen=True)
class Judgement:
    """What the structure of a file says, and the parse that it took where the file has a data set."""

    wholeness: Wholeness
    parsed: ParsedFile | None = None


def wholeness_of(path: Path) -> Wholeness:
    """What the structure of a file says, as :func:`judge` does."""
    return judge(path).wholeness


def judge(path: Path) -> Judgement:
    """Look at the structure of a file. One that will be refused whatever follows is whole.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    kind = kind_of(path)
    if kind == "empty" or has_hole(path):
        return Judgement(Wholeness.CUT)
    if kind == "zip":
        return Judgement(_either(archive.is_whole(path)))
    if kind == "picture":
        is_whole = path.stat().st_size > FILE_LIMIT_BYTES or end_of_picture(path.read_bytes()) is not None
        return Judgement(_either(is_whole))
    if kind == "foreign":
        return Judgement(Wholeness.WHOLE)
    return _of_data_set(path)


def _either(whole: bool) -> Wholeness:
    return Wholeness.WHOLE if whole else Wholeness.CUT


def has_hole(path: Path) -> bool:
    """Whether a part was never written: some programs make a file at its full size and fill it then."""
    with path.open("rb") as file:
        try:
            return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < os.fstat(file.fileno()).st_size
        except OSError:  # not known on this file system
            return False


def _of_data_set(path: Path) -> Judgement:
    try:
        with opened(path) as content:
            wholeness = Wholeness.CUT if "truncated" in content.notes else _of_content(content)
            return Judgement(wholeness, parsed_of(content))
    except UnusableFile as error:
        if error.reason == "not_dicom":
            return Judgement(_either(not may_become_readable(head_of(path))))
        return Judgement(_either(error.reason not in _MAY_GROW))


def _of_content(content: Content) -> Wholeness:
    ds = content.ds
    if text(ds.file_meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return _either(_inflates(content.source, content.body_offset))
    if content.pixel_offset is None:
        if content.padded or content.last_tag < _IDENTIFIED_BY:
            return Wholeness.CUT
        is_image = "Rows" in ds or "Image Storage" in UID(text(ds, "SOPClassUID")).name
        return Wholeness.DOUBTFUL if is_image else Wholeness.WHOLE
    if content.pixel_length != UNDEFINED_LENGTH:
        ended = _ends_behind(content, content.pixel_offset + (content.pixel_length or 0))
    else:
        fragments = walk_fragments(content.fp, content.pixel_offset)
        ended = fragments.delimited and _ends_behind(content, fragments.end)
    return Wholeness.WHOLE if ended else Wholeness.DOUBTFUL  # the pixel data are there


def _ends_behind(content: Content, offset: int) -> bool:
    """Whether the file ends between two of the elements that follow the pixel data."""
    encoding = encoding_of(text(content.ds.file_meta, "TransferSyntaxUID"))
    try:
        return not Scanner(Window(content.fp), encoding, lambda _tag: False).run(offset).cut
    except PARSE_ERRORS:
        return True  # no elements: nothing that anybody reads


def _inflates(source: BinaryIO, offset: int) -> bool:
    """Whether a deflated data set comes to its end; what is inflated is dropped."""
    source.seek(offset)
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while not inflater.eof and total < _INFLATED_LIMIT_BYTES:
            chunk = inflater.unconsumed_tail or source.read(2**16)
            if not chunk:
                return False
            total += len(inflater.decompress(chunk, 2**20))
    except zlib.error:  # broken, or made at its full size to be filled later
        source.seek(-16, os.SEEK_END)
        return any(source.read())
    return True
