"""Code streams that are cut or damaged give no pixels, whichever codec would fill the rest with grey."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from firstread.dicom.pixels.codecs import CodedFrame, UnreadablePixels, decode_here
from firstread.dicom.pixels.codestream import code_stream
from firstread.dicom.pixels.complaints import cannot, heard, tells_of_damage
from firstread.dicom.pixels.reading import read_frame
from firstread.phantoms.chest import FilmSpec
from tests.builders.chest import film_ds
from tests.builders.encodings import Change, coded_picture, compressed, dcmtk, stream_of, with_cells, with_stream

SIZE = 128


def _film() -> Dataset:
    return film_ds(FilmSpec(size=SIZE))


def _pillow(**options: object) -> Change:
    def change(ds: Dataset, _: Path) -> Dataset:
        grey = (np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns) >> 4).astype(np.uint8)
        ds = with_cells(ds, grey, BitsAllocated=8, BitsStored=8, HighBit=7)
        return with_stream(ds, coded_picture(grey, "JPEG", quality=95, **options), "1.2.840.10008.1.2.4.50")

    return change


KINDS: dict[str, Change] = {
    "baseline": _pillow(),
    "restarts": _pillow(restart_marker_blocks=8),
    "progressive": _pillow(progressive=True),
    "extended": dcmtk("dcmcjpeg", "+ee", "+q", "98"),
    "lossless_sv1": dcmtk("dcmcjpeg"),
    "lossless": dcmtk("dcmcjpeg", "+el", "+sv", "4"),
    "jpeg_ls": compressed(JPEGLSLossless, "pyjpegls"),
    "jpeg_2000": compressed(JPEG2000Lossless),
    "rle": compressed(RLELossless),
}


def _with(ds: Dataset, stream: bytes, folder: Path) -> Path:
    path = folder / "object.dcm"
    with_stream(ds, stream, ds.file_meta.TransferSyntaxUID).save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(params=sorted(KINDS))
def coded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Dataset, bytes]:
    ds = KINDS[request.param](_film(), tmp_path)
    return request.param, ds, stream_of(ds)


def test_a_cut_stream_gives_nothing(coded: tuple[str, Dataset, bytes], tmp_path: Path) -> None:
    name, ds, stream = coded
    assert read_frame(_with(ds, stream, tmp_path)).shape == (SIZE, SIZE)
    for share in (0.2, 0.5, 0.7, 0.9, 0.99):
        cut = stream[: int(len(stream) * share)]
        with pytest.raises(UnreadablePixels):
            read_frame(_with(ds, cut, tmp_path))
        if name != "rle" and share < 0.99:
            with pytest.raises(UnreadablePixels):
                read_frame(_with(ds, cut + b"\xff\xd9", tmp_path))


def test_a_hole_of_zero_bytes_gives_nothing(coded: tuple[str, Dataset, bytes], tmp_path: Path) -> None:
    """As a copy that broke off leaves it, with head and end in their places."""
    _, ds, stream = coded
    start = len(stream) // 2 - 1024
    assert start > 700, "the headers are left alone"
    holed = stream[:start] + bytes(2048) + stream[start + 2048 :]
    with pytest.raises(UnreadablePixels):
        read_frame(_with(ds, holed, tmp_path))


def test_a_stream_without_its_end_gives_nothing(coded: tuple[str, Dataset, bytes], tmp_path: Path) -> None:
    name, ds, stream = coded
    if name != "rle":
        with pytest.raises(UnreadablePixels, match="ends early"):
            read_frame(_with(ds, stream[:-2], tmp_path))


def test_flipped_bits_that_a_codec_sees_give_nothing(tmp_path: Path) -> None:
    ds = KINDS["jpeg_ls"](_film(), tmp_path)
    stream = bytearray(stream_of(ds))
    rng = np.random.default_rng(0)
    seen = 0
    for at in rng.integers(200, len(stream) - 60, 12):
        damaged = bytearray(stream)
        damaged[at] ^= 16
        try:
            read_frame(_with(ds, bytes(damaged), tmp_path))
        except UnreadablePixels:
            seen += 1
    assert seen >= 10


def test_a_lost_restart_interval_gives_nothing(tmp_path: Path) -> None:
    ds = KINDS["restarts"](_film(), tmp_path)
    stream = stream_of(ds)
    first, second = stream.index(b"\xff\xd2"), stream.index(b"\xff\xd3")
    with pytest.raises(UnreadablePixels, match="damaged"):
        read_frame(_with(ds, stream[:first] + stream[second:], tmp_path))


def test_a_missing_tile_part_gives_nothing(tmp_path: Path) -> None:
    ds = KINDS["jpeg_2000"](_film(), tmp_path)
    stream = stream_of(ds)
    at = stream.index(b"\xff\x90")
    length = struct.unpack(">I", stream[at + 6 : at + 10])[0]
    with pytest.raises(UnreadablePixels, match="ends early"):
        read_frame(_with(ds, stream[:at] + stream[at + length :], tmp_path))


def test_an_rle_frame_of_other_segments_gives_nothing(tmp_path: Path) -> None:
    ds = KINDS["rle"](_film(), tmp_path)
    stream = bytearray(stream_of(ds))
    stream[0] = 1
    with pytest.raises(UnreadablePixels, match="segments"):
        read_frame(_with(ds, bytes(stream), tmp_path))


def test_the_first_plug_in_that_finds_damage_has_the_last_word(tmp_path: Path) -> None:
    ds = KINDS["jpeg_ls"](_film(), tmp_path)
    stream = bytearray(stream_of(ds))
    stream[len(stream) // 2] ^= 16
    options = {
        "rows": SIZE,
        "columns": SIZE,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": 16,
        "bits_stored": 12,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }

    def decoded(*plugins: str) -> np.ndarray:
        return decode_here(CodedFrame(str(JPEGLSLossless), bytes(stream), options, plugins, 2 * SIZE * SIZE))

    assert decoded("pylibjpeg").shape == (SIZE, SIZE)  # a lenient one, asked alone
    with pytest.raises(UnreadablePixels):
        decoded("pyjpegls", "pylibjpeg")


def test_facts_of_a_colour_jpeg() -> None:
    rgb = np.zeros((16, 24, 3), np.uint8)
    stream = code_stream(coded_picture(rgb, "JPEG", subsampling=2))
    assert stream is not None
    facts = stream.facts()
    assert (facts.components, facts.precision, facts.colours, facts.sampled_alike) == (3, 8, "YBR_FULL", False)
    assert code_stream(b"no code stream") is None


def test_what_codecs_print_is_caught_and_sorted() -> None:
    import os

    with heard() as complaints:
        os.write(2, b"Corrupt JPEG data: premature end of data segment\n")
    assert tells_of_damage(complaints)
    assert cannot(RuntimeError("gdcm: GDCM does not support 'JPEG Extended' for 12-bit"), b"")
    assert not cannot(RuntimeError("Invalid JPEG-LS stream"), b"")
