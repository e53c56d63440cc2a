"""The page of a card, for people."""

from __future__ import annotations

import pytest

from tests.builders.age_points import HINT, binary_card_by_age, flag_row, share
from tests.builders.study_images import head_card
from worker.packages.card_page import render
from worker.packages.operating_points import OperatingPoint


def test_the_page_shows_every_group_and_why_one_has_no_flag() -> None:
    child = flag_row(0.3, predictive_value=0.0876, sensitivity_of={"covid19": share(0.8, 40)})
    page = render(binary_card_by_age(child, HINT, 0.01))
    assert "Predictive values are at a prevalence of 0.01 (a test)." in page
    assert "| | child | adult | unknown |" in page
    assert "| threshold | 0.3 | no flag (a hint: fewer than 5% of flags would be right) |" in page
    assert "| measured at | 0.3 | 0.2 | – |" in page
    assert "| sensitivity, covid19 | 0.8 (95 % CI 0.75 to 0.8, N 40) | – | – |" in page


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "words"),
    [(0.97, 0.55, "of 18 flagged head CTs one shows it. It is a flag all the same."), (0.97, None, None)],
)
def test_the_page_says_of_how_many_flags_one_is_right(
    sensitivity: float, specificity: float | None, words: str | None
) -> None:
    point = OperatingPoint(
        finding="any", threshold=0.2, chosen_for="a test", sensitivity=sensitivity, specificity=specificity
    )
    card = head_card().model_copy(update={"operating_points": {"flag": point}})
    page = render(card)
    assert words in page if words else "flagged head CTs one" not in page
