"""Encapsulated pixel data (PS3.5 annex A.4): which bytes of the file are whose frame."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO, Final

from firstread.dicom.pixels.codecs import UnreadablePixels

STREAM_LIMIT_BYTES: Final = 512 * 2**20
"""Largest code stream of one frame."""

MOST_FRAGMENTS: Final = 1_000_000

_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_END_OF_IMAGE: Final = b"\xff\xd9"

Span = tuple[int, int]
"""Where a fragment's value starts, and its length in bytes."""


class Encapsulated:
    """The code streams of a file's frames.

    Parameters
    ----------
    fp : BinaryIO
        Positioned at the first item, the Basic Offset Table.
    frames : int
        Number of Frames.
    extended : bytes, optional
        Extended Offset Table (PS3.3 C.7.6.3.1.8).

    Raises
    ------
    UnreadablePixels
        If the items are not what they should be, or cannot be divided into frames.
    """

    def __init__(self, fp: BinaryIO, frames: int, extended: bytes | None = None) -> None:
        self._fp = fp
        start = fp.tell()
        self._size = fp.seek(0, 2)
        fp.seek(start)
        table, fragments = self._items()
        first = table[0] + table[1]
        tables = [_numbers(self._read(table), "I"), _numbers(extended or b"", "Q")]
        self._frames = self._by_frame(frames, fragments, first, tables)

    def __len__(self) -> int:
        return len(self._frames)

    def stream(self, index: int) -> bytes:
        """Code stream of a frame, counted from 0.

        Raises
        ------
        UnreadablePixels
            If there is none, or the file ends inside it.
        """
        if index >= len(self._frames):
            raise UnreadablePixels("fewer code streams than Number of Frames")
        spans = self._frames[index]
        if sum(length for _, length in spans) > STREAM_LIMIT_BYTES:
            raise UnreadablePixels("a code stream larger than the limit")
        if any(at + length > self._size for at, length in spans):
            raise UnreadablePixels("the file ends inside a code stream")
        return b"".join(self._read(span) for span in spans)

    def _read(self, span: Span) -> bytes:
        self._fp.seek(span[0])
        return self._fp.read(max(0, min(span[1], self._size - span[0])))

    def _items(self) -> tuple[Span, list[Span]]:
        """The Basic Offset Table and the fragments. A file that ends before the delimiter has what is there."""
        spans: list[Span] = []
        while len(spans) <= MOST_FRAGMENTS:
            head = self._fp.read(8)
            if len(head) < 8:
                break
            group, element, length = struct.unpack("<HHI", head)
            tag = group << 16 | element
            if tag == _END:
                break
            if tag != _ITEM or length == 0xFFFFFFFF:
                raise UnreadablePixels("the pixel data are not made of items")
            spans.append((self._fp.tell(), length))
            self._fp.seek(length, 1)
        if len(spans) < 2:
            raise UnreadablePixels("no code stream in the pixel data")
        return spans[0], spans[1:]

    def _by_frame(
        self,
        frames: int,
        fragments: Sequence[Span],
        first: int,
        tables: Sequence[Sequence[int]],
    ) -> list[list[Span]]:
        """Fragments of each frame: by count where that is plain, else by a table that fits, else by ends of streams."""
        if frames == 1:
            return [list(fragments)]
        if len(fragments) == frames:
            return [[span] for span in fragments]
        starts = {at - 8 - first: number for number, (at, _) in enumerate(fragments)}
        for table in tables:
            numbers = [starts.get(offset, -1) for offset in table]
            if len(numbers) == frames and numbers[0] == 0 and all(a < b for a, b in pairwise(numbers)):
                ends = [*numbers[1:], len(fragments)]
                return [list(fragments[a:b]) for a, b in zip(numbers, ends, strict=True)]
        return self._by_end_of_image(fragments)

    def _by_end_of_image(self, fragments: Sequence[Span]) -> list[list[Span]]:
        """A fragment whose last bytes hold the end marker of JPEG or JPEG 2000 is the last of its frame."""
        groups: list[list[Span]] = [[]]
        for at, length in fragments:
            groups[-1].append((at, length))
            tail = min(10, length)
            if _END_OF_IMAGE in self._read((at + length - tail, tail)):
                groups.append([])
        return [group for group in groups if group]


def _numbers(table: bytes, kind: str) -> list[int]:
    count = len(table) // struct.calcsize(f"<{kind}")
    return list(struct.unpack_from(f"<{count}{kind}", table))
