"""The page of a card, for people."""

from __future__ import annotations

from tests.builders.age_points import HINT, binary_card_by_age, flag_row, share
from worker.packages.card_page import render


def test_the_page_shows_every_group_and_why_one_has_no_flag() -> None:
    child = flag_row(0.3, predictive_value=0.0876, sensitivity_of={"covid19": share(0.8, 40)})
    page = render(binary_card_by_age(child, HINT, 0.01))
    assert "Predictive values are at a prevalence of 0.01 (a test)." in page
    assert "| | child | adult | unknown |" in page
    assert "| threshold | 0.3 | no flag (a hint: fewer than 5% of flags would be right) |" in page
    assert "| measured at | 0.3 | 0.2 | – |" in page
    assert "| sensitivity, covid19 | 0.8 (95 % CI 0.75 to 0.8, N 40) | – | – |" in page
