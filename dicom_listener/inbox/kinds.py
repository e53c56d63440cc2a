"""What a file may be, by its first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dicom_listener.inbox.picture_bytes import JPEG_START, PNG_START

HEAD_BYTES: Final = 132
"""As many as a DICOM preamble and prefix have (PS3.10 section 7.1)."""
ZIP_STARTS: Final = (b"PK\3\4", b"PK\5\6")

_OTHERS: Final[dict[bytes, str]] = {
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"II+\0": "a TIFF picture",
    b"MM\0+": "a TIFF picture",
    b"GIF87a": "a GIF picture",
    b"GIF89a": "a GIF picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"\xff\x4f\xff\x51": "a JPEG 2000 picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\xff\x0a": "a JPEG XL picture",
    b"8BPS": "a Photoshop picture",
    b"\x76\x2f\x31\x01": "an OpenEXR picture",
    b"\0\0\1\0": "an icon",
    b"<svg": "an SVG picture",
    b"%PDF-": "a PDF document",
    b"NRRD000": "an NRRD volume",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x1f\x8b": "a gzip file",
}
"""Formats that people drop and that are not read, by how they begin."""
_BRANDS: Final[dict[bytes, str]] = {
    b"avif": "an AVIF picture",
    b"avis": "an AVIF picture",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "a HEIC picture"),
    b"crx ": "a raw camera picture",
}
"""Brands of the ISO base media format (ISO/IEC 14496-12 section 4.3)."""
_DICOM_STARTS: Final = (b"\x02\0", b"\x08\0", b"\0\x08")


def kind_of(path: Path) -> str:
    """``empty``, ``zip``, ``picture``, ``foreign`` (a known format that is not read) or ``dicom`` (whatever else)."""
    head = head_of(path)
    if not head:
        return "empty"
    if head[128:132] == b"DICM":  # a preamble may look like anything
        return "dicom"
    if head.startswith(ZIP_STARTS):
        return "zip"
    if head.startswith((JPEG_START, PNG_START)):
        return "picture"
    return "foreign" if format_of(head) else "dicom"


def format_of(head: bytes) -> str | None:
    """A format that is known and not read, in words; None for every other."""
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a film or picture of an MPEG format")
    if head[:4] == b"RIFF":
        return "a WebP picture" if head[8:12] == b"WEBP" else "a RIFF file"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "a BMP picture"
    return next((name for start, name in _OTHERS.items() if head.startswith(start)), None)


def may_become_readable(head: bytes) -> bool:
    """Whether what begins like this may become a file that is read, once its writer goes on."""
    if not any(head[:128]) and (not any(head) or len(head) < HEAD_BYTES):
        return True  # the preamble, or a file made at its full size to be filled later
    starts = (*ZIP_STARTS, JPEG_START, PNG_START, *_DICOM_STARTS)
    return len(head) < HEAD_BYTES and any(start[: len(head)] == head[: len(start)] for start in starts)


def head_of(path: Path) -> bytes:
    """The first bytes, at most as many as a DICOM preamble and prefix have."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)
