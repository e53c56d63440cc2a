"""Where encapsulated pixel data end (PS3.5 annex A.4): their fragments, stepped over by their lengths."""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack
from typing import BinaryIO, Final

_ITEM: Final = b"\xfe\xff\x00\xe0"
_END: Final = b"\xfe\xff\xdd\xe0"
_FRAGMENT_LIMIT: Final = 100_000
"""Fragments that are stepped over; beyond them nothing is said to be missing."""
_END_OF_STREAM: Final = b"\xff\xd9"
"""End of image of JPEG and JPEG-LS, end of code stream of JPEG 2000."""


@dataclass(frozen=True)
class Fragments:
    """What stands after the head of an encapsulated Pixel Data element.

    Attributes
    ----------
    count : int
        Complete fragments, the offset table apart.
    end : int
        Offset behind the last complete fragment, or behind the delimiter.
    delimited : bool
        The sequence has its delimiter.
    exhausted : bool
        The file ends behind a complete fragment.
    tail : bytes
        The last three bytes of the last fragment.
    """

    count: int
    end: int
    delimited: bool
    exhausted: bool
    tail: bytes

    def are_whole(self, frames: int) -> bool:
        """Whether nothing is missing: by the delimiter, or, where a writer left it out, by the code streams."""
        ended = self.exhausted and self.count >= max(1, frames) and _END_OF_STREAM in self.tail
        return self.delimited or ended or self.count >= _FRAGMENT_LIMIT


def walk_fragments(fp: BinaryIO, offset: int) -> Fragments:
    """Step over the fragments from the first item, which is the offset table."""
    at, count, tail = offset, -1, b""
    while count < _FRAGMENT_LIMIT:
        fp.seek(at)
        head = fp.read(8)
        if head[:4] == _END:
            return Fragments(max(count, 0), at + 8, len(head) == 8, False, tail)
        if len(head) < 8 or head[:4] != _ITEM:
            return Fragments(max(count, 0), at, False, not head, tail)
        (length,) = unpack("<L", head[4:])
        fp.seek(max(at + 8, at + 8 + length - 3))
        tail = fp.read(min(3, length))
        if len(tail) < min(3, length):
            return Fragments(max(count, 0), at, False, False, b"")
        at, count = at + 8 + length, count + 1
    return Fragments(count, at, False, False, tail)
