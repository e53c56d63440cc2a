"""The one preprocessing function: order of steps, windows, crop, neighbours, and real HU against windowed pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from firstread.phantoms.head import HeadSpec, head_volume
from worker.packages.card import InputSpec
from worker.packages.preprocessing.compose import PreprocessingError, compose, locate, planes, to_unit
from worker.packages.preprocessing.crops import Box, cut, head_box, restore, square_box

HEAD = InputSpec(kind="hu", height=96, width=96, windows=((0, 80),), neighbours=1, crop="head", scale="imagenet_lite")
SPEC = HeadSpec(slices=6, size=256, step_mm=20.0, bleed="intraparenchymal")


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return head_volume(SPEC)[0]


def test_shape_type_and_range(hu: np.ndarray) -> None:
    x = compose(hu, HEAD)
    assert x.shape == (6, 96, 96, 3)
    assert x.dtype == np.float32
    assert x.min() == pytest.approx(-127 / 128) and x.max() == pytest.approx(1.0)


def test_real_hounsfield_units_and_windowed_pictures_agree(hu: np.ndarray) -> None:
    """Training saw 8-bit pictures of -20 to 100 HU; a scanner sends air of -1,000 and bone of 1,500."""
    real = hu.copy()
    real[hu <= -20] = -1000
    real[hu >= 100] = 1500
    picture = np.round((np.clip(hu, -20, 100) + 20) * 255 / 120) * (120 / 255) - 20
    a, b = compose(real, HEAD), compose(picture.astype(np.float32), HEAD)
    hu_apart = np.abs(a - b) * 128 / 255 * 80
    assert hu_apart.max() < 0.6, "half a grey level of the picture, and no rim of mixed bone and air"


def test_window_comes_before_resize(hu: np.ndarray) -> None:
    whole = HEAD.model_copy(update={"crop": "none", "neighbours": 0, "scale": "zero_one"})
    right = compose(hu, whole)[..., 0]
    wrong = np.stack([cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA) for image in hu.astype(np.float32)])
    wrong = np.clip(wrong, 0, 80) / 80
    expected = np.stack(
        [cv2.resize((np.clip(i, 0, 80) / 80).astype(np.float32), (96, 96), interpolation=cv2.INTER_AREA) for i in hu]
    )
    np.testing.assert_allclose(right, expected, atol=1e-6)
    assert np.abs(right - wrong).max() > 0.15


def test_neighbours_are_channels_and_edges_repeat(hu: np.ndarray) -> None:
    x = compose(hu, HEAD)
    np.testing.assert_array_equal(x[2, ..., 0], x[1, ..., 1])
    np.testing.assert_array_equal(x[2, ..., 2], x[3, ..., 1])
    np.testing.assert_array_equal(x[0, ..., 0], x[0, ..., 1])
    np.testing.assert_array_equal(x[5, ..., 2], x[5, ..., 1])
    single = compose(hu[3:4], HEAD)
    np.testing.assert_array_equal(single[..., 0], single[..., 2])


def test_windows_are_channels() -> None:
    spec = InputSpec(kind="hu", height=8, width=8, windows=((0, 80), (-20, 180), (-150, 230)))
    x = compose(np.full((1, 8, 8), 40, np.int16), spec)
    np.testing.assert_allclose(x[0, 0, 0], [0.5, 0.3, 0.5], atol=1e-6)


def test_head_is_found_without_the_table() -> None:
    window = np.zeros((2, 200, 200), np.float32)
    cv2.ellipse(window[0], (80, 90), (40, 50), 0, 0, 360, 0.5, -1)
    cv2.ellipse(window[1], (80, 90), (8, 10), 0, 0, 360, 1.0, -1)
    for image in window:
        cv2.ellipse(image, (80, 60), (95, 120), 0, 20, 160, 1.0, 2)
    box = head_box(window)
    assert 100 <= box.height <= 114 and box.height == box.width
    assert abs(box.left + box.width / 2 - 80) <= 3 and abs(box.top + box.height / 2 - 90) <= 3
    assert head_box(np.zeros((1, 20, 30), np.float32)) == square_box(20, 30)


def test_crop_does_not_depend_on_matrix_size(hu: np.ndarray) -> None:
    large = np.stack([cv2.resize(image, (512, 512), interpolation=cv2.INTER_NEAREST) for image in hu])
    a, b = planes(hu, HEAD), planes(large, HEAD)
    assert np.abs(a - b).mean() < 0.02


def test_box_beyond_the_image_is_padded_and_restored() -> None:
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    box = Box(-1, 2, 4, 4)
    inside = cut(image, box)
    assert inside[0].tolist() == [0, 0, 0, 0]
    assert inside[1].tolist() == [2, 3, 0, 0]
    back = restore(inside, box, (4, 4))
    np.testing.assert_array_equal(back[:3, 2:], image[:3, 2:])
    assert not back[:, :2].any()


def test_mask_comes_back_where_it_was(hu: np.ndarray) -> None:
    blood = head_volume(SPEC)[1]
    unit = to_unit(hu, HEAD)
    row = int(blood.sum(axis=(1, 2)).argmax())
    box = locate(unit, HEAD)[row]
    small = cv2.resize(cut(blood[row].astype(np.float32), box), (96, 96), interpolation=cv2.INTER_AREA)
    restored = restore(small, box, blood[row].shape) > 0.5
    overlap = 2 * (restored & blood[row]).sum() / (restored.sum() + blood[row].sum())
    assert overlap > 0.93


def test_pictures() -> None:
    rgb = np.zeros((1, 10, 20, 3), np.uint8)
    rgb[..., 0] = 255
    spec = InputSpec(kind="rgb", height=5, width=5, crop="square", scale="minus_one_one")
    np.testing.assert_allclose(compose(rgb, spec)[0, 2, 2], [1, -1, -1])
    grey = InputSpec(kind="grey", height=4, width=4, windows=((0, 1000),))
    assert compose(np.full((2, 8, 8), 500), grey)[1, 0, 0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (np.zeros((0, 4, 4)), "hu"),
        (np.zeros((4, 4)), "hu"),
        (np.zeros((1, 4, 4, 3)), "hu"),
        (np.zeros((1, 4, 4)), "rgb"),
    ],
)
def test_pixels_of_another_kind_are_refused(pixels: np.ndarray, kind: str) -> None:
    with pytest.raises(PreprocessingError):
        compose(pixels, InputSpec.model_validate({"kind": kind, "height": 4, "width": 4}))
