"""What a JPEG, JPEG-LS or JPEG 2000 code stream says of itself before it is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

_START_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_END_OF_IMAGE, _LINES = 0xD9, 0xDC
_ALONE: Final = frozenset({*range(0xD0, 0xDA)})
"""Markers without a segment: restarts, start and end of image."""

_MARKER: Final = re.compile(rb"\xff[\xc0-\xfe]")
"""Stuffed bytes of JPEG (0) and JPEG-LS (below 0x80) are none."""

_J2K_START: Final = re.compile(rb"\xff\x4f\xff\x51")
_JP2_SIGNATURE: Final = b"\x00\x00\x00\x0cjP  "
_SIZ, _TILE_PART, _DATA = 0x51, 0x90, 0x93

Size = tuple[int, int]
"""(rows, columns)"""


def stream_sizes(data: bytes) -> list[Size]:
    """Every size that the header segments of one frame's code stream tell, in their order.

    Parameters
    ----------
    data : bytes
        The whole code stream, of any of the three kinds.

    Returns
    -------
    list of (int, int)
        Rows and columns. 0 rows: left to be told later in the stream. Empty where the stream is of none of the three
        kinds.
    """
    if data.startswith(b"\xff\xd8"):
        return [*_jpeg_sizes(data, 2)]
    codestream, jpeg = _J2K_START.search(data), data.find(b"\xff\xd8")
    if codestream is not None and (data[:8] == _JP2_SIGNATURE or not 0 <= jpeg < codestream.start()):
        return [*_jpeg2000_sizes(data)]
    return [*_jpeg_sizes(data, jpeg + 2)] if jpeg >= 0 else []


def _jpeg_sizes(data: bytes, at: int) -> Iterator[Size]:
    """Frame headers of JPEG (ISO/IEC 10918-1 annex B) and JPEG-LS (ISO/IEC 14495-1 annex C) up to the end of image.

    Decoders look for the next marker wherever a segment ends, so what stands between is stepped over.
    """
    while found := _MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == _END_OF_IMAGE:
            return
        if marker in _ALONE:
            continue
        if at + 2 > len(data):
            return
        length = struct.unpack(">H", data[at : at + 2])[0]
        if marker in _START_OF_FRAME and at + 7 <= len(data):
            yield struct.unpack(">HH", data[at + 3 : at + 7])
        elif marker == _LINES and at + 4 <= len(data):
            yield struct.unpack(">H", data[at + 2 : at + 4])[0], 0
        at += max(2, length)


def _jpeg2000_sizes(data: bytes) -> Iterator[Size]:
    """SIZ segments of the main header (ISO/IEC 15444-1 annex A.5); of each stream where they lie in boxes (annex I)."""
    for start in _J2K_START.finditer(data):
        at = start.start() + 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (_TILE_PART, _DATA):
            marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
            if marker == _SIZ and at + 22 <= len(data):
                x1, y1, x0, y0 = struct.unpack(">4I", data[at + 6 : at + 22])
                yield max(0, y1 - y0), max(0, x1 - x0)
            at += 2 + max(2, length)
        if start.start() == 0:
            return
