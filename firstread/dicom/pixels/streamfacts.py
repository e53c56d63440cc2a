"""What a code stream is by its own markers: components, depth, sign, colours, and whether it is all there.

A lenient codec fills what is missing with grey and says nothing, so completeness is judged here: markers are walked to
the end of the image, restart intervals are counted (JPEG, ISO/IEC 10918-1 annex B; JPEG-LS, ISO/IEC 14495-1 annex C),
tile-parts are as long as they say and every tile is there (JPEG 2000, ISO/IEC 15444-1 annex A), and the segments of RLE
(PS3.5 annex G) lie within the stream.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Final

from firstread.dicom.pixels.codecs import UnreadablePixels

ENDS_EARLY: Final = "the code stream ends early"
DAMAGED: Final = "the code stream is damaged"

_JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xfe]")
_RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")
_FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_J2K_START: Final = b"\xff\x4f\xff\x51"


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
        ``RGB`` or ``YBR_FULL`` as the decoded samples will be; empty where the stream does not tell.
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


def facts_of(data: bytes) -> StreamFacts | None:
    """Facts of a JPEG, JPEG-LS or JPEG 2000 code stream; None where it is none of them.

    Raises
    ------
    UnreadablePixels
        If it is not complete by its own structure.
    """
    if data.startswith(b"\xff\xd8"):
        return _Jpeg(data).facts()
    at = data.find(_J2K_START)
    return _jpeg2000(data, at) if at >= 0 else None


@dataclass
class _Jpeg:
    """A walk along the segments of JPEG or JPEG-LS."""

    data: bytes
    header: int = 0
    precision: int = 0
    size: tuple[int, int] = (0, 0)
    ids: list[int] = field(default_factory=list)
    sampling: list[tuple[int, int]] = field(default_factory=list)
    restart_interval: int = 0
    jfif: bool = False
    adobe: int | None = None
    transformed: bool = False
    """JPEG-LS with a colour transform of its own, which its decoders undo."""
    scanned: set[int] = field(default_factory=set)

    def facts(self) -> StreamFacts:
        self._walk()
        if not self.ids or not set(self.ids) <= self.scanned:
            raise UnreadablePixels(ENDS_EARLY)
        alike = len(set(self.sampling)) == 1
        return StreamFacts(len(self.ids), self.precision, False, self._colours(alike), self.header, alike)

    def _walk(self) -> None:
        data, at = self.data, 2
        while found := _JPEG_MARKER.search(data, at):
            at = found.end()
            marker = data[at - 1]
            if marker == 0xD9:
                return
            if 0xD0 <= marker <= 0xD8:
                continue
            if at + 2 > len(data):
                break
            length = max(2, struct.unpack(">H", data[at : at + 2])[0])
            segment = data[at + 2 : at + length]
            if len(segment) < length - 2:
                break
            at += length
            try:
                self._segment(marker, segment, at)
            except (IndexError, struct.error) as error:
                raise UnreadablePixels(DAMAGED) from error
        raise UnreadablePixels(ENDS_EARLY)

    def _segment(self, marker: int, segment: bytes, end: int) -> None:
        if marker in _FRAME_HEADERS:
            self.header = marker
            self.precision, rows, columns, count = struct.unpack(">BHHB", segment[:6])
            self.size = (rows, columns)
            self.ids = [segment[6 + 3 * i] for i in range(count)]
            self.sampling = [(segment[7 + 3 * i] >> 4, segment[7 + 3 * i] & 15) for i in range(count)]
        elif marker == 0xDD and len(segment) <= 4:
            self.restart_interval = int.from_bytes(segment, "big")
        elif marker == 0xE0 and segment[:5] == b"JFIF\0":
            self.jfif = True
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            self.adobe = segment[11]
        elif marker == 0xE8 and segment[:4] == b"mrfx" and len(segment) >= 5:
            self.transformed = segment[4] != 0
        elif marker == 0xDA:
            components = [segment[1 + 2 * i] for i in range(segment[0])]
            self.scanned |= set(components)
            self._count_restarts(end, components)

    def _count_restarts(self, start: int, components: list[int]) -> None:
        """Compare the restart markers of a scan with the intervals that the picture has (B.2.4.4)."""
        units = self._units(components)
        if not self.restart_interval or not units:
            return
        stop = start
        while (found := _JPEG_MARKER.search(self.data, stop)) and 0xD0 <= self.data[found.end() - 1] <= 0xD7:
            stop = found.end()
        seen = [marker[1] & 7 for marker in _RESTART.findall(self.data, start, stop)]
        if len(seen) != ceil(units / self.restart_interval) - 1 or any(n != i % 8 for i, n in enumerate(seen)):
            raise UnreadablePixels(DAMAGED)

    def _units(self, components: list[int]) -> int:
        """Minimum coded units of a scan; 0 where the number of lines comes later, and for JPEG-LS (lines)."""
        rows, columns = self.size
        if not rows or self.header == 0xF7 or not set(components) <= set(self.ids):
            return 0
        side = 1 if self.header in _LOSSLESS else 8
        most = [max(sampling[axis] for sampling in self.sampling) for axis in (0, 1)]
        if len(components) > 1:
            return ceil(columns / (side * most[0])) * ceil(rows / (side * most[1]))
        across, down = self.sampling[self.ids.index(components[0])]
        return ceil(ceil(columns * across / most[0]) / side) * ceil(ceil(rows * down / most[1]) / side)

    def _colours(self, alike: bool) -> str:
        """By the rules that decoders of JPEG agree on; RGB whose chrominance is subsampled there is none."""
        if len(self.ids) != 3:
            return ""
        if self.ids in ([82, 71, 66], [114, 103, 98]):
            return "RGB"
        if self.header == 0xF7:
            return "RGB" if self.transformed else ""
        if self.jfif or not alike or self.adobe == 1:
            return "YBR_FULL"
        return "RGB" if self.adobe == 0 else ""


HOLE: Final = bytes(1024)
"""No arithmetic code has so many zeros in a row, and empty packets are a byte each, some hundred at most; what a copy
that broke off leaves is blocks of a file system, of 4,096 bytes and more (ISO/IEC 15444-1, B.10.3, C.2)."""


def _jpeg2000(data: bytes, at: int) -> StreamFacts:
    """Main header, then tile-parts of the length that they say, up to the end of the code stream."""
    try:
        return _jpeg2000_walk(data, at)
    except (IndexError, struct.error, ZeroDivisionError) as error:
        raise UnreadablePixels(ENDS_EARLY) from error


def _jpeg2000_walk(data: bytes, at: int) -> StreamFacts:
    depths, samplings, transformed, high_throughput, tiles_wanted = b"", b"", False, False, 0
    at += 2
    while data[at : at + 2] != b"\xff\x90":
        if data[at] != 0xFF:
            raise UnreadablePixels(DAMAGED)
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        body = data[at + 4 : at + 2 + length]
        if marker == 0x51:
            x1, y1, _, _, tile_x, tile_y, tile_x0, tile_y0, count = struct.unpack(">8IH", body[2:36])
            tiles_wanted = ceil((x1 - tile_x0) / tile_x) * ceil((y1 - tile_y0) / tile_y)
            depths, samplings = body[36 : 36 + 3 * count : 3], body[37 : 36 + 3 * count]
        elif marker == 0x52:
            transformed = body[4] == 1
        elif marker == 0x50:
            high_throughput = bool(struct.unpack(">I", body[:4])[0] & 1 << 17)  # Pcap15
        at += 2 + max(2, length)
    if not high_throughput and HOLE in data:
        raise UnreadablePixels("the code stream has a hole of zero bytes")
    tiles: dict[int, tuple[int, int]] = {}
    while data[at : at + 2] == b"\xff\x90":
        tile, length, _, parts = struct.unpack(">HIBB", data[at + 4 : at + 12])
        seen, told = tiles.get(tile, (0, 0))
        tiles[tile] = seen + 1, max(told, parts)
        end = at + length if length else data.rfind(b"\xff\xd9")
        if end < at + 12:
            raise UnreadablePixels(ENDS_EARLY)
        at = end
    if data[at : at + 2] != b"\xff\xd9":
        raise UnreadablePixels(ENDS_EARLY if at >= len(data) - 1 else DAMAGED)
    if len(tiles) != tiles_wanted or any(seen < told for seen, told in tiles.values()):
        raise UnreadablePixels(ENDS_EARLY)
    alike = set(samplings[0::3]) | set(samplings[1::3]) == {1}
    return StreamFacts(
        len(depths),
        max((depth & 0x7F) + 1 for depth in depths),
        any(depth & 0x80 for depth in depths),
        "RGB" if transformed and len(depths) >= 3 else "",
        0,
        alike,
        high_throughput,
    )


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
