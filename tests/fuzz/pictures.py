"""JPEG and PNG pictures that are dropped into the folder of a pipeline."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.admission import inbox
from tests.fuzz.data_set import read_as_a_worker
from tests.fuzz.door import Door, Feed


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """Two inboxes: photographs keep their colours, films do not."""
    (folder / "photograph").mkdir()
    (folder / "film").mkdir()
    with (
        inbox(folder / "photograph", Path("dermoscopy/dropped"), read_as_a_worker) as photograph,
        inbox(folder / "film", Path("chest_xray/dropped"), read_as_a_worker) as film,
    ):
        yield lambda data: (film if len(data) % 2 else photograph)(data)


def _png(width: int, height: int, depth: int, colour: int, chunks: list[tuple[bytes, bytes]], rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(chunk(kind, content) for kind, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _jpeg(size: tuple[int, int], mode: str, options: dict[str, object], segments: list[tuple[int, bytes]]) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 99 if mode in ("L", "CMYK") else (99, 88, 77)).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    extra = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return data[:2] + extra + data[2:]


def files() -> st.SearchStrategy[bytes]:
    """Pictures of sound structure with odd sizes, modes, profiles, orientations and segments."""
    kinds = st.sampled_from([b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"gAMA", b"tEXt", b"zTXt", b"cHRM", b"acTL", b"sRGB"])
    profiles = st.binary(max_size=60) | st.binary(max_size=40).map(lambda d: b"p\0\0" + zlib.compress(d))
    sizes = st.sampled_from([1, 2, 16, 64, 20_000, 2**31 - 1, 0])
    png = st.builds(
        _png,
        sizes,
        sizes,
        st.sampled_from([1, 2, 4, 8, 16, 3]),
        st.sampled_from([0, 2, 3, 4, 6, 1]),
        st.lists(st.tuples(kinds, profiles), max_size=3),
        st.sampled_from([bytes(65), bytes(20_000), b"", b"\4" * 1000]),
    )
    exif = st.builds(
        lambda endian, count, tag, kind, n, value: (
            b"Exif\0\0" + endian + struct.pack("<IHHHII", 8, count, tag, kind, n, value)
        ),
        st.sampled_from([b"II*\0", b"MM\0*"]),
        st.integers(0, 3),
        st.sampled_from([0x0112, 0x8769, 0x0100]),
        st.integers(0, 13),
        st.sampled_from([0, 1, 2**31]),
        st.integers(0, 9),
    )
    segments = st.lists(
        st.tuples(st.sampled_from([0xE0, 0xE1, 0xE2, 0xEE, 0xFE, 0xDD]), exif | st.binary(max_size=40)), max_size=3
    )
    options = st.fixed_dictionaries(
        {}, optional={"progressive": st.just(True), "icc_profile": st.binary(min_size=1, max_size=60)}
    )
    edges = st.sampled_from([1, 7, 16, 64])
    jpeg = st.builds(_jpeg, st.tuples(edges, edges), st.sampled_from(["L", "RGB", "CMYK"]), options, segments)
    behind = st.sampled_from([b"", b"", b"\0" * 9, b"\xff\xd8\xff"])
    return st.builds(lambda data, more: data + more, png | jpeg, behind)


DOORS: Final = {"picture": Door("picture", opened, files)}
