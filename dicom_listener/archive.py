"""Zip archives out of the inbox: one member at a time, within bounds, member names never used as paths."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from dicom_listener.inbox_files import waits_for_name
from firstread.dicom.files import UnusableFile

RATIO_LIMIT: Final = 200
"""Unpacked to packed size beyond which a large archive is a bomb; deflate reaches about 1000, images rarely 20."""
RATIO_FREE_BYTES: Final = 64 * 2**20
"""Archives that unpack to less are taken at any ratio."""
CHUNK_BYTES: Final = 2**20

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
    """An archive that is refused whole: ``corrupt_archive``, ``encrypted``, ``bomb``, ``empty_archive``."""


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
    kept = [Member(info.filename, info) for info in files if _wanted(info.filename)]
    if not kept:
        raise UnusableArchive("empty_archive", "no files in the archive")
    return kept


def _wanted(name: str) -> bool:
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return bool(parts) and "__MACOSX" not in parts and not waits_for_name(parts[-1])


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive. Raises :class:`UnusableArchive` for what is none, or is cut off."""
    try:
        return zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise UnusableArchive("corrupt_archive", "the zip directory cannot be read") from error


def unpack(archive: zipfile.ZipFile, member: Member, target: BinaryIO) -> None:
    """Write one member to ``target``.

    Raises
    ------
    UnusableFile
        ``corrupt`` where the packed data are broken or their check sum is wrong.
    """
    try:
        for chunk in _chunks(archive, member):
            target.write(chunk)
    except ZIP_ERRORS as error:
        raise UnusableFile("corrupt", f"the archive's member cannot be unpacked ({type(error).__name__})") from error


def _chunks(archive: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    with archive.open(member.info) as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def safe_name(name: str) -> Path:
    """A relative path made from a member's name: no parents, no roots, no control characters; for kept copies only."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    cleaned = ["".join(c if c.isalnum() or c in " ._-+()" else "_" for c in part)[:100].lstrip(".") for part in parts]
    return Path(*([part or "_" for part in cleaned][-4:] or ["_"]))
