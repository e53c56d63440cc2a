"""When a flag is a hint: the figures and the prevalence of a card decide, and the finding's pipeline."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from tests.builders.skin import lesion_card
from worker.packages.card import Card
from worker.packages.card_page import render
from worker.packages.comparison import doubts, figures_of
from worker.packages.operating_points import LEAST_PREDICTIVE_VALUE, SERVED_PREVALENCE, OperatingPoint, Prevalence


def _point(finding: str, prevalence: float | None, **fields: Any) -> OperatingPoint:
    given = {"finding": finding, "threshold": 0.2, "chosen_for": "a test", "sensitivity": 0.9, "specificity": 0.8}
    named = {} if prevalence is None else {"prevalence": {"value": prevalence, "source": "a test"}}
    return OperatingPoint.model_validate(given | named | fields)


@pytest.mark.parametrize(
    ("finding", "prevalence", "share", "is_hint"),
    [
        ("melanoma", 0.0176, 0.0746, False),
        ("melanoma", 0.01, 0.0435, True),
        ("melanoma", None, None, False),
        ("any", None, 0.111, False),
        ("any", 0.01, 0.0435, False),
    ],
)
def test_a_flag_that_is_seldom_right_is_a_hint_where_the_pipeline_has_hints(
    finding: str, prevalence: float | None, share: float | None, is_hint: bool
) -> None:
    point = _point(finding, prevalence)
    assert point.share_right == share and point.is_hint is is_hint
    assert point.threshold_for("unknown") == (None if is_hint else 0.2)
    assert point.no_flag_for("unknown") == ("hint" if is_hint else None)
    assert OperatingPoint.model_validate_json(point.model_dump_json()) == point


def test_the_prevalence_decides_and_is_in_the_digest() -> None:
    cards = [
        lesion_card(operating_points={"flag_melanoma": _point("melanoma", value)}) for value in (None, 0.01, 0.0176)
    ]
    assert len({card.decisions() for card in cards}) == 3
    assert "prevalence" not in json.loads(cards[0].model_dump_json())["operating_points"]["flag_melanoma"]
    assert [card.threshold("melanoma") for card in cards] == [0.2, None, 0.2]


def test_a_prevalence_needs_figures_and_a_source() -> None:
    with pytest.raises(ValidationError, match="needs sensitivity and specificity"):
        _point("melanoma", 0.01, specificity=None)
    with pytest.raises(ValidationError, match="at least 1 character"):
        Prevalence(value=0.01, source="")
    assert all(len(prevalence.source) > 20 for prevalence in SERVED_PREVALENCE.values())


def test_the_page_and_the_comparison_call_a_hint_a_hint() -> None:
    hint, flag = (_card(prevalence) for prevalence in (0.01, 0.0176))
    page = render(hint)
    assert f"no flag (a hint: fewer than {LEAST_PREDICTIVE_VALUE:.0%} of flags would be right), measured at 0.2" in page
    assert (
        "Where 1 % of skin lesions show melanoma, of 23 flagged skin lesions one shows it. So it is a hint and flags "
        "nothing. Share of flags that are right: 0.0435. The prevalence: a test." in page
    )
    assert "of 13 flagged skin lesions one shows it. It is a flag all the same." in render(flag)
    assert doubts(figures_of(hint), figures_of(flag)) == ["no flag (hint), where the active package flags"]
    assert doubts(figures_of(flag), figures_of(hint)) == []
    assert "a hint, which flags nothing" in str(figures_of(hint))


def _card(prevalence: float) -> Card:
    return lesion_card(operating_points={"flag_melanoma": _point("melanoma", prevalence)})
