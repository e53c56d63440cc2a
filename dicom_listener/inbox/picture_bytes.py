"""Where a JPEG or PNG picture ends, by its own structure; cameras and telephones put more behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

JPEG_START: Final = b"\xff\xd8\xff"
PNG_START: Final = b"\x89PNG\r\n\x1a\n"
SCAN: Final = 0xDA
END_OF_IMAGE: Final = 0xD9
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends entropy-coded data: a marker that is neither a stuffed byte nor a restart (ISO/IEC 10918-1 B.1.1.5)."""


class Segment(NamedTuple):
    """A marker segment of a JPEG stream; that of a scan with its entropy-coded data."""

    marker: int
    start: int
    end: int


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """The segments from behind the first marker to the first end of image, that one included.

    What is cut off or no JPEG ends the iteration before it.
    """
    at = 2
    while at + 2 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _WITHOUT_LENGTH or marker == END_OF_IMAGE:
            yield Segment(marker, at, at + 2)
            if marker == END_OF_IMAGE:
                return
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == SCAN:
            marker_behind = _MARKER.search(data, end)
            end = marker_behind.start() if marker_behind else len(data) + 1
        if end > len(data):
            return
        yield Segment(marker, at, end)
        at = end


def end_of_picture(data: bytes) -> int | None:
    """Length of a JPEG or PNG picture; None where it ends later than the data."""
    if data.startswith(JPEG_START):
        return next((segment.end for segment in jpeg_segments(data) if segment.marker == END_OF_IMAGE), None)
    at = len(PNG_START)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IEND":
            return end if end <= len(data) else None
        at = end
    return None
