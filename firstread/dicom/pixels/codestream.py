"""What a code stream says of itself before it is decoded: sizes, components, depth, colours, and whether it is whole.

A lenient codec fills what is missing with grey and does not say so, so completeness is judged here: markers are walked
to the end of the image, restart intervals are counted (JPEG, ISO/IEC 10918-1 annex B; JPEG-LS, ISO/IEC 14495-1 annex
C), tile-parts are as long as they say and every tile is there (JPEG 2000, ISO/IEC 15444-1 annex A), and the segments
of RLE (PS3.5 annex G) lie within the stream.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Final, NamedTuple

from firstread.dicom.pixels.codecs import UnreadablePixels

ENDS_EARLY: Final = "the code stream ends early"
DAMAGED: Final = "the code stream is damaged"

_JPEG_START: Final = b"\xff\xd8"
_JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xfe]")
"""Stuffed bytes of JPEG (0) and JPEG-LS (below 0x80) are none."""
_RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")
_FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_END_OF_IMAGE, _LINES = 0xD9, 0xDC
_J2K_START: Final = re.compile(rb"\xff\x4f\xff\x51")
_JP2_SIGNATURE: Final = b"\x00\x00\x00\x0cjP  "
_CAP, _SIZ, _COD, _TILE_PART, _DATA = 0x50, 0x51, 0x52, 0x90, 0x93
HOLE: Final = bytes(1024)
"""No arithmetic code has so many zeros in a row, and empty packets are a byte each, some hundred at most; what a copy
that broke off leaves is blocks of a file system, of 4,096 bytes and more (ISO/IEC 15444-1, B.10.3, C.2)."""


Size = tuple[int, int]
"""(rows, columns); 0 rows: named later in the stream."""


@dataclass(frozen=True)
class StreamFacts:
    """Facts of one frame's code stream.

    Attributes
    ----------
    components : int
    precision : int
        Bits of a sample, the most of all components.
    signed : bool
        Of JPEG 2000; the other two know no sign.
    colours : str
        ``RGB`` or ``YBR_FULL`` as the decoded samples will be; empty where the stream does not say.
    header : int
        Marker of JPEG's frame header, 0 of other streams.
    sampled_alike : bool
        Whether all components have the size of the picture.
    high_throughput : bool
        Whether it is JPEG 2000 with the block coder of part 15.
    """

    components: int
    precision: int
    signed: bool = False
    colours: str = ""
    header: int = 0
    sampled_alike: bool = True
    high_throughput: bool = False


def code_stream(data: bytes) -> JpegStream | Jpeg2000Stream | None:
    """The code stream of one frame, of JPEG, JPEG-LS or JPEG 2000; None where it is none of them."""
    if data.startswith(_JPEG_START):
        return JpegStream(data, 2)
    start, jpeg_at = _J2K_START.search(data), data.find(_JPEG_START)
    if start is not None and (data[:8] == _JP2_SIGNATURE or not 0 <= jpeg_at < start.start()):
        return Jpeg2000Stream(data)
    return JpegStream(data, jpeg_at + 2) if jpeg_at >= 0 else None


class JpegStream:
    """A JPEG or JPEG-LS code stream, its segments walked once up to the end of the image.

    Decoders look for the next marker wherever a segment ends, so what stands between two is stepped over.

    Parameters
    ----------
    data : bytes
        The whole code stream.
    at : int
        Offset behind the start of image. Where that is not the first marker, the stream has sizes and no facts.

    Attributes
    ----------
    sizes : list of (int, int)
        Every size that a header segment names, in their order, those of a stream that is cut or damaged too.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.sizes: list[Size] = []
        self._data = data
        self._is_first = at == 2
        self._header = 0
        self._precision = 0
        self._size: Size = (0, 0)
        self._ids: list[int] = []
        self._sampling: list[tuple[int, int]] = []
        self._restart_interval = 0
        self._has_jfif = False
        self._adobe: int | None = None
        self._has_own_transform = False  # of JPEG-LS; its decoders undo it
        self._scanned: set[int] = set()
        self._fault = ""
        self._walk(at)

    def facts(self) -> StreamFacts:
        """What the stream is.

        Raises
        ------
        UnreadablePixels
            If it is not complete by its own structure.
        """
        if not self._is_first:
            raise UnreadablePixels("no code stream of a kind that is decoded")
        if self._fault or not self._ids or not set(self._ids) <= self._scanned:
            raise UnreadablePixels(self._fault or ENDS_EARLY)
        alike = len(set(self._sampling)) == 1
        return StreamFacts(len(self._ids), self._precision, False, self._colours(alike), self._header, alike)

    def _walk(self, at: int) -> None:
        data = self._data
        while match := _JPEG_MARKER.search(data, at):
            at = match.end()
            marker = data[at - 1]
            if marker == _END_OF_IMAGE:
                return
            if 0xD0 <= marker <= 0xD8:  # restarts and start of image have no segment
                continue
            if at + 2 > len(data):
                break
            length = max(2, struct.unpack(">H", data[at : at + 2])[0])
            segment = data[at + 2 : at + length]
            self._note_size(marker, at + 2)
            at += length
            if at > len(data):
                break
            if not self._fault:
                try:
                    self._read_segment(marker, segment, at)
                except (IndexError, struct.error, ZeroDivisionError):
                    self._fault = DAMAGED
        self._fault = self._fault or ENDS_EARLY

    def _note_size(self, marker: int, body_at: int) -> None:
        """Whatever length the segment says: a decoder may not look at that either."""
        data = self._data
        if marker in _FRAME_HEADERS and body_at + 5 <= len(data):
            self.sizes.append(struct.unpack(">HH", data[body_at + 1 : body_at + 5]))
        elif marker == _LINES and body_at + 2 <= len(data):
            self.sizes.append((struct.unpack(">H", data[body_at : body_at + 2])[0], 0))

    def _read_segment(self, marker: int, segment: bytes, end: int) -> None:
        if marker in _FRAME_HEADERS:
            self._header = marker
            self._precision, rows, columns, count = struct.unpack(">BHHB", segment[:6])
            self._size = (rows, columns)
            self._ids = [segment[6 + 3 * i] for i in range(count)]
            self._sampling = [(segment[7 + 3 * i] >> 4, segment[7 + 3 * i] & 15) for i in range(count)]
        elif marker == 0xDD and len(segment) <= 4:
            self._restart_interval = int.from_bytes(segment, "big")
        elif marker == 0xE0 and segment[:5] == b"JFIF\0":
            self._has_jfif = True
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            self._adobe = segment[11]
        elif marker == 0xE8 and segment[:4] == b"mrfx" and len(segment) >= 5:
            self._has_own_transform = segment[4] != 0
        elif marker == 0xDA:
            components = [segment[1 + 2 * i] for i in range(segment[0])]
            self._scanned |= set(components)
            self._count_restarts(end, components)

    def _count_restarts(self, start: int, components: list[int]) -> None:
        """Compare the restart markers of a scan with the intervals that the picture has (B.2.4.4)."""
        units = self._units(components)
        if not self._restart_interval or not units:
            return
        stop = start
        while (match := _JPEG_MARKER.search(self._data, stop)) and 0xD0 <= self._data[match.end() - 1] <= 0xD7:
            stop = match.end()
        seen = [marker[1] & 7 for marker in _RESTART.findall(self._data, start, stop)]
        if len(seen) != ceil(units / self._restart_interval) - 1 or any(n != i % 8 for i, n in enumerate(seen)):
            self._fault = DAMAGED

    def _units(self, components: list[int]) -> int:
        """Minimum coded units of a scan; 0 where the number of lines comes later, and for JPEG-LS (lines)."""
        rows, columns = self._size
        if not rows or self._header == 0xF7 or not set(components) <= set(self._ids):
            return 0
        side = 1 if self._header in _LOSSLESS else 8
        most = [max(sampling[axis] for sampling in self._sampling) for axis in (0, 1)]
        if len(components) > 1:
            return ceil(columns / (side * most[0])) * ceil(rows / (side * most[1]))
        across, down = self._sampling[self._ids.index(components[0])]
        return ceil(ceil(columns * across / most[0]) / side) * ceil(ceil(rows * down / most[1]) / side)

    def _colours(self, alike: bool) -> str:
        """By the rules that decoders of JPEG agree on; RGB whose chrominance is subsampled there is none."""
        if len(self._ids) != 3:
            return ""
        if self._ids in ([82, 71, 66], [114, 103, 98]):
            return "RGB"
        if self._header == 0xF7:
            return "RGB" if self._has_own_transform else ""
        if self._has_jfif or not alike or self._adobe == 1:
            return "YBR_FULL"
        return "RGB" if self._adobe == 0 else ""


class _Segment(NamedTuple):
    marker: int
    body_at: int
    end: int


def _main_header(data: bytes, at: int) -> Iterator[_Segment]:
    """Marker segments behind the start of a JPEG 2000 code stream (annex A.2), up to the first tile-part."""
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (_TILE_PART, _DATA):
        end = at + 2 + max(2, struct.unpack(">H", data[at + 2 : at + 4])[0])
        yield _Segment(data[at + 1], at + 4, end)
        at = end


class Jpeg2000Stream:
    """A JPEG 2000 code stream, bare or within the boxes of a file (ISO/IEC 15444-1 annex I).

    Attributes
    ----------
    sizes : list of (int, int)
        Those of the SIZ segment (annex A.5.1); of each stream where they lie in boxes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        starts = [match.start() for match in _J2K_START.finditer(data)]
        self._header_at = starts[0] + 2
        self._header = list(_main_header(data, self._header_at))
        headers = [self._header]
        if starts[0] != 0:
            headers += [list(_main_header(data, start + 2)) for start in starts[1:]]
        self.sizes: list[Size] = []
        for marker, body_at, _ in (segment for header in headers for segment in header):
            if marker == _SIZ and body_at + 18 <= len(data):
                x1, y1, x0, y0 = struct.unpack(">4I", data[body_at + 2 : body_at + 18])
                self.sizes.append((max(0, y1 - y0), max(0, x1 - x0)))

    def facts(self) -> StreamFacts:
        """What the stream is.

        Raises
        ------
        UnreadablePixels
            If it is not complete by its own structure.
        """
        try:
            return self._read()
        except (IndexError, ValueError, struct.error, ZeroDivisionError) as error:
            raise UnreadablePixels(ENDS_EARLY) from error

    def _read(self) -> StreamFacts:
        depths, samplings, transformed, high_throughput, n_tiles = b"", b"", False, False, 0
        for marker, body_at, end in self._header:
            body = self._data[body_at:end]
            if marker == _SIZ:
                x1, y1, _, _, tile_x, tile_y, tile_x0, tile_y0, count = struct.unpack(">8IH", body[2:36])
                n_tiles = ceil((x1 - tile_x0) / tile_x) * ceil((y1 - tile_y0) / tile_y)
                depths, samplings = body[36 : 36 + 3 * count : 3], body[37 : 36 + 3 * count]
            elif marker == _COD:
                transformed = body[4] == 1
            elif marker == _CAP:
                high_throughput = bool(struct.unpack(">I", body[:4])[0] & 1 << 17)  # Pcap15
        at = self._header[-1].end if self._header else self._header_at
        if self._data[at : at + 2] != b"\xff\x90":
            raise UnreadablePixels(ENDS_EARLY if at + 4 > len(self._data) else DAMAGED)
        if not high_throughput and HOLE in self._data:
            raise UnreadablePixels("the code stream has a hole of zero bytes")
        self._check_tiles(at, n_tiles)
        return StreamFacts(
            len(depths),
            max((depth & 0x7F) + 1 for depth in depths),
            any(depth & 0x80 for depth in depths),
            "RGB" if transformed and len(depths) >= 3 else "",
            0,
            set(samplings[0::3]) | set(samplings[1::3]) == {1},
            high_throughput,
        )

    def _check_tiles(self, at: int, n_tiles: int) -> None:
        """Tile-parts have the length that they say, up to the end of the code stream, and no tile is missing."""
        data = self._data
        tiles: dict[int, tuple[int, int]] = {}  # tile-parts that are there, and how many it should have
        while data[at : at + 2] == b"\xff\x90":
            tile, length, _, parts = struct.unpack(">HIBB", data[at + 4 : at + 12])
            n_seen, n_parts = tiles.get(tile, (0, 0))
            tiles[tile] = n_seen + 1, max(n_parts, parts)
            end = at + length if length else data.rfind(b"\xff\xd9")
            if end < at + 12:
                raise UnreadablePixels(ENDS_EARLY)
            at = end
        if data[at : at + 2] != b"\xff\xd9":
            raise UnreadablePixels(ENDS_EARLY if at >= len(data) - 1 else DAMAGED)
        if len(tiles) != n_tiles or any(n_seen < n_parts for n_seen, n_parts in tiles.values()):
            raise UnreadablePixels(ENDS_EARLY)


def check_rle(data: bytes, segments: int) -> None:
    """Look at the header of an RLE frame (PS3.5 annex G.5).

    Parameters
    ----------
    segments : int
        One for each byte of a pixel.

    Raises
    ------
    UnreadablePixels
        If it has another number of segments, or they do not lie one after the other within the stream.
    """
    if len(data) < 64:
        raise UnreadablePixels(ENDS_EARLY)
    count, *offsets = struct.unpack("<16I", data[:64])
    if count != segments:
        raise UnreadablePixels("another number of RLE segments than the header's samples and bits make")
    used = [*offsets[:count], len(data)]
    if used[0] != 64 or any(a >= b for a, b in pairwise(used)):
        raise UnreadablePixels(ENDS_EARLY)
