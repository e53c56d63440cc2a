"""Results in words and numbers, as a PACS, a mail and a page show them."""

from __future__ import annotations

import pytest

from firstread.pipelines import names
from firstread.records import Result
from firstread.report.words import KINDS, is_hint, measured, name_of_hint, opening_sentence, percent, series_title


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (107.700192, "mL", "108 mL"),
        (2.02, "mL", "2.0 mL"),
        (9.96, "mm", "10 mm"),
        (0.457, "mL", "0.46 mL"),
        (0.2134, "1", "0.21"),
        (12.34, "px", "12 px"),
        (0.0, "mL", "0.00 mL"),
    ],
)
def test_numbers_have_the_digits_that_they_are_worth(value: float, unit: str, expected: str) -> None:
    assert measured(value, unit) == expected


def test_percentages_have_one_decimal() -> None:
    assert [percent(p) for p in (0.21349, 0.07263, 1.0, 0.0)] == ["21.3", "7.3", "100.0", "0.0"]


def result(finding: str, p: float | None = None, flagged: bool = False, **values: float) -> Result:
    return Result(finding=finding, probability=p, flagged=flagged, **values)


def test_the_opening_says_what_leads_and_excludes_nothing() -> None:
    subdural = result("subdural", 0.99)
    flagged = [subdural, result("any", 0.93, True, threshold=0.5), result("bleed_volume", value=107.7)]
    assert opening_sentence("head_ct", flagged) == (
        "Suspected intracranial hemorrhage, flagged for early reading: certainty 93.0 %, threshold of the flag 50.0 %. "
        "The outlined volume is 108 mL."
    )
    plain = opening_sentence("head_ct", [subdural, result("any", 0.12, threshold=0.5)])
    assert plain == "Not flagged for intracranial hemorrhage: certainty 12.0 %, threshold of the flag 50.0 %."
    assert opening_sentence("chest_xray", []) == "Firstread has scored this chest film."
    melanoma = opening_sentence("dermoscopy", [result("melanoma", 0.2, threshold=0.5)])
    assert melanoma == "Not flagged for melanoma: certainty 20.0 %, threshold of the flag 50.0 %."


@pytest.mark.parametrize("pipeline", names())
def test_titles_fit_and_are_no_verdict(pipeline: str) -> None:
    titles = [series_title(pipeline, kind) for kind in KINDS]
    assert all(len(title) <= 64 and title.startswith("Firstread ") for title in titles)
    assert all(title.endswith("(not for diagnosis)") for title in titles) and len(set(titles)) == 3


def test_hints_say_so() -> None:
    hint = result("pneumonia", 0.93)
    assert is_hint("chest_xray", hint) and not is_hint("chest_xray", result("pneumonia", 0.93, threshold=0.95))
    assert not is_hint("chest_xray", result("covid19", 0.93)) and not is_hint("head_ct", result("any", 0.93))
    assert opening_sentence("chest_xray", [hint]) == (
        "Not flagged for pneumonia, which is a hint at this age and has no threshold: certainty 93.0 %."
    )
    lesion = result("melanoma", 0.93)
    assert is_hint("dermoscopy", lesion) and not is_hint("dermoscopy", result("nevus", 0.93))
    assert opening_sentence("dermoscopy", [lesion]) == (
        "Not flagged for melanoma, which is a hint here and has no threshold: certainty 93.0 %."
    )
    assert name_of_hint("subdural") == "Subdural hemorrhage (a hint, never flagged)"
