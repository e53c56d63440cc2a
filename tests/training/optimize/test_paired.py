"""Two runtimes on the same patients: differences with intervals, and what is more than a file may lose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from training.evaluation.figures import binary
from training.evaluation.scoring import Measured
from training.optimize.paired import Tolerance, compared, flattened, too_much
from worker.packages.converted import Difference, Measurement, PairedFigure

PATIENTS = np.repeat([f"p{i}" for i in range(40)], 2)
Y = np.repeat(np.arange(40) % 2, 2)
FLAG = ("studies/any/sensitivity",)


def measured(p: np.ndarray, patients: np.ndarray = PATIENTS) -> Measured:
    """A package whose cases have the probabilities ``p``; it flags from 0.5."""

    def of_drawn(drawn: Sequence[np.ndarray]) -> dict[str, Any]:
        rows = np.concatenate(drawn)
        return {"studies": {"any": binary(Y[rows], p[rows], patients[rows], p[rows] >= 0.5, repeats=0)}}

    return Measured(patients, p[:, None], of_drawn, FLAG)


def scores(seed: int = 0) -> np.ndarray:
    return np.clip(0.35 + 0.3 * Y + np.random.default_rng(seed).normal(0, 0.2, len(Y)), 0, 1)


def test_the_same_numbers_differ_by_nothing_with_no_width() -> None:
    measurement, figures = compared(measured(scores()), measured(scores()), "toys", 30)
    assert (measurement.cases, measurement.patients, measurement.largest_p_difference) == (80, 40, 0.0)
    assert {"studies/any/auc", "studies/any/sensitivity", "studies/any/brier"} <= set(measurement.figures)
    for row in measurement.figures.values():
        assert row.reference == row.converted
        assert row.difference == Difference(value=0.0, low=0.0, high=0.0, n=40)
    assert too_much(measurement, figures, FLAG, Tolerance()) == []


def test_the_difference_is_paired_by_patient() -> None:
    """Noise that both share takes no part in the interval: it is far narrower than that of either figure."""
    reference = scores()
    converted = np.clip(reference + np.random.default_rng(5).normal(0, 0.01, len(Y)), 0, 1)
    measurement, figures = compared(measured(reference), measured(converted), "toys", 60)
    row = measurement.figures["studies/any/auc"]
    assert row.reference is not None and row.converted is not None and row.difference.value is not None
    assert row.difference.value == pytest.approx(row.converted - row.reference)
    assert row.difference.low is not None and row.difference.high is not None
    assert row.difference.low <= row.difference.value <= row.difference.high
    own = binary(Y, reference, PATIENTS, reference >= 0.5, repeats=60)["auc"]
    assert row.difference.high - row.difference.low < 0.3 * (own["high"] - own["low"])
    assert measurement.largest_p_difference == pytest.approx(np.abs(converted - reference).max())
    assert figures["studies"]["any"]["auc"]["value"] == row.reference


def test_other_cases_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="different cases"):
        compared(measured(scores()), measured(scores(), PATIENTS[::-1]), "toys", 20)


def test_what_stands_for_the_data_is_no_figure() -> None:
    figures = {
        "threshold": 0.5,
        "studies": {"n": 3, "prevalence": 0.2, "auc": {"value": None, "low": None, "high": None, "n": 3}, "f1": 0.25},
        "compared": {"always_normal": {"auc": 0.5}},
    }
    found = dict(flattened(figures))
    assert set(found) == {"studies/auc", "studies/f1"}
    assert math.isnan(found["studies/auc"]) and found["studies/f1"] == 0.25


def figures_of(positive: int, n: int) -> dict[str, Any]:
    estimate = {"value": 0.9, "low": 0.8, "high": 1.0, "n": positive}
    row = {"n": n, "positive": positive, "patients_positive": positive, "auc": estimate, "sensitivity": estimate}
    return {"studies": {"any": row}, "by_source": {"one": {"auc": estimate}}}


def measurement_of(**converted: float | None) -> Measurement:
    nothing = Difference(value=None, low=None, high=None, n=1)
    rows = {
        place.replace("__", "/"): PairedFigure(reference=0.9, converted=value, difference=nothing)
        for place, value in converted.items()
    }
    return Measurement(data="toys", cases=1, patients=1, resamples=20, figures=rows)


@pytest.mark.parametrize(
    ("converted", "positive", "n", "refused"),
    [
        ({"studies__any__auc": 0.8971}, 30, 60, False),
        ({"studies__any__auc": 0.8969}, 30, 60, True),
        ({"studies__any__auc": None}, 30, 60, True),
        ({"studies__any__auc": 0.93}, 30, 60, False),
        ({"studies__any__auc": 0.895}, 4, 60, False),  # one of 224 pairs weighs more than the tolerance
        ({"by_source__one__auc": 0.5}, 30, 60, False),
        ({"studies__any__sensitivity": 0.9 - 1 / 30}, 30, 60, False),
        ({"studies__any__sensitivity": 0.9 - 2 / 30}, 30, 60, True),
    ],
)
def test_a_file_may_lose_a_little_auc_and_one_patient(
    converted: dict[str, float | None], positive: int, n: int, refused: bool
) -> None:
    found = too_much(measurement_of(**converted), figures_of(positive, n), FLAG, Tolerance())
    assert bool(found) is refused
