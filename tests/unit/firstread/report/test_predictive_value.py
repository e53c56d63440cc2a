"""How often a flag is right, in words."""

from __future__ import annotations

import pytest

from firstread.report.predictive_value import FEWEST_JUDGED, NO_MORE, PredictiveValue, right_by_card, words_of

BY_CARD = "Where 2.7 % of head CTs show intracranial hemorrhage, of 18 flagged head CTs one shows it."


@pytest.mark.parametrize(
    ("by_card", "judged", "right", "words"),
    [
        (0.056, 0, 0, f"{BY_CARD} {NO_MORE}"),
        (0.056, FEWEST_JUDGED - 1, 0, f"{BY_CARD} {NO_MORE}"),
        (0.056, 41, 3, f"{BY_CARD} Here 3 of 41 judged flags were right. {NO_MORE}"),
        (0.056, 41, 30, f"{BY_CARD} Here 30 of 41 judged flags were right. {NO_MORE}"),
        (None, 20, 1, f"Here 1 of 20 judged flags was right. {NO_MORE}"),
        (0.3, 41, 30, ""),
        (0.3, 19, 0, ""),
        (None, 0, 0, ""),
    ],
)
def test_only_a_flag_that_is_seldom_right_says_how_often(
    by_card: float | None, judged: int, right: int, words: str
) -> None:
    value = PredictiveValue("any", by_card, None if by_card is None else 0.027, judged, right)
    assert value.words == words and value.is_low is bool(words)
    assert PredictiveValue.of("head_ct", value.numbers()) == value
    assert words_of("head_ct", {"intensity_mean": 30.0, **value.numbers()}) == words
    assert value.as_dict()["words"] == words


def test_a_site_that_finds_few_right_says_so_beside_a_card_that_does_not() -> None:
    value = PredictiveValue("any", 0.3, 0.027).judged_here(judged=41, right=3)
    assert value.words == (
        "Where 2.7 % of head CTs show intracranial hemorrhage, of 3 flagged head CTs one shows it. "
        f"Here 3 of 41 judged flags were right. {NO_MORE}"
    )


def test_words_for_every_subject() -> None:
    assert right_by_card("melanoma", 0.0805, 0.0176) == (
        "Where 1.8 % of skin lesions show melanoma, of 12 flagged skin lesions one shows it."
    )
    assert right_by_card("pneumonia", 0.0, 0.0128).endswith("no flagged chest film shows it.")
    assert right_by_card("any", 1.0, 0.027).endswith("of 1 flagged head CTs one shows it.")


def test_a_job_without_numbers_says_nothing() -> None:
    assert PredictiveValue.of("head_ct", {"intensity_mean": 30.0}) is None
    assert words_of("head_ct", {}) == ""
