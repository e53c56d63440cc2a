"""The elements of an encoded data set (PS3.5 section 7), found by their lengths without building what they hold.

Values stay bytes until somebody asks for them, sequences too, of either kind of length. So what a file costs is bounded
before anything is built from it: by the number of its elements and items, and by its bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import BinaryIO, Final, cast

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

HEADER_LIMIT_BYTES: Final = 64 * 2**20
"""Most bytes that one header may take; real ones have kilobytes, large Enhanced ones a few megabytes."""
VALUE_LIMIT_BYTES: Final = 16 * 2**20
"""A longer value is stepped over and left out."""
LIST_LIMIT_BYTES: Final = 2**16
"""The same for values that become a list of short texts or numbers; in explicit VR they cannot be longer."""
ELEMENT_LIMIT: Final = 50_000
"""Most elements of a data set, those in sequences apart; real ones have some hundreds."""
NESTED_LIMIT: Final = 100_000
"""Elements and items in sequences that are kept, all together; a sequence beyond it is left out. An Enhanced object of
1,000 frames has about 80,000."""
WALK_LIMIT: Final = 1_000_000
"""Elements and items that are stepped over to find the ends of sequences that do not say their length."""
DEPTH_LIMIT: Final = 100
"""Levels of sequences and items inside one another."""
UNDEFINED_LENGTH: Final = 0xFFFFFFFF

_WINDOW_BYTES: Final = 16 * 2**10
_WEIGHT_BYTES: Final = 160
"""So many bytes of a value in a sequence count as an entry more: it may become a list."""
_UNCOUNTED: Final = 128
_ITEM: Final = 0xFFFEE000
_END_OF_ITEM: Final = 0xFFFEE00D
_END_OF_SEQUENCE: Final = 0xFFFEE0DD
_STANDARD: Final = frozenset(str(vr).encode() for vr in STANDARD_VR)
LONG_VRS: Final = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)
"""VRs whose length has four bytes in explicit VR (PS3.5 section 7.1.2)."""
_BULK: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT"})
_CHARACTER_SET: Final = 0x00080005
_CHARACTER_SET_LIMIT_BYTES: Final = 1024


@lru_cache(maxsize=4096)
def base_tag(tag: int) -> BaseTag:
    """A number as a tag, the same object each time: looking it up in a data set then compares no tags."""
    return BaseTag(tag)


class TooManyElements(ValueError):
    """More elements and items than the limit."""


class HeaderTooLong(ValueError):
    """More bytes of header than the limit."""


class EndsEarly(EOFError):
    """The bytes end inside a sequence."""


class Window:
    """Random access to the bytes of a file, a piece at a time.

    Parameters
    ----------
    limit : int
        Most bytes of values that :meth:`value` hands out.
    """

    def __init__(self, fp: BinaryIO, limit: int = HEADER_LIMIT_BYTES) -> None:
        self._fp = fp
        self._at = 0
        self._data = b""
        self._left = limit
        self.size = fp.seek(0, io.SEEK_END)

    def peek(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes, fewer at the end of the file."""
        start = offset - self._at
        if start < 0 or start + count > len(self._data):
            self._fp.seek(offset)
            self._data = self._fp.read(max(count, _WINDOW_BYTES))
            self._at, start = offset, 0
        return self._data[start : start + count]

    def value(self, offset: int, count: int) -> bytes:
        """As :meth:`peek`, counted. Raises :class:`HeaderTooLong`."""
        if count > self._left:
            raise HeaderTooLong("header larger than the limit")
        self._left -= count
        if count <= _WINDOW_BYTES:
            return self.peek(offset, count)
        self._fp.seek(offset)
        return self._fp.read(count)


_EXPLICIT: Final = {True: Struct("<HH2sH").unpack, False: Struct(">HH2sH").unpack}
_IMPLICIT: Final = {True: Struct("<HHL").unpack, False: Struct(">HHL").unpack}
_LENGTH: Final = {True: Struct("<L").unpack, False: Struct(">L").unpack}
_ITEM_BYTES: Final = {True: b"\xfe\xff\x00\xe0", False: b"\xff\xfe\xe0\x00"}


@dataclass(frozen=True)
class Encoding:
    """How elements are encoded (PS3.5 section 7.1)."""

    implicit: bool
    little: bool

    def head(self, head: bytes) -> tuple[int, str | None, int, int]:
        """Tag, VR, length of the value, and length of what stands before it, from 12 bytes (8 where the file ends).

        An element without a VR in explicit encoding is read as an implicit one: some writers mix them in sequences.
        """
        group, element, vr, length = _EXPLICIT[self.little](head[:8])
        if not self.implicit and (vr in _STANDARD or b"AA" <= vr <= b"ZZ"):
            if vr not in LONG_VRS:
                return group << 16 | element, vr.decode("ascii", "replace"), length, 8
            (length,) = _LENGTH[self.little](head[8:12].ljust(4, b"\0"))
            return group << 16 | element, vr.decode(), length, 12
        (length,) = _LENGTH[self.little](head[4:8])
        return group << 16 | element, None, length, 8


@dataclass
class Elements:
    """The elements that were read.

    Attributes
    ----------
    by_tag : dict
        Elements by tag, as pydicom takes them; sequences as the bytes of their items.
    end : int
        Offset behind the last element, or of the element at which reading stopped.
    stopped_at : tuple of int or None
        Tag, offset of the value, length and VR of the element at which reading stopped; no VR in implicit encodings.
    cut : bool
        The file ends inside an element.
    left_out : bool
        Something was longer than its limit.
    padded : bool
        Zeros stand where an element should.
    """

    by_tag: dict[BaseTag, DataElement | RawDataElement] = field(default_factory=dict)
    end: int = 0
    stopped_at: tuple[int, int, int, str | None] | None = None
    cut: bool = False
    left_out: bool = False
    padded: bool = False


class Scanner:
    """Reads the elements of one data set from a window.

    Parameters
    ----------
    stop : callable
        Called with each tag; reading ends before the first for which it returns true.
    """

    def __init__(self, window: Window, encoding: Encoding, stop: Callable[[int], bool]) -> None:
        self._window = window
        self._encoding = encoding
        self._stop = stop
        self._walked = 0
        self._nested = 0
        self._out = Elements()

    def run(self, start: int) -> Elements:
        """Read from an offset on.

        Raises
        ------
        TooManyElements, HeaderTooLong
            Beyond the limits.
        ValueError
            Where a sequence is not made of items.
        """
        out, at, count = self._out, start, 0
        while True:
            out.end = at
            head = self._window.peek(at, 12)
            if len(head) < 8:
                out.cut = any(head)
                return out
            if not any(head[:8]):
                out.padded = True
                return out
            tag, vr, length, before = self._encoding.head(head)
            value_at = at + before
            if self._stop(tag):
                out.stopped_at = (tag, value_at, length, vr)
                return out
            if tag == _END_OF_ITEM:
                return out
            count += 1
            if count > ELEMENT_LIMIT:
                raise TooManyElements(f"more than {ELEMENT_LIMIT} elements")
            after = self._take(tag, vr, length, value_at)
            if after is None:
                out.cut = True
                return out
            at = after

    def _take(self, tag: int, vr: str | None, length: int, value_at: int) -> int | None:
        """Keep one element; the offset behind it, or None where the file ends before that."""
        if length == UNDEFINED_LENGTH:
            return self._take_undefined(tag, vr, value_at)
        end, size = value_at + length, self._window.size
        if _is_too_long(tag, vr, length):
            self._out.left_out = True
            return end if end <= size else None
        value = self._window.value(value_at, max(0, min(end, size) - value_at))
        if value[:4] == _ITEM_BYTES[self._encoding.little] and not self._may_be_built(value):
            self._out.left_out = True
        else:
            self._keep(tag, vr, length, value, value_at)
        return end if end <= size else None

    def _take_undefined(self, tag: int, vr: str | None, value_at: int) -> int | None:
        try:
            inner = self._end_of(value_at)
        except EndsEarly:
            return None
        length = inner - value_at
        is_sequence = (vr if vr not in (None, "UN") else _known_vr(tag)) in ("SQ", "UN")
        value = self._window.value(value_at, length) if is_sequence and length <= VALUE_LIMIT_BYTES else None
        if value is None or not self._may_be_built(value):
            self._out.left_out = True
        else:
            self._keep(tag, "SQ", length, value, value_at)
        return inner + 8

    def _keep(self, tag: int, vr: str | None, length: int, value: bytes, value_at: int) -> None:
        encoding, key = self._encoding, base_tag(tag)
        content = value if length else cast(bytes | None, empty_value_for_VR(vr, raw=True))
        self._out.by_tag[key] = RawDataElement(key, vr, length, content, value_at, encoding.implicit, encoding.little)

    def _may_be_built(self, items: bytes) -> bool:
        """Whether a sequence keeps within what all of them may hold together; counts it then."""
        n = entries_in(items, self._encoding, NESTED_LIMIT - self._nested)
        if self._nested + n > NESTED_LIMIT:
            self._walked += n
            return False
        self._nested += n
        return True

    def _end_of(self, at: int) -> int:
        """Offset of the delimiter of a sequence that says no length; what says its length is stepped over.

        Raises
        ------
        EndsEarly
            If the file ends first.
        """
        peek, read_head, little = self._window.peek, self._encoding.head, self._encoding.little
        in_item = [False]  # of each open level: whether it is an item
        while True:
            head = peek(at, 12)
            if len(head) < 8:
                raise EndsEarly("the file ends inside a sequence")
            self._walked += 1
            if self._walked > WALK_LIMIT:
                raise TooManyElements(f"more than {WALK_LIMIT} elements and items in sequences")
            if len(in_item) > DEPTH_LIMIT:
                raise TooManyElements(f"more than {DEPTH_LIMIT} levels of sequences and items")
            group, element, length = _IMPLICIT[little](head[:8])
            tag = group << 16 | element
            if tag == (_END_OF_ITEM if in_item[-1] else _END_OF_SEQUENCE):
                in_item.pop()
                if not in_item:
                    return at
                at += 8
            elif in_item[-1]:
                tag, _, length, before = read_head(head)
                at += before
                if length == UNDEFINED_LENGTH:
                    in_item.append(False)
                else:
                    at += length
            elif tag == _ITEM:
                at += 8
                if length == UNDEFINED_LENGTH:
                    in_item.append(True)
                else:
                    at += length
            elif not any(head):
                raise EndsEarly("zeros where a sequence should go on")
            else:
                raise ValueError("no item where a sequence should have one")


def entries_in(items: bytes, encoding: Encoding, limit: int) -> int:
    """Elements and items of an encoded sequence, on every level; counting ends beyond ``limit``.

    Short ones are not looked into: an entry has eight bytes at least. One that is nested beyond :data:`DEPTH_LIMIT`
    counts as one with too many.
    """
    most = len(items) // 8
    if most <= _UNCOUNTED:
        return most
    start, read_item, at, n, depth = _ITEM_BYTES[encoding.little], _IMPLICIT[encoding.little], 0, 0, 0
    while at + 8 <= len(items) and n <= limit:
        n += 1
        group, element, length = read_item(items[at : at + 8])
        if group == 0xFFFE:
            at += 8
            depth += 1 if element == 0xE000 and length == UNDEFINED_LENGTH else -1 if element != 0xE000 else 0
        else:
            _, vr, length, before = encoding.head(items[at : at + 12])
            at += before
            if length == UNDEFINED_LENGTH:
                depth += 1
            elif vr != "SQ" and items[at : at + 4] != start:
                at += length
                n += length // _WEIGHT_BYTES
        if depth > DEPTH_LIMIT:
            return limit + 1
    return n


def _is_too_long(tag: int, vr: str | None, length: int) -> bool:
    if tag == _CHARACTER_SET:
        return length > _CHARACTER_SET_LIMIT_BYTES
    if length <= LIST_LIMIT_BYTES or length > VALUE_LIMIT_BYTES:
        return length > VALUE_LIMIT_BYTES
    return (vr if vr not in (None, "UN") else _known_vr(tag)) not in _BULK


def _known_vr(tag: int) -> str:
    """VR of the dictionary, the wider one where it names several; ``UN`` for what it does not know."""
    try:
        return str(dictionary_VR(tag)).split(" or ")[-1]
    except KeyError:
        return "UN"
