"""Operating points by age on a card: what is read, refused, digested, and shown to people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from firstread.settings import Settings
from tests.builders.age_points import HINT, NO_POSITIVES, binary_card_by_age, flag_row, point_by_age, share
from tests.builders.chest import chest_card
from tests.builders.study_images import head_card
from worker.packages.card import Card
from worker.packages.card_page import render
from worker.packages.operating_points import AgeGroup, predictive_value

BLEND = {"own": 0.5, "four": 0.5, "bias": 0.0}


@pytest.mark.parametrize(
    ("child", "adult", "prevalence", "expected"),
    [
        (flag_row(0.3), flag_row(0.6), None, (0.3, 0.6, 0.6)),
        (flag_row(0.7), flag_row(0.6), None, (0.7, 0.6, 0.7)),
        (flag_row(0.3), NO_POSITIVES, None, (0.3, None, None)),
        (HINT, flag_row(0.3, predictive_value=0.0876), 0.01, (None, 0.3, None)),
        (NO_POSITIVES, NO_POSITIVES, None, (None, None, None)),
    ],
)
def test_each_group_has_its_own_threshold_and_an_unknown_age_the_stricter_one(
    child: dict[str, Any], adult: dict[str, Any], prevalence: float | None, expected: tuple[float | None, ...]
) -> None:
    card = binary_card_by_age(child, adult, prevalence)
    groups: tuple[AgeGroup, ...] = ("child", "adult", "unknown")
    assert tuple(card.threshold("pneumonia", age_group=group) for group in groups) == expected
    assert card.threshold("pneumonia") == expected[2], "whoever knows no age gets that of an unknown one"


def test_a_card_reads_back_as_it_was_written(tmp_path: Path) -> None:
    card = binary_card_by_age(flag_row(0.3, predictive_value=0.0876), HINT, 0.01)
    card.write(tmp_path / "card.json")
    flag = json.loads((tmp_path / "card.json").read_text())["operating_points"]["flag"]
    assert flag["groups"]["child"]["threshold"] == 0.3
    assert flag["groups"]["adult"]["threshold"] is None and flag["groups"]["adult"]["no_flag"] == "hint"
    assert flag["groups"]["unknown"] == {"threshold": None, "no_flag": "hint"}
    assert flag["prevalence"] == {"value": 0.01, "source": "a test"} and "threshold" not in flag
    assert Card.read(tmp_path / "card.json") == card


def test_everything_about_the_groups_is_in_the_digest() -> None:
    cards = [
        binary_card_by_age(flag_row(0.3), flag_row(0.6)),
        binary_card_by_age(flag_row(0.31), flag_row(0.6)),
        binary_card_by_age(flag_row(0.3), NO_POSITIVES),
        binary_card_by_age(flag_row(0.3), {**NO_POSITIVES, "no_flag": "no_negatives"}),
        binary_card_by_age(flag_row(0.3, predictive_value=0.0876), flag_row(0.6, predictive_value=0.0876), 0.01),
    ]
    assert len({card.decisions() for card in cards}) == len(cards)


def test_the_digest_of_shipped_cards_is_what_it_was() -> None:
    for path in sorted(Settings().models_dir.glob("*/*/card.json")):
        card = Card.read(path)
        assert card.decisions_sha256 in ("", card.decisions())
        assert json.loads(path.read_text())["operating_points"] == card.model_dump(mode="json")["operating_points"]
        page = (path.parent / "card.md").read_text(encoding="utf-8")
        assert _points_of(render(card)) == _points_of(page)


def _points_of(page: str) -> str:
    return page.split("## Operating points")[1].split("## Metrics")[0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"groups": {"child": flag_row(0.3), "adult": flag_row(0.6)}}, "all of them"),
        ({"groups": {"unknown": {"threshold": 0.3}}}, "higher threshold"),
        ({"groups": {"unknown": NO_POSITIVES}}, "higher threshold"),
        ({"groups": {"adult": {"threshold": None}}}, "reason for none"),
        ({"groups": {"adult": {**flag_row(0.6), "no_flag": "hint"}}}, "reason for none"),
        ({"prevalence": {"value": 0.01, "source": "x"}}, "predictive value"),
        ({"prevalence": {"value": 0.01, "source": ""}}, "at least 1 character"),
        ({"groups": {"child": flag_row(0.3, predictive_value=0.9)}}, "predictive value"),
    ],
)
def test_a_card_whose_groups_contradict_themselves_is_refused(change: dict[str, Any], word: str) -> None:
    fields = point_by_age(flag_row(0.3), flag_row(0.6)).model_dump(mode="json")
    groups = change.get("groups", {})
    fields |= {**change, "groups": groups if len(groups) == 2 else fields["groups"] | groups}
    with pytest.raises(ValidationError, match=word):
        chest_card("pneumonia", ["pneumonia"], operating_points={"flag": fields})


def test_a_flag_that_is_seldom_right_is_refused_and_a_hint_that_is_often_right_too() -> None:
    assert predictive_value(0.9, 0.8, 0.01) == 0.0435
    assert predictive_value(0.0, 1.0, 0.5) is None
    seldom = {"threshold": 0.2, "sensitivity": share(0.9), "specificity": share(0.8), "predictive_value": 0.0435}
    with pytest.raises(ValidationError, match="is a hint"):
        binary_card_by_age(flag_row(0.3, predictive_value=0.0876), seldom, 0.01)
    often = {**HINT, "specificity": share(0.9), "predictive_value": 0.0833}
    with pytest.raises(ValidationError, match="is a hint"):
        binary_card_by_age(flag_row(0.3, predictive_value=0.0876), often, 0.01)


def test_only_what_flags_by_age_has_points_by_age() -> None:
    point = point_by_age(flag_row(0.3), flag_row(0.6))
    with pytest.raises(ValidationError, match="has none by age"):
        Card.model_validate(
            dict(head_card()) | {"operating_points": {"flag": point.model_copy(update={"finding": "any"})}}
        )
    with pytest.raises(ValidationError, match="has none by age"):
        chest_card("pneumonia4", ["covid19"], operating_points={"f": point.model_copy(update={"finding": "covid19"})})


def test_a_joint_score_has_one_threshold_or_one_by_age() -> None:
    point = point_by_age(flag_row(0.3), flag_row(0.6))
    binary_card_by_age(flag_row(0.3), flag_row(0.6), parameters={"blend": BLEND | {"threshold": 0.5}})
    binary_card_by_age(
        flag_row(0.3), flag_row(0.6), parameters={"blend": BLEND}, operating_points={"flag": point, "joint_flag": point}
    )
    with pytest.raises(ValidationError, match="either a threshold or"):
        binary_card_by_age(flag_row(0.3), flag_row(0.6), parameters={"blend": BLEND})
    with pytest.raises(ValidationError, match="either a threshold or"):
        binary_card_by_age(
            flag_row(0.3),
            flag_row(0.6),
            parameters={"blend": BLEND | {"threshold": 0.5}},
            operating_points={"joint_flag": point},
        )
