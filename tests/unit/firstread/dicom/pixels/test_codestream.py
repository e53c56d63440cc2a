"""Sizes as code streams tell them, and which bytes are whose frame."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, itemize_frame
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from firstread.dicom.pixels import codecs
from firstread.dicom.pixels.codecs import UnreadablePixels
from firstread.dicom.pixels.codestream import code_stream
from firstread.dicom.pixels.encapsulation import Encapsulated
from firstread.dicom.pixels.reading import read_frame
from tests.builders.bad_inputs import tiny_slice
from tests.builders.streams import LIE, behind_segments, jpeg, of_size, second_header, with_streams


def sizes_of(data: bytes) -> list[tuple[int, int]]:
    stream = code_stream(data)
    assert stream is not None
    return stream.sizes


def test_every_frame_header_of_a_jpeg_counts() -> None:
    plain = jpeg()
    assert sizes_of(plain) == [(64, 64)]
    assert sizes_of(behind_segments(of_size(plain))) == [LIE]
    assert sizes_of(second_header(plain)) == [(64, 64), LIE]


def test_a_picture_inside_a_segment_or_behind_the_end_is_another_one() -> None:
    plain, other = jpeg(), jpeg(32)
    thumbnail = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(other) + 2) + other + plain[2:]
    assert sizes_of(thumbnail) == [(64, 64)]
    assert sizes_of(plain + other) == [(64, 64)]


def test_sizes_of_jpeg2000_and_jpeg_ls() -> None:
    for syntax in (JPEG2000Lossless, JPEGLSLossless):
        ds = tiny_slice()
        ds.compress(syntax, generate_instance_uid=False)
        stream = Encapsulated(io.BytesIO(ds.PixelData), 1).stream(0)
        assert sizes_of(stream) == [(32, 32)]
    assert code_stream(b"no code stream") is None
    assert sizes_of(stream[:8]) == []


@pytest.mark.parametrize("name", ["plain", "behind_segments", "second_header", "second_frame"])
def test_a_stream_of_another_size_never_reaches_a_codec(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = jpeg()
    streams = {
        "plain": [of_size(plain)],
        "behind_segments": [behind_segments(of_size(plain))],
        "second_header": [second_header(plain)],
        "second_frame": [plain, of_size(plain)],
    }[name]
    path = tmp_path / "object.dcm"
    with_streams(tiny_slice(), streams).save_as(path)
    decoded: list[codecs.CodedFrame] = []

    def decode(frame: codecs.CodedFrame) -> np.ndarray:
        decoded.append(frame)
        return codecs.decode_here(frame)

    monkeypatch.setattr(codecs._SEAM, "decode", decode)
    for index in range(len(streams)):
        with pytest.raises(UnreadablePixels, match="another size"):
            read_frame(path, index)
    assert not decoded


def test_a_decoder_that_was_installed_gets_the_whole_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, streams = tmp_path / "object.dcm", [jpeg(seed=1), jpeg(seed=2)]
    with_streams(tiny_slice(), streams).save_as(path)
    seen: list[codecs.CodedFrame] = []

    def decode(frame: codecs.CodedFrame) -> np.ndarray:
        seen.append(frame)
        return np.zeros((64, 64), np.uint8)

    monkeypatch.setattr(codecs._SEAM, "decode", decode)
    read_frame(path, 1)
    assert [frame.data.rstrip(b"\0") for frame in seen] == [streams[1]]
    assert seen[0].frame_bytes == 64 * 64


def _frames(value: bytes, frames: int, extended: bytes | None = None) -> list[bytes]:
    encapsulated = Encapsulated(io.BytesIO(value), frames, extended)
    return [encapsulated.stream(index) for index in range(frames)]


@pytest.mark.parametrize("table", [True, False])
def test_frames_of_one_fragment_each(table: bool) -> None:
    streams = [b"first.", b"second", b"third!"]
    assert _frames(encapsulate(streams, has_bot=table), 3) == streams


def test_frames_of_several_fragments() -> None:
    streams = [bytes([n]) * 40 + b"\xff\xd9" for n in range(3)]
    assert _frames(encapsulate(streams, fragments_per_frame=2), 3) == streams
    assert _frames(encapsulate(streams, fragments_per_frame=2, has_bot=False), 3) == streams
    assert _frames(encapsulate(streams[:1], fragments_per_frame=3, has_bot=False), 1) == streams[:1]


def test_the_extended_table_separates_frames() -> None:
    streams = [b"one fragment.", b"two fragments"]
    streams = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    items = [*itemize_frame(streams[0], 1), *itemize_frame(streams[1], 2)]
    value = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    offsets = struct.pack("<2Q", 0, len(items[0]))
    assert _frames(value, 2, offsets) == streams
    whole, offsets, _ = encapsulate_extended(streams)
    assert _frames(whole, 2, offsets) == streams


def test_items_that_are_none_and_lengths_that_cannot_be() -> None:
    value = encapsulate([b"first.", b"second"])
    with pytest.raises(UnreadablePixels, match="fewer"):
        _frames(value, 5)
    with pytest.raises(UnreadablePixels, match="items"):
        Encapsulated(io.BytesIO(b"\0" * 64), 1)
    with pytest.raises(UnreadablePixels, match="no code stream"):
        Encapsulated(io.BytesIO(value[:8]), 1)
    with pytest.raises(UnreadablePixels, match="ends inside"):
        _frames(struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, 0x1FFFFFF0) + b"short", 1)
    with pytest.raises(UnreadablePixels, match="larger"):
        _frames(struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, 0xFFFFFFF0) + b"short", 1)


def test_impossible_headers_are_damage_and_break_no_reader() -> None:
    plain = bytearray(jpeg())
    frame = plain.index(b"\xff\xc0")
    plain[plain.index(b"\xff\xc4") : plain.index(b"\xff\xc4")] = b"\xff\xdd\x00\x04\x00\x01"  # a restart interval
    plain[frame + 11] = 0  # sampling factors
    jpeg_stream = code_stream(bytes(plain))
    ds = tiny_slice()
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    j2k = bytearray(Encapsulated(io.BytesIO(ds.PixelData), 1).stream(0))
    size = j2k.index(b"\xff\x51")
    j2k[size + 38 : size + 40] = b"\0\0"  # no components
    for stream in (jpeg_stream, code_stream(bytes(j2k))):
        assert stream is not None
        with pytest.raises(UnreadablePixels, match="the code stream"):
            stream.facts()
