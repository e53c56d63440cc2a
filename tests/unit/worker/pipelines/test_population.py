"""Ages, and patients and images outside of what a package was trained with."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

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
