"""Is the patient, and the scan, of the kind that a model was trained on?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

from pydicom.dataset import Dataset

from firstread.dicom.values import text
from worker.packages.operating_points import AgeGroup

CHILD_YEARS = 16.0
"""Who is younger is a child."""

OLDEST_YEARS = 120.0
"""A higher age is that of a placeholder, such as a birth date of 1900."""

_DAYS = {"D": 1.0, "W": 7.0, "M": 30.44, "Y": 365.25}


def age_years(ds: Dataset) -> float | None:
    """Age at the time of the study, from Patient's Age (``045Y``, ``006M``), else from birth and study date."""
    age = text(ds, "PatientAge", 8).upper()
    if len(age) >= 2 and age[:-1].isdigit() and age[-1] in _DAYS:
        return int(age[:-1]) * _DAYS[age[-1]] / _DAYS["Y"]
    born, seen = _date(text(ds, "PatientBirthDate", 16)), _date(text(ds, "StudyDate", 16))
    if born is None or seen is None or seen < born:
        return None
    return (seen - born).days / _DAYS["Y"]


def age_group(age: float | None) -> AgeGroup:
    """The group of an age in years, as operating points know them."""
    if age is None or not 0 <= age <= OLDEST_YEARS:
        return "unknown"
    return "child" if age < CHILD_YEARS else "adult"


def age_group_of(headers: Iterable[Dataset]) -> AgeGroup:
    """The group that all headers of one patient agree on, those without an age aside; else ``unknown``."""
    groups = {age_group(age_years(ds)) for ds in headers} - {"unknown"}
    return groups.pop() if len(groups) == 1 else "unknown"


def _date(value: str) -> date | None:
    digits = value.replace(".", "")
    if len(digits) != 8 or not digits.isdigit():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def outside(population: dict[str, Any], age: float | None, thickness_mm: float | None = None) -> bool:
    """Whether a known age or thickness lies outside ``age_min``..``age_max``, ``thickness_min_mm``.. of a card.

    What is not known, of the patient or on the card, does not count against the study.
    """
    return _beyond(age, population.get("age_min"), population.get("age_max")) or _beyond(
        thickness_mm, population.get("thickness_min_mm"), population.get("thickness_max_mm")
    )


def _beyond(value: float | None, low: Any, high: Any) -> bool:
    if value is None:
        return False
    return (low is not None and value < float(low)) or (high is not None and value > float(high))
