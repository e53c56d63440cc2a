"""Whether a revision is old: age at arrival, orders that make it fresh, dates in the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicom_listener.studies.freshness import judge
from firstread.priority import on_broker
from firstread.records import Instance, Revision
from firstread.settings import Settings

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def revision_of(
    *images: tuple[str | None, str | None] | tuple[str | None, str | None, str],
    calling_aes: tuple[str, ...] = ("CT1",),
    forced: str | None = None,
    wish: int = 0,
    **settings: Any,
) -> Revision:
    members = [
        Instance(
            made_kind=image[0],
            made_dt=image[1],
            modality=image[2] if len(image) > 2 else "CT",
            dicom_priority=wish,
            sop_class_uid="",
        )
        for image in images
    ]
    revision = Revision(last_seen_at=NOW, forced_pipeline=forced, warnings=[])
    judge(revision, members, calling_aes, Settings(**settings))
    return revision


def hours_ago(hours: float) -> tuple[str, str]:
    return "acquisition", f"{NOW - timedelta(hours=hours):%Y%m%d%H%M%S}+0000"


@pytest.mark.parametrize(
    ("hours", "fresh_h", "old"), [(23.9, 24, False), (24.1, 24, True), (3, 2, True), (9999, 0, False)]
)
def test_older_than_the_setting(hours: float, fresh_h: float, old: bool) -> None:
    assert revision_of(hours_ago(hours), fresh_h=fresh_h).old is old


def test_unknown_counts_as_fresh() -> None:
    revision = revision_of((None, None))
    assert not revision.old and revision.made_at is None and revision.warnings == []


def test_one_fresh_image_makes_the_study_fresh() -> None:
    assert not revision_of(hours_ago(9000), hours_ago(1), hours_ago(8000)).old


def test_a_report_written_today_makes_no_study_fresh() -> None:
    today = ("content", f"{NOW:%Y%m%d}")
    assert revision_of(("study", "20190101"), (*today, "SR")).old
    assert revision_of(hours_ago(9000), today).old


def test_the_zone_of_the_site_decides_and_without_one_doubt_is_fresh() -> None:
    local = ("acquisition", f"{NOW - timedelta(hours=30):%Y%m%d%H%M%S}")
    assert not revision_of(local).old
    assert revision_of(local, time_zone="Europe/Berlin").old
    assert not revision_of(local, time_zone="Pacific/Honolulu").old


@pytest.mark.parametrize(
    "order",
    [
        {"wish": 1},
        {"forced": "head_ct"},
        {"calling_aes": ("CT1", "ER"), "priority_by_calling_ae": {"ER": 1}},
        {"calling_aes": ("ER",), "priority_by_calling_ae": {"ER": 3}},
    ],
)
def test_what_somebody_asked_for_is_fresh(order: dict[str, Any]) -> None:
    assert not revision_of(hours_ago(9000), **order).old


@pytest.mark.parametrize(
    "no_order", [{"wish": 2}, {"calling_aes": ("ARCHIVE",), "priority_by_calling_ae": {"ARCHIVE": 9, "ER": 0}}]
)
def test_a_rule_that_hurries_nothing_is_no_order(no_order: dict[str, Any]) -> None:
    assert revision_of(hours_ago(9000), **no_order).old


def test_the_future_is_a_warning_and_fresh() -> None:
    revision = revision_of(hours_ago(-3))
    assert not revision.old and revision.warnings == ["date_in_future"]
    assert revision_of(hours_ago(-0.1)).warnings == []
    assert revision_of(("acquisition", f"{NOW + timedelta(hours=9):%Y%m%d%H%M%S}")).warnings == [], "perhaps in Tokyo"


def test_an_old_study_rings_a_step_later() -> None:
    assert [on_broker(3, False), on_broker(3, True), on_broker(9, True)] == [3, 4, 9]
