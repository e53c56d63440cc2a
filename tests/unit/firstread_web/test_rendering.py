"""Durations, sizes and codes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from firstread_web.rendering import Pages, age, in_bytes, words
from tests.builders.site import settings_in


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min"), (3599, "59 min"), (7200, "2 h"), (172_799, "47 h"), (172_800, "2 d")],
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_sizes_and_codes() -> None:
    assert [in_bytes(n) for n in (0, 1023, 2**20, 5 * 2**40)] == ["0 B", "1023 B", "1 MiB", "5.0 TiB"]
    assert words("too_few_slices") == "Fewer slices than a head examination has."
    assert "`" not in words("ended_by_hand")
    assert words("of_a_later_version") == "of a later version"


def test_times_are_the_sites_own(tmp_path: Path) -> None:
    pages = Pages(settings_in(tmp_path, time_zone="Europe/Berlin"))
    assert pages.time(datetime(2026, 7, 1, 12, tzinfo=UTC)) == "2026-07-01 14:00:00"
    assert pages.time(None) == ""
