"""What a person is told who is about to change what serves."""

from __future__ import annotations

from tests.builders.age_points import NO_POSITIVES, binary_card_by_age, flag_row, share
from tests.builders.chest import chest_card
from worker.packages.comparison import doubts, figures_of


def test_who_activates_a_package_sees_its_groups_and_what_is_lost() -> None:
    plain = chest_card("pneumonia", ["pneumonia"], version="0.9.0")
    adults, none = (figures_of(binary_card_by_age(flag_row(0.3), adult)) for adult in (flag_row(0.6), NO_POSITIVES))
    assert str(none).endswith(
        "(200 cases); flag by age: child at 0.3, sensitivity 0.950 (N 100), specificity 0.900 (N 100), "
        "adult no flag (no_positives), unknown no flag (no_positives)"
    )
    assert doubts(adults, figures_of(plain)) == [] == doubts(adults, adults)
    lost = [
        f"no flag for age group {group} (no_positives), where the active package flags"
        for group in ("adult", "unknown")
    ]
    assert doubts(none, figures_of(plain)) == lost
    assert doubts(none, adults)[:2] == lost
    assert doubts(figures_of(plain), adults)[0].startswith("one threshold for all ages")
    worse = figures_of(binary_card_by_age(flag_row(0.3), flag_row(0.6) | {"specificity": share(0.7)}))
    assert doubts(worse, adults) == ["specificity for age group adult is 0.700, was 0.900"]
