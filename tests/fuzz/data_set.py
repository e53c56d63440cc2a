"""Files of the inbox as DICOM: admission, and then what a worker makes of those that were stored."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from firstread.dicom.datasets import read_content
from firstread.dicom.files import header_of
from firstread.dicom.pixels.codecs import UnreadablePixels, decode_here, decode_with
from firstread.dicom.pixels.reading import iter_frames
from tests.builders.bad_inputs import encoded, tiny_slice
from tests.fuzz.admission import inbox
from tests.fuzz.door import Door, Feed
from worker.decoder.pool import DecoderPool
from worker.pipelines.base import PipelineSteps, StoredInstance, StudyImages
from worker.pipelines.reasons import Unsuitable
from worker.pipelines.registry import REGISTRY

MOST_FRAMES: Final = 3


def read_as_a_worker(path: Path) -> str:
    """Frames, and the first steps of every pipeline, on a study of one image."""
    content = read_content(path)
    header = header_of(content.ds, content.ds.file_meta, content.notes)
    try:
        frames = list(itertools.islice(iter_frames(path, content=content), MOST_FRAMES))
        outcome = f"{len(frames)} frames"
    except UnreadablePixels:
        outcome = "without pixels"
    instance = StoredInstance(
        key=1,
        path=path,
        ds=content.ds,
        SOPInstanceUID=header.SOPInstanceUID,
        SeriesInstanceUID=header.SeriesInstanceUID,
        SOPClassUID=header.SOPClassUID or "",
        warnings=header.warnings,
        content=content,
    )
    study = StudyImages(header.StudyInstanceUID, 1, (instance,), forced=True)
    wanting = [row.name for row in REGISTRY if _goes_on(row.load(), study)]
    return f"{outcome}, {' and '.join(wanting) or 'no'} images"


def _goes_on(steps: PipelineSteps[Any, Any, Any], study: StudyImages) -> bool:
    try:
        selection = steps.select(study)
        return any(steps.gate(study, series).passed for series in selection.series)
    except (UnreadablePixels, Unsuitable):
        return False


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """An inbox, and decoders."""
    pool = DecoderPool(1)
    pool.start()
    decode_with(pool.decode)
    try:
        with inbox(folder, Path("dropped.dcm"), read_as_a_worker) as feed:
            yield feed
    finally:
        decode_with(decode_here)
        pool.close()


_VRS: Final = ["UI", "LO", "SQ", "OB", "OW", "US", "DS", "IS", "PN", "UN", "UT", "AT", "FD", "CS", "ZZ", "\0\0"]
_TAGS: Final = [
    *(0x00080005, 0x00080016, 0x00080018, 0x00080060, 0x00100010, 0x00100020, 0x0020000D, 0x0020000E, 0x00200013),
    *(0x00200032, 0x00200037, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100),
    *(0x00280101, 0x00280102, 0x00280103, 0x00281050, 0x00281052, 0x00281053, 0x00283000, 0x52009230, 0x7FE00010),
    *(0x00091001, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00189073, 0x00020010, 0x00000000, 0x7FE00001, 0x00280009),
]


def _element(tag: int, vr: str, value: bytes, lie: int, undefined: bool) -> bytes:
    length = 0xFFFFFFFF if undefined else (len(value) + lie) & 0xFFFFFFFF
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if tag >> 16 == 0xFFFE:
        return head + struct.pack("<I", length) + value
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + vr.encode() + struct.pack("<HI", 0, length) + value
    return head + vr.encode() + struct.pack("<H", length & 0xFFFF) + value


def _elements() -> st.SearchStrategy[bytes]:
    values = st.binary(max_size=40) | st.sampled_from(
        [
            b"1.2.840.10008.5.1.4.1.1.2\0",
            b"CT",
            b"-1",
            b"1e400",
            b"NaN\\1\\0 ",
            b"\xff\xff",
            b"\0\0",
            b"1\\2\\3\\4\\5\\6",
        ]
    )
    lies = st.sampled_from([0, 0, 0, 0, 1, -1, 2**16, 2**31])
    plain = st.builds(_element, st.sampled_from(_TAGS), st.sampled_from(_VRS), values, lies, st.just(False))
    return st.recursive(
        st.lists(plain, max_size=3).map(b"".join),
        lambda inner: st.builds(
            _element, st.sampled_from(_TAGS), st.sampled_from(["SQ", "UN", "OB"]), inner, lies, st.booleans()
        ),
        max_leaves=8,
    )


def files() -> st.SearchStrategy[bytes]:
    """A sound image with elements put in, changed or left out, under this or that transfer syntax."""
    whole = encoded(tiny_slice())
    starts = list(_element_starts(whole))

    def changed(at: int, out: int, elements: bytes, cut: int, syntax: bytes) -> bytes:
        first, last = starts[at % len(starts)], starts[min(at % len(starts) + out, len(starts) - 1)]
        data = whole[:first] + elements + whole[last:]
        named = b"1.2.840.10008.1.2.1\0"
        data = data.replace(named, syntax.ljust(len(named), b"\0")[: len(named)], 1)
        return data[: len(data) - cut] if cut else data

    return st.builds(
        changed,
        st.integers(0, len(starts) - 1),
        st.integers(0, 3),
        _elements(),
        st.sampled_from([0, 0, 0, 0, 1, 100, 2000]),
        st.sampled_from(
            [
                b"1.2.840.10008.1.2.1",
                b"1.2.840.10008.1.2.1",
                b"1.2.840.10008.1.2",
                b"1.2.840.10008.1.2.2",
                b"1.2.3",
                b"",
            ]
        ),
    )


def _element_starts(whole: bytes) -> Iterator[int]:
    """Offsets of the elements behind the file meta group, explicit VR little endian."""
    at = 144 + int(struct.unpack_from("<I", whole, 140)[0])
    while at + 8 <= len(whole):
        yield at
        vr = whole[at + 4 : at + 6]
        if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
            at += 12 + int(struct.unpack_from("<I", whole, at + 8)[0])
        else:
            at += 8 + int(struct.unpack_from("<H", whole, at + 6)[0])


DOORS: Final = {"data_set": Door("data_set", opened, files, longest=128 * 2**10)}
