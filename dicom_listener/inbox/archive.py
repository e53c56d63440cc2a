"""Zip archives out of the inbox: one member at a time, within bounds, member names never used as paths."""

from __future__ import annotations

import errno
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from dicom_listener.inbox.files import LITTER, fitting
from firstread.dicom.files import UnusableFile
from firstread.storage.faults import raise_fault

RATIO_LIMIT: Final = 200
"""Unpacked to packed size beyond which a large archive is a bomb; deflate reaches about 1000, images rarely 20."""
RATIO_FREE_BYTES: Final = 64 * 2**20
"""Archives that unpack to less are taken at any ratio."""
CHUNK_BYTES: Final = 2**20
MEMBER_NAME_BYTES: Final = 150

_END_OF_DIRECTORY_START: Final = b"PK\5\6"
_END_OF_DIRECTORY: Final = struct.Struct("<4s4H2LH")

METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""How members may be packed: the others take as much memory as the archive likes, and hardly anybody uses them."""
ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
)


class UnusableArchive(UnusableFile):
    """An archive that is refused: ``truncated``, ``corrupt_archive``, ``encrypted``, ``bomb``, ``empty_archive``."""


@dataclass(frozen=True)
class Member:
    """One file of an archive. ``name`` is as the archive says it, for people to read, never a path to open."""

    name: str
    info: zipfile.ZipInfo


def members(archive: zipfile.ZipFile, max_bytes: int, max_files: int) -> list[Member]:
    """The files of an archive that are to be unpacked.

    Raises
    ------
    UnusableArchive
        If it is beyond the limits by its own account (reading stops at the sizes it declares), encrypted or empty.
    """
    files = [info for info in archive.infolist() if not info.is_dir()]
    if len(files) > max_files:
        raise UnusableArchive("bomb", f"more than {max_files} files")
    unpacked, packed = sum(i.file_size for i in files), sum(i.compress_size for i in files)
    if unpacked > max_bytes:
        raise UnusableArchive("bomb", f"unpacks to more than {max_bytes // 2**20} MiB")
    if unpacked > RATIO_FREE_BYTES and unpacked > RATIO_LIMIT * max(packed, 1):
        raise UnusableArchive("bomb", f"unpacks to more than {RATIO_LIMIT} times its size")
    if any(info.flag_bits & 1 for info in files):
        raise UnusableArchive("encrypted", "the archive has a password")
    wanted = [Member(info.filename, info) for info in files if _wanted(info.filename)]
    if not wanted:
        raise UnusableArchive("empty_archive", "no files in the archive")
    return wanted


def _wanted(name: str) -> bool:
    """Whether a member is more than litter. Nobody renames it later, so hidden and unfinished names are read too."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return (
        bool(parts)
        and "__MACOSX" not in parts
        and not (parts[-1].startswith("._") or parts[-1].lower() in {*LITTER, ".ds_store"})
    )


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive.

    Raises
    ------
    UnusableArchive
        ``truncated`` where its directory, which stands at the end, is not there; ``corrupt_archive`` for a broken one.
    """
    try:
        with _offsets_checked():
            return zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        if not has_end(path):
            raise UnusableArchive("truncated", "the archive ends before its directory") from error
        raise UnusableArchive("corrupt_archive", "the zip directory cannot be read") from error


@contextmanager
def _offsets_checked() -> Iterator[None]:
    """An offset of an archive that no file can have is the archive's fault, and no error of the system's."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise zipfile.BadZipFile("an offset before the start of the file") from error
        raise


def has_end(path: Path) -> bool:
    """Whether the end of a zip directory ends where the file does."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_OF_DIRECTORY.size - 2**16))
        tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY_START)
    if at < 0 or at + _END_OF_DIRECTORY.size > len(tail):
        return False
    comment_bytes = _END_OF_DIRECTORY.unpack_from(tail, at)[-1]
    return bool(at + _END_OF_DIRECTORY.size + comment_bytes == len(tail))


def is_whole(path: Path) -> bool:
    """Whether an archive has its end, and its directory describes all that stands before it."""
    if not has_end(path):
        return False
    try:
        with _offsets_checked(), zipfile.ZipFile(path) as archive:
            # an archive at the end of one that is cut describes itself alone
            return min((info.header_offset for info in archive.infolist()), default=0) == 0
    except ZIP_ERRORS:
        return True  # broken: no further byte mends it


def unpack(archive: zipfile.ZipFile, member: Member, target: BinaryIO) -> None:
    """Write one member to ``target``.

    Raises
    ------
    UnusableFile
        ``corrupt`` where the packed data are broken or their check sum is wrong, ``unsupported_format`` where they are
        packed in an unusual way, ``unreadable`` where the archive cannot be read.
    OSError
        If ``target`` cannot be written, which says nothing against the archive.
    """
    if member.info.compress_type not in METHODS:
        raise UnusableFile("unsupported_format", f"packed by method {member.info.compress_type}; deflate is read")
    try:
        for chunk in _chunks(archive, member):
            target.write(chunk)
    except ZIP_ERRORS as error:
        raise UnusableFile("corrupt", f"the archive's member cannot be unpacked ({type(error).__name__})") from error


def _chunks(archive: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    try:
        with _offsets_checked(), archive.open(member.info) as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise_fault(error)
        raise UnusableFile("unreadable", f"the archive cannot be read ({error.strerror})") from error


def safe_name(name: str) -> Path:
    """A relative path made from a member's name: no parents, no roots, no control characters; for kept copies only."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    cleaned = ["".join(c if c.isalnum() or c in " ._-+()" else "_" for c in part).lstrip(".") for part in parts]
    return Path(*([fitting(part, MEMBER_NAME_BYTES) or "_" for part in cleaned][-4:] or ["_"]))
