"""Whether a file has arrived as a whole, by its own structure: a writer may pause for longer than anybody waits."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_listener import archive
from dicom_listener.kinds import head_of, kind_of, may_become_readable
from dicom_listener.picture import FILE_LIMIT_BYTES
from dicom_listener.picture_bytes import end_of_picture
from firstread.dicom.datasets import (
    PARSE_ERRORS,
    UNDEFINED_LENGTH,
    Content,
    UnusableFile,
    encoding_of,
    opened,
    text,
)
from firstread.dicom.elements import Scanner, Window
from firstread.dicom.fragments import walk_fragments

_IDENTIFIED_BY: Final = 0x0020000E
"""Series Instance UID, the last of the elements without which a data set belongs to no study."""
_INFLATED_LIMIT_BYTES: Final = 512 * 2**20
_MAY_GROW: Final = frozenset({"empty", "no_dataset", "truncated"})


def is_whole(path: Path) -> bool:
    """Whether no further byte is to come, or none that would make a difference.

    A file that will be refused whatever follows is whole. Raises OSError where it cannot be read.
    """
    kind = kind_of(path)
    if kind == "empty" or has_hole(path):
        return False
    if kind == "zip":
        return archive.is_whole(path)
    if kind == "picture":
        return path.stat().st_size > FILE_LIMIT_BYTES or end_of_picture(path.read_bytes()) is not None
    if kind == "foreign":
        return True
    return _data_set_is_whole(path)


def has_hole(path: Path) -> bool:
    """Whether a part was never written: some programs make a file at its full size and fill it then."""
    with path.open("rb") as file:
        try:
            return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < os.fstat(file.fileno()).st_size
        except OSError:  # not known on this file system
            return False


def _data_set_is_whole(path: Path) -> bool:
    try:
        with opened(path) as content:
            return "truncated" not in content.notes and _ends(content)
    except UnusableFile as error:
        if error.reason == "not_dicom":
            return not may_become_readable(head_of(path))
        return error.reason not in _MAY_GROW


def _ends(content: Content) -> bool:
    ds = content.ds
    if text(ds.file_meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return _inflates(content.source, content.body_offset)
    if content.pixel_offset is None:
        is_image = "Rows" in ds or "Image Storage" in UID(text(ds, "SOPClassUID")).name
        return not content.padded and not is_image and content.last_tag >= _IDENTIFIED_BY
    if content.pixel_length != UNDEFINED_LENGTH:
        return _ends_behind(content, content.pixel_offset + (content.pixel_length or 0))
    fragments = walk_fragments(content.fp, content.pixel_offset)
    return fragments.delimited and _ends_behind(content, fragments.end)


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
