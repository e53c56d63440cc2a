"""Pixel data out of every encoding, and none out of broken ones."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from firstread.dicom.pixels.reading import UnreadablePixels, iter_frames, layout_of, read_frame
from firstread.phantoms.ct import CtLabels, enhanced_ct
from firstread.phantoms.head import HeadSpec, head_grid, head_study, head_volume
from firstread.phantoms.lesion import LesionSpec, lesion_image, lesion_photograph
from tests.builders.bad_inputs import UNREADABLE, implicit, tiny_slice


def _saved(ds: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "object.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def _stored(ds: Dataset) -> np.ndarray:
    dtype = "<i2" if ds.PixelRepresentation else "<u2"
    return np.frombuffer(ds.PixelData, dtype).reshape(ds.Rows, ds.Columns)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_lossless_codecs_give_the_stored_values(syntax: UID, signed: bool, tmp_path: Path) -> None:
    ds = head_study(HeadSpec(slices=1, size=64, signed=signed)).objects[0]
    expected = _stored(ds).copy()
    ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), expected)


@pytest.mark.parametrize("change", [implicit], ids=["implicit"])
def test_native_encodings(change: Callable[[Dataset], Dataset], tmp_path: Path) -> None:
    ds = tiny_slice()
    np.testing.assert_array_equal(read_frame(_saved(change(ds), tmp_path)), _stored(ds))


def test_big_endian(tmp_path: Path) -> None:
    ds = tiny_slice()
    expected = _stored(ds)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = expected.astype(">u2").tobytes()
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), expected)


def test_deflated(tmp_path: Path) -> None:
    ds = tiny_slice()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), _stored(ds))


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_unreadable_pixels_are_a_typed_error_in_bounded_memory(name: str, tmp_path: Path) -> None:
    ds = tiny_slice()
    UNREADABLE[name](ds)
    path = _saved(ds, tmp_path)
    tracemalloc.start()
    with pytest.raises(UnreadablePixels):
        list(iter_frames(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


def test_frames_are_read_lazily_and_in_the_order_asked_for(tmp_path: Path) -> None:
    spec = HeadSpec(slices=6, size=32)
    hu, _ = head_volume(spec)
    path = _saved(enhanced_ct(hu, head_grid(spec), CtLabels()), tmp_path)
    first, second = iter_frames(path, (4, 1))
    np.testing.assert_allclose(first.astype(float) - 1024, hu[4], atol=0.51)
    np.testing.assert_allclose(second.astype(float) - 1024, hu[1], atol=0.51)
    with pytest.raises(UnreadablePixels):
        read_frame(path, 6)


@pytest.mark.parametrize("planar", [False, True])
def test_colour_comes_as_rgb(planar: bool, tmp_path: Path) -> None:
    spec = LesionSpec(height=60, width=80)
    rgb, _ = lesion_image(spec, 1)
    np.testing.assert_array_equal(read_frame(_saved(lesion_photograph(spec, 1, planar), tmp_path)), rgb)


def test_left_aligned_bits_are_moved_down(tmp_path: Path) -> None:
    ds = tiny_slice()
    expected = _stored(ds)
    ds.PixelData, ds.HighBit = (expected << 4).tobytes(), 15
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), expected)


def test_an_old_overlay_above_the_pixels_is_dropped(tmp_path: Path) -> None:
    ds = tiny_slice()
    expected = _stored(ds)
    ds.PixelData = (expected | 0x8000).tobytes()
    ds.add_new((0x6000, 0x0102), "US", 15)
    np.testing.assert_array_equal(read_frame(_saved(ds, tmp_path)), expected)


def test_negative_padding_in_an_unsigned_file_keeps_its_sign(tmp_path: Path) -> None:
    ds = tiny_slice()
    stored = _stored(ds).copy()
    stored[0, :] = 63536
    ds.PixelData = stored.tobytes()
    frame = read_frame(_saved(ds, tmp_path))
    assert frame[0, 0] == -2000 and frame[16, 16] == stored[16, 16]


def test_layout_sets_impossible_bits_right() -> None:
    ds = tiny_slice()
    ds.BitsStored, ds.HighBit = 99, 40
    layout = layout_of(ds)
    assert (layout.bits_stored, layout.high_bit) == (16, 15)
