"""What a JPEG, JPEG-LS or JPEG 2000 code stream says of itself before it is decoded."""

from __future__ import annotations

import struct
from typing import Final

_START_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


def code_stream_size(head: bytes) -> tuple[int, int] | None:
    """(rows, columns) of the first code stream in an encapsulated value's first bytes, None if not found."""
    codestream = head.find(b"\xff\x4f\xff\x51")  # SOC and SIZ of JPEG 2000, ISO/IEC 15444-1 annex A
    if codestream >= 0 and len(head) >= codestream + 24:
        x1, y1, x0, y0 = struct.unpack(">4I", head[codestream + 8 : codestream + 24])
        return y1 - y0, x1 - x0
    at = head.find(b"\xff\xd8\xff")  # SOI of JPEG and JPEG-LS, ISO/IEC 10918-1 annex B
    at += 2
    while 2 <= at <= len(head) - 9 and head[at] == 0xFF:
        marker, size = head[at + 1], struct.unpack(">H", head[at + 2 : at + 4])[0]
        if marker in _START_OF_FRAME:
            rows, columns = struct.unpack(">HH", head[at + 5 : at + 9])
            return (rows, columns) if rows else None
        at += 2 + size
    return None
