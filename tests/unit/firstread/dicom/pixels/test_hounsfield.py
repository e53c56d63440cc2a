"""Stored values to Hounsfield units, with padding, wrong signs and missing rescale."""

from __future__ import annotations

import numpy as np
import pytest

from firstread.dicom.frames import Rescale
from firstread.dicom.pixels.hounsfield import looks_like_hu, padding_of, to_hu
from firstread.dicom.pixels.reading import PixelLayout
from firstread.phantoms.chest import FilmSpec, chest_image
from firstread.phantoms.head import HeadSpec, head_study, head_volume

LINE = Rescale(1.0, -1024.0)


def _layout(signed: bool = False, stored: int = 12) -> PixelLayout:
    return PixelLayout(4, 4, 1, 1, 16, stored, stored - 1, signed, "MONOCHROME2", 0)


def test_slope_and_intercept() -> None:
    stored = np.array([[0, 1024, 2048]], np.uint16)
    np.testing.assert_allclose(to_hu(stored, Rescale(0.5, -1000), _layout(), None), [[-1000, -488, 24]])
    assert to_hu(stored, LINE, _layout(), None).dtype == np.float32


def test_padding_becomes_air() -> None:
    ds = head_study(HeadSpec(slices=1, size=32, signed=True)).objects[0]
    stored = np.frombuffer(ds.PixelData, "<i2").reshape(32, 32)
    layout = _layout(signed=True, stored=16)
    assert stored.min() == -2000 and padding_of(ds, layout) == (-2000, -2000)
    hu = to_hu(stored, Rescale(1.0, 0.0), layout, padding_of(ds, layout))
    assert hu.min() == -1024 and (hu[stored == -2000] == -1024).all()


def test_padding_written_with_the_other_sign_is_the_same_sixteen_bits() -> None:
    ds = head_study(HeadSpec(slices=1, size=16, signed=True)).objects[0]
    ds["PixelPaddingValue"].VR, ds["PixelPaddingValue"]._value = "US", 63536
    assert padding_of(ds, _layout(signed=True, stored=16)) == (-2000, -2000)


def test_padding_range_is_inclusive() -> None:
    ds = head_study(HeadSpec(slices=1, size=16)).objects[0]
    ds.PixelPaddingValue, ds.PixelPaddingRangeLimit = 10, 4
    padding = padding_of(ds, _layout())
    assert padding == (4, 10)
    hu = to_hu(np.array([[3, 4, 10, 11]], np.uint16), Rescale(1.0, 1000.0), _layout(), (4, 10))
    # Values that tissue can have are padding only where they touch the border, as all of these do.
    np.testing.assert_allclose(hu, [[1003, -1024, -1024, 1011]])


def test_a_padding_value_inside_tissue_is_tissue() -> None:
    stored = np.full((9, 9), 35, np.int16)
    stored[:, 0] = 0
    stored[4, 4] = 0
    hu = to_hu(stored, Rescale(1.0, 0.0), _layout(signed=True, stored=16), (0, 0))
    assert hu[4, 4] == 0 and (hu[:, 0] == -1024).all()


def test_unsigned_twelve_bits_that_hold_negative_numbers_get_their_sign_back() -> None:
    hu, _ = head_volume(HeadSpec(slices=8, size=64))
    wrapped = (np.rint(hu[4]).astype(np.int16) & 0x0FFF).astype(np.uint16)
    assert wrapped.max() > 3000
    np.testing.assert_allclose(to_hu(wrapped, Rescale(1.0, 0.0), _layout(), None), hu[4], atol=0.51)


def test_real_metal_is_left_alone() -> None:
    stored = np.full((100, 100), 1060, np.uint16)
    stored[:10, :10] = 4095
    assert to_hu(stored, LINE, _layout(), None).max() == 3071


@pytest.mark.parametrize("index", [3, 10, 20])
def test_a_head_without_rescale_looks_like_hu(index: int) -> None:
    hu, _ = head_volume(HeadSpec(slices=24, size=128))
    assert looks_like_hu(np.rint(hu[index]))
    assert not looks_like_hu(np.rint(hu[index]) + 1024)
    assert not looks_like_hu(np.clip(hu[index], 0, 80) * 3)


def test_a_film_does_not_look_like_hu() -> None:
    density, _ = chest_image(FilmSpec(size=64))
    assert not looks_like_hu(density * 4095)
