"""The flag of chest films by age: thresholds, hints and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firstread.phantoms.chest import FilmSpec
from firstread.report.predictive_value import PredictiveValue
from tests.builders.age_points import HINT, NO_POSITIVES, flag_row, point_by_age
from tests.builders.chest import LowerLungEngine, chest_card, chest_served, film_ds, received, study_of
from worker.pipelines.base import Finding, Outcome, Served
from worker.pipelines.registry import row
from worker.pipelines.runner import run

ILL = FilmSpec(size=256, opacity=True)
LOW, HIGH = flag_row(0.2), flag_row(0.999)
AGES = {"child": "004Y", "adult": "044Y", "unknown": ""}


def _scored(folder: Path, age: str, points: dict[str, Any], more: dict[str, Any] | None = None) -> Outcome:
    served = chest_served()
    card = chest_card("pneumonia", ["pneumonia"], operating_points=points, **more or {})
    served["pneumonia"] = [Served(card)]
    study = study_of(received(folder, film_ds(ILL, PatientAge=age, PatientBirthDate="")))
    outcome = run(row("chest_xray"), study, served, LowerLungEngine()).outcome
    assert outcome is not None
    return outcome


def _pneumonia(outcome: Outcome) -> Finding:
    (found,) = [f for f in outcome.findings if f.name == "pneumonia" and f.role == "active"]
    return found


@pytest.mark.parametrize(
    ("child", "adult", "group", "threshold", "flagged", "warning"),
    [
        (LOW, HIGH, "child", 0.2, True, ""),
        (LOW, HIGH, "adult", 0.999, False, ""),
        (LOW, HIGH, "unknown", 0.999, False, ""),
        (LOW, flag_row(0.1), "unknown", 0.2, True, ""),
        (LOW, NO_POSITIVES, "child", 0.2, True, ""),
        (LOW, NO_POSITIVES, "adult", None, False, "no_flag_for_age"),
        (LOW, NO_POSITIVES, "unknown", None, False, "no_flag_for_age"),
    ],
)
def test_the_flag_is_that_of_the_age_group(
    child: dict[str, Any],
    adult: dict[str, Any],
    group: str,
    threshold: float | None,
    flagged: bool,
    warning: str,
    tmp_path: Path,
) -> None:
    outcome = _scored(tmp_path, AGES[group], {"flag": point_by_age(child, adult)})
    found = _pneumonia(outcome)
    assert found.probability is not None and found.probability > 0.5
    assert (found.threshold, found.flagged) == (threshold, flagged)
    assert [w for w in outcome.warnings if w in ("no_flag_for_age", "hint_for_age")] == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("group", "warning"), [("child", None), ("adult", "hint_for_age"), ("unknown", "hint_for_age")]
)
def test_a_flag_that_is_seldom_right_is_a_hint(group: str, warning: str | None, tmp_path: Path) -> None:
    points = {"flag": point_by_age(flag_row(0.2, predictive_value=0.0876), HINT, 0.01)}
    outcome = _scored(tmp_path, AGES[group], points)
    assert _pneumonia(outcome).flagged is (warning is None)
    assert warning is None or (warning in outcome.warnings and _pneumonia(outcome).threshold is None)
    known = PredictiveValue("pneumonia", 0.0876, 0.01)
    assert outcome.predictive_value == (known if warning is None else None)


def test_the_joint_score_has_groups_of_its_own(tmp_path: Path) -> None:
    blend = {"blend": {"own": 0.5, "four": 0.5, "bias": 0.0}}
    points = {"flag": point_by_age(LOW, LOW), "joint_flag": point_by_age(HIGH, NO_POSITIVES)}
    child = _scored(tmp_path, AGES["child"], points, {"parameters": blend})
    adult = _scored(tmp_path, AGES["adult"], points, {"parameters": blend})
    assert (_pneumonia(child).threshold, _pneumonia(adult).threshold) == (0.999, None)
    assert "no_flag_for_age" in adult.warnings and not _pneumonia(adult).flagged
    (member,) = [f for f in adult.findings if f.name == "pneumonia" and f.role == "member"]
    assert member.threshold == 0.2 and not member.flagged


def test_films_whose_headers_disagree_on_the_age_have_an_unknown_one(tmp_path: Path) -> None:
    points = {"flag": point_by_age(LOW, HIGH)}
    served = chest_served()
    served["pneumonia"] = [Served(chest_card("pneumonia", ["pneumonia"], operating_points=points))]
    films = [
        received(
            tmp_path,
            film_ds(ILL, number, PatientAge=age, SeriesInstanceUID="1.2.3.4", SOPInstanceUID=f"1.2.3.4.{number}"),
            number,
        )
        for number, age in ((1, "004Y"), (2, "044Y"))
    ]
    outcome = run(row("chest_xray"), study_of(*films), served, LowerLungEngine()).outcome
    assert outcome is not None and _pneumonia(outcome).threshold == 0.999


@pytest.mark.parametrize("group", list(AGES))
def test_a_card_without_groups_flags_at_every_age(group: str, tmp_path: Path) -> None:
    outcome = _scored(tmp_path, AGES[group], chest_card("pneumonia", ["pneumonia"]).operating_points)
    assert (_pneumonia(outcome).threshold, _pneumonia(outcome).flagged) == (0.5, True)
    assert not {"no_flag_for_age", "hint_for_age"} & set(outcome.warnings)


@pytest.mark.parametrize("confounded", [True, False])
def test_the_warning_of_confounding_stays_until_left_out_hospitals_clear_the_model(
    confounded: bool, tmp_path: Path
) -> None:
    served = chest_served()
    card = served["pneumonia4"][0].card
    parameters = {**card.parameters, "confounded_by_age": confounded}
    served["pneumonia4"] = [Served(card.model_copy(update={"parameters": parameters}))]
    study = study_of(received(tmp_path, film_ds(ILL)))
    outcome = run(row("chest_xray"), study, served, LowerLungEngine()).outcome
    assert outcome is not None and ("confounded_by_age" in outcome.warnings) is confounded
