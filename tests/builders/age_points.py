"""Operating points by age for tests."""

from __future__ import annotations

from typing import Any

from tests.builders.chest import chest_card
from worker.packages.card import Card
from worker.packages.operating_points import AgeGroupPoint, OperatingPointByAge, point_of_unknown_age

SOURCE = "a test"


def share(value: float, n: int = 100) -> dict[str, Any]:
    """A proportion as a card holds it."""
    return {"value": value, "low": round(value - 0.05, 4), "high": value, "n": n}


def flag_row(threshold: float, **fields: Any) -> dict[str, Any]:
    """A group that flags, as in a card's JSON."""
    return {"threshold": threshold, "sensitivity": share(0.95), "specificity": share(0.9), **fields}


NO_POSITIVES = {"threshold": None, "no_flag": "no_positives"}
HINT = {
    "threshold": None,
    "no_flag": "hint",
    "measured_at": 0.2,
    "sensitivity": share(0.9),
    "specificity": share(0.8),
    "predictive_value": 0.0435,
}
"""At a prevalence of 0.01."""


def point_by_age(child: dict[str, Any], adult: dict[str, Any], prevalence: float | None = None) -> OperatingPointByAge:
    """An operating point of pneumonia; that of an unknown age follows from the others."""
    groups = AgeGroupPoint.model_validate(child), AgeGroupPoint.model_validate(adult)
    return OperatingPointByAge.model_validate(
        {
            "finding": "pneumonia",
            "chosen_for": "a test",
            "groups": {"child": groups[0], "adult": groups[1], "unknown": point_of_unknown_age(*groups)},
            "prevalence": None if prevalence is None else {"value": prevalence, "source": SOURCE},
        }
    )


def binary_card_by_age(
    child: dict[str, Any], adult: dict[str, Any], prevalence: float | None = None, **fields: Any
) -> Card:
    """A binary chest card whose ``flag`` is by age."""
    points = {"flag": point_by_age(child, adult, prevalence)}
    return chest_card("pneumonia", ["pneumonia"], **{"operating_points": points} | fields)
