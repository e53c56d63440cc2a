"""Look-up tables of a header: Modality LUT, VOI LUT and palettes (PS3.3 C.11.1, C.11.2, C.7.6.3.1.5 and C.7.9).

A table that is there and cannot be read as the standard says ends in
:class:`firstread.dicom.pixels.reading.UnreadablePixels`; none is left out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from firstread.dicom.pixels.reading import UnreadablePixels
from firstread.dicom.values import VALUE_ERRORS

_BYTES_ALONE: Final = frozenset({"OB", "UN"})
_CHANNELS: Final = ("Red", "Green", "Blue")


@dataclass(frozen=True)
class Table:
    """Entries for the values from ``first`` on; values beyond either end get the entry of that end."""

    first: int
    entries: np.ndarray
    bits: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Entries (uint16) of an array of values; those that are no whole numbers are rounded."""
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        index = np.clip(whole.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[index])

    def item(self) -> Dataset:
        """The table as an item of a sequence: entries of 16 bits, without an explanation."""
        ds = Dataset()
        ds.add_new("LUTDescriptor", "US", [len(self.entries) % 2**16, self.first % 2**16, self.bits])
        ds.add_new("LUTData", "OW", self.entries.astype("<u2").tobytes())
        return ds


def table_of(ds: Dataset, values: np.ndarray, descriptor: str = "LUTDescriptor", data: str = "LUTData") -> Table:
    """The table that two elements describe.

    Parameters
    ----------
    ds : Dataset
        Item of the sequence, or the header itself for a palette.
    values : ndarray
        What the table will be applied to. The first value that is mapped is 16 bits whose sign follows these values
        (PS3.3 C.11.1.1), and files write it with either VR: the reading that covers more of them is meant.
    descriptor, data : str
        Keywords.

    Raises
    ------
    UnreadablePixels
        If an element is missing, or the data do not have the length and the depth that the descriptor says.
    """
    head, body = _words(ds, descriptor), _words(ds, data)
    if len(head) != 6 or not body:
        raise UnreadablePixels("a look-up table without descriptor or data")
    count, first, bits = struct.unpack("<3H", head)
    count = count or 2**16
    return Table(_first(first, count, values), _entries(body, count, bits), bits)


def _entries(body: bytes, count: int, bits: int) -> np.ndarray:
    """Entries of 16 bits, or of 8 bits packed two in a word, which only the length tells apart."""
    if len(body) == 2 * count:
        entries = np.frombuffer(body, "<u2")
    elif bits <= 8 and len(body) == count + count % 2:
        entries = np.frombuffer(body, np.uint8)[:count].astype(np.uint16)
    else:
        raise UnreadablePixels("a look-up table of another length than its descriptor says")
    if not 1 <= bits <= 16 or int(entries.max()) >> bits:
        raise UnreadablePixels("a look-up table whose entries are deeper than its descriptor says")
    return entries


def _first(word: int, count: int, values: np.ndarray) -> int:
    """The first value that is mapped, as a number with or without sign."""
    if word < 2**15:
        return word
    low, high = float(values.min()), float(values.max())

    def covered(first: int) -> float:
        return min(high, first + count - 1) - max(low, first)

    return word if covered(word) > covered(word - 2**16) else word - 2**16


def _words(ds: Dataset, keyword: str) -> bytes:
    """Value of an element of 16-bit words as little-endian bytes, whatever its VR and the file's byte order."""
    try:
        element = ds.get_item(keyword)
        if element is None or element.value is None:
            return b""
        value = element.value
        if not isinstance(value, bytes):
            many = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
            return b"".join(struct.pack("<H", int(word) & 0xFFFF) for word in many)
        little = element.is_little_endian if isinstance(element, RawDataElement) else ds.original_encoding[1]
        if little is False and element.VR not in _BYTES_ALONE and len(value) % 2 == 0:
            return np.frombuffer(value, ">u2").astype("<u2").tobytes()
        return value
    except VALUE_ERRORS as error:
        raise UnreadablePixels("a look-up table that cannot be parsed") from error


def items_of(ds: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; none where it is absent or empty.

    Raises
    ------
    UnreadablePixels
        If it is there and is no sequence of items.
    """
    try:
        value = ds.get(keyword)
        items = [] if value is None else list(value)
    except VALUE_ERRORS as error:
        raise UnreadablePixels(f"a {keyword} that cannot be parsed") from error
    if not all(isinstance(item, Dataset) for item in items):
        raise UnreadablePixels(f"a {keyword} that cannot be parsed")
    return items


def palette_rgb(ds: Dataset, stored: np.ndarray) -> np.ndarray:
    """Colours of a palette image (PS3.3 C.7.6.3.1.5), plain or segmented palettes.

    Parameters
    ----------
    ds : Dataset
        Header.
    stored : ndarray of integers, shape (H, W)

    Returns
    -------
    ndarray, shape (H, W, 3)
        uint8 where every palette has 8 bits, else uint16.

    Raises
    ------
    UnreadablePixels
        If a palette is missing or broken.
    """
    tables = [_palette(ds, stored, channel) for channel in _CHANNELS]
    rgb = np.stack([table.apply(stored) for table in tables], axis=-1)
    depths = {table.bits for table in tables}
    if len(depths) > 1:
        raise UnreadablePixels("palettes of different depths")
    return rgb.astype(np.uint8) if max(depths) <= 8 else rgb


def _palette(ds: Dataset, stored: np.ndarray, channel: str) -> Table:
    descriptor = f"{channel}PaletteColorLookupTableDescriptor"
    segmented = f"Segmented{channel}PaletteColorLookupTableData"
    if segmented not in ds:
        return table_of(ds, stored, descriptor, f"{channel}PaletteColorLookupTableData")
    head = _words(ds, descriptor)
    if len(head) != 6:
        raise UnreadablePixels("a look-up table without descriptor or data")
    count, first, bits = struct.unpack("<3H", head)
    count = count or 2**16
    body = _words(ds, segmented)
    entries = np.array(_expanded(body, bits, count), np.uint16)
    return Table(_first(first, count, stored), _entries(entries.tobytes(), count, bits), bits)


def _expanded(body: bytes, bits: int, count: int) -> list[int]:
    """Entries of segmented palette data: discrete, linear and indirect segments (PS3.3 C.7.9.2).

    Segments are of bytes where the entries have 8 bits, else of words; an indirect one's offset takes four bytes.
    """
    unit = 1 if bits <= 8 else 2
    numbers = [int(n) for n in np.frombuffer(body[: len(body) // unit * unit], "u1" if unit == 1 else "<u2")]
    entries: list[int] = []

    def run(at: int, segments: int | None) -> None:
        done = 0
        while len(entries) < count and (done < segments if segments is not None else at + 2 < len(numbers) + 1):
            opcode, length = numbers[at], numbers[at + 1]
            if opcode == 0:
                entries.extend(numbers[at + 2 : at + 2 + length])
                at += 2 + length
            elif opcode == 1 and entries:
                start, end = entries[-1], numbers[at + 2]
                entries.extend(start + round((end - start) * (i + 1) / length) for i in range(length))
                at += 3
            elif opcode == 2 and segments is None:
                words = 4 // unit
                offset = sum(n << (8 * unit * i) for i, n in enumerate(numbers[at + 2 : at + 2 + words]))
                run(offset // unit, length)
                at += 2 + words
            else:
                raise UnreadablePixels("a segmented palette that is not as the standard says")
            done += 1

    try:
        run(0, None)
    except IndexError as error:
        raise UnreadablePixels("a segmented palette that ends early") from error
    return entries
