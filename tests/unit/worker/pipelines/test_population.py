"""Ages, and patients and images outside of what a package was trained with."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from worker.pipelines.population import age_group_of, age_years, outside


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


@pytest.mark.parametrize(
    ("ages", "group"),
    [
        (["015Y"], "child"),
        (["016Y"], "adult"),
        (["191M"], "child"),
        (["003D", ""], "child"),
        (["", ""], "unknown"),
        (["015Y", "016Y"], "unknown"),
        (["126Y"], "unknown"),
        ([], "unknown"),
    ],
)
def test_age_groups(ages: list[str], group: str) -> None:
    headers = [Dataset() for _ in ages]
    for ds, age in zip(headers, ages, strict=True):
        ds.PatientAge = age
    assert age_group_of(headers) == group


def test_the_group_of_a_birth_date_changes_on_the_birthday() -> None:
    ds = Dataset()
    ds.PatientBirthDate, ds.StudyDate = "20100601", "20260601"
    assert age_group_of([ds]) == "adult"
    ds.StudyDate = "20260530"
    assert age_group_of([ds]) == "child"


def test_what_is_not_known_is_not_outside() -> None:
    population = {"age_min": 18, "age_max": 90, "thickness_max_mm": 6.0}
    assert outside(population, 12.0) and outside(population, 91.0) and outside(population, 40.0, 10.0)
    assert not outside(population, 40.0, 5.0)
    assert not outside(population, None, None) and not outside({}, 3.0, 20.0)
