"""When images were made: headers of many kinds, zones, and what is left open."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from firstread.dicom.dates import CreationTime, creation_time_of, newest_of, offset_at, offset_of, offset_text, span_of

BERLIN = ZoneInfo("Europe/Berlin")


def header(**values: str) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("values", "kind", "at"),
    [
        ({"AcquisitionDate": "20190304", "AcquisitionTime": "101112.500"}, "acquisition", "20190304101112"),
        ({"AcquisitionDateTime": "20190304101112.123456-0500"}, "acquisition", "20190304101112-0500"),
        ({"AcquisitionDateTime": "2019"}, "acquisition", "2019"),
        ({"AcquisitionDateTime": "20190304", "AcquisitionDate": "20190305"}, "acquisition", "20190305"),
        ({"ContentDate": "20190304", "StudyDate": "20200101"}, "content", "20190304"),
        ({"SeriesDate": "20190304", "SeriesTime": "10"}, "series", "2019030410"),
        ({"StudyDate": "20190304", "StudyTime": "1011"}, "study", "201903041011"),
        ({"StudyDate": "20190304", "TimezoneOffsetFromUTC": "+0530"}, "study", "20190304+0530"),
        ({"StudyDate": "20190304", "TimezoneOffsetFromUTC": "+9900"}, "study", "20190304"),
        ({"AcquisitionDateTime": "20190304-0800", "TimezoneOffsetFromUTC": "+0100"}, "acquisition", "20190304-0800"),
        # a time without sense leaves the day
        ({"StudyDate": "20190304", "StudyTime": "996199"}, "study", "20190304"),
    ],
)
def test_the_best_date_that_a_header_has(values: dict[str, str], kind: str, at: str) -> None:
    assert creation_time_of(header(**values)) == CreationTime(kind, at)


def test_dates_of_acr_nema_and_with_colons() -> None:
    ds = Dataset()
    ds.add_new(0x00080020, "LO", "2019.03.04")
    ds.add_new(0x00080030, "LO", "10:11:12")
    assert creation_time_of(ds) == CreationTime("study", "20190304101112")


@pytest.mark.parametrize(
    "values",
    [{}, {"StudyDate": ""}, {"StudyDate": "19000101"}, {"StudyDate": "00010101"}, {"AcquisitionDateTime": "1899"}],
)
def test_no_date_and_those_of_deidentification_are_none(values: dict[str, str]) -> None:
    assert creation_time_of(header(**values)) is None


def test_a_placeholder_of_one_level_gives_way_to_the_next() -> None:
    assert creation_time_of(header(AcquisitionDate="19000101", StudyDate="20190304")) == CreationTime(
        "study", "20190304"
    )


@pytest.mark.parametrize(("at", "offset"), [("20260715120000", 2), ("20260115120000", 1)])
def test_the_site_zone_knows_summer_time(at: str, offset: int) -> None:
    span = span_of(at, BERLIN)
    assert span is not None
    assert span.first == datetime(int(at[:4]), int(at[4:6]), 15, 12 - offset, tzinfo=UTC)
    assert span.last == span.first


def test_an_own_offset_goes_before_the_site_zone() -> None:
    span = span_of("20260715120000-0500", BERLIN)
    assert span is not None and span.first == datetime(2026, 7, 15, 17, tzinfo=UTC)


def test_without_a_zone_every_offset_stays_possible() -> None:
    span = span_of("20260715120000", None)
    assert span is not None
    assert span.first == datetime(2026, 7, 14, 22, tzinfo=UTC)
    assert span.last == datetime(2026, 7, 16, 0, 0, 0, tzinfo=UTC)


def test_days_months_and_years_mean_their_whole_length() -> None:
    for at, end in (("20260228", (2026, 2, 28)), ("202602", (2026, 2, 28)), ("2026", (2026, 12, 31))):
        span = span_of(at, UTC)
        assert span is not None and span.last == datetime(*end, 23, 59, 59, tzinfo=UTC)


@given(st.text(alphabet="0123456789+-.:", max_size=26), st.sampled_from(["AcquisitionDateTime", "StudyDate"]))
def test_whatever_stands_there_is_a_span_or_nothing(value: str, keyword: str) -> None:
    ds = Dataset()
    ds.add_new(keyword, "LO", value)
    created = creation_time_of(ds)
    if created is not None:
        span = span_of(created.at, None)
        assert span is None or span.first <= span.last


def test_the_newest_of_the_best_kind_counts() -> None:
    images = [
        CreationTime("acquisition", "20190304"),
        CreationTime("acquisition", "20190305"),
        CreationTime("content", "20261128"),
    ]
    span = newest_of(images, UTC)
    assert span is not None and span.first == datetime(2019, 3, 5, tzinfo=UTC)
    assert newest_of([], UTC) is None


def test_offsets_as_the_standard_writes_them() -> None:
    summer, winter = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert [offset_text(BERLIN, at) for at in (summer, winter)] == ["+0200", "+0100"]
    assert offset_text(ZoneInfo("Asia/Kolkata"), summer) == "+0530"
    assert offset_text(ZoneInfo("America/St_Johns"), winter) == "-0330"
    assert offset_text(UTC, winter) == "+0000"
    for text in ("+0100", "-0330", "+0000", "+14:00"):
        assert offset_of(text) is not None
    for text in ("", "0100", "+1500", "-1300", "+0170", "CET"):
        assert offset_of(text) is None


@pytest.mark.parametrize(
    ("day", "time", "offset"),
    [
        ("20260715", "120000", "+0200"),
        ("20260115", "", "+0100"),
        ("20260329", "015900", "+0100"),
        ("20260329", "030000.123", "+0200"),
        ("20261025", "023000", "+0200"),
        ("20260715", "996199", "+0200"),
        ("", "120000", None),
        ("2026-07-15", "", None),
    ],
)
def test_the_offset_of_a_local_day(day: str, time: str, offset: str | None) -> None:
    offset_found = offset_at(BERLIN, day, time)
    assert (offset_text(offset_found, datetime(2026, 1, 1, tzinfo=UTC)) if offset_found else None) == offset
