"""Small parts that pipelines share: ages, populations, evidence pictures."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from worker.pipelines.heatmap import PANEL, picture, window
from worker.pipelines.population import age_years, outside


@pytest.mark.parametrize(
    ("values", "years"),
    [
        ({"PatientAge": "045Y"}, 45.0),
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientAge": "010D"}, 0.03),
        ({"PatientBirthDate": "20000101", "StudyDate": "20260101"}, 26.0),
        ({"PatientAge": "old", "PatientBirthDate": "20000101", "StudyDate": "20260101"}, 26.0),
        ({"PatientBirthDate": "20270101", "StudyDate": "20260101"}, None),
        ({"PatientBirthDate": "20261345", "StudyDate": "20260101"}, None),
        ({}, None),
    ],
)
def test_age(values: dict[str, str], years: float | None) -> None:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    assert age_years(ds) == (None if years is None else pytest.approx(years, abs=0.01))


def test_what_is_not_known_is_not_outside() -> None:
    population = {"age_min": 18, "age_max": 90, "thickness_max_mm": 6.0}
    assert outside(population, 12.0) and outside(population, 91.0) and outside(population, 40.0, 10.0)
    assert not outside(population, 40.0, 5.0)
    assert not outside(population, None, None) and not outside({}, 3.0, 20.0)


def test_window_maps_its_ends_to_black_and_white() -> None:
    assert window(np.array([[-50.0, 0.0, 40.0, 80.0, 500.0]])).tolist() == [[0, 0, 127, 255, 255]]


@pytest.mark.parametrize("shape", [(512, 512), (100, 60), (60, 100), (1200, 900)])
def test_a_picture_has_one_panel_or_two(shape: tuple[int, int]) -> None:
    grey = np.full(shape, 128, np.uint8)
    plain = picture(grey, None, ("any 0.10",))
    both = picture(grey, np.zeros(shape, np.float32), ("any 0.90",))
    assert plain.dtype == np.uint8 and plain.shape[1:] == (PANEL, 3) and both.shape == (plain.shape[0], 2 * PANEL, 3)
    np.testing.assert_array_equal(both[40:500, 40:470], both[40:500, PANEL + 40 : PANEL + 470])


def test_heat_is_painted_where_it_is() -> None:
    grey = np.full((512, 512), 100, np.uint8)
    heat = np.zeros((512, 512), np.float32)
    heat[300:340, 100:140] = 1.0
    out = picture(grey, heat, ("any 0.90",), sides=False).astype(int)
    right = out[28:540, PANEL:]
    red = right[..., 0] - right[..., 2]
    assert red[320, 120] > 50 and red[100, 400] == 0
