"""When images were made: the dates and times of a header as moments, with what is not known of them left open."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from pydicom.dataset import Dataset

from firstread.dicom.values import text

KINDS: Final = ("acquisition", "content", "series", "study")
"""Whose date counts, the best first: one of a study's images that names a better one makes all others count less."""

EARLIEST_YEAR: Final = 1972
"""No scanner is older than the first CT (1971): earlier years come from de-identification or a dead clock."""

MOST_WEST, MOST_EAST = timedelta(hours=-12), timedelta(hours=14)
"""Offsets from UTC that are in use (PS3.3 C.12.1.1.8)."""

_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_DATE = re.compile(r"(\d{4})[.\-/]?(\d\d)[.\-/]?(\d\d)")
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.\d{1,6})?")
_DATETIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.\d{1,6})?([+-]\d{4})?")
_HAS_OFFSET = re.compile(r"[+-]\d{4}$")
_PARTS: Final = (4, 6, 8, 10, 12, 14)


@dataclass(frozen=True)
class CreationTime:
    """When an image says that it was made.

    Attributes
    ----------
    kind : str
        One of ``KINDS``.
    at : str
        A DT of PS3.5 section 6.2: as many digits as are known, then the offset from UTC where that is known.
    """

    kind: str
    at: str


@dataclass(frozen=True)
class Span:
    """The first and last second that a date may mean, aware, in UTC."""

    first: datetime
    last: datetime


def offset_of(value: str) -> timezone | None:
    """Offset from UTC of a Timezone Offset From UTC (0008,0201), PS3.3 C.12.1.1.8; None where it is not one."""
    match = _OFFSET.fullmatch(value.strip())
    if match is None:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3])) * (-1 if match[1] == "-" else 1)
    if int(match[3]) > 59 or not MOST_WEST <= delta <= MOST_EAST:
        return None
    return timezone(delta)


def offset_text(zone: tzinfo, at: datetime) -> str:
    """The offset of a zone at a moment as (0008,0201) wants it: ``+0100``; whole minutes, never ``-0000``."""
    minutes = round((at.astimezone(zone).utcoffset() or timedelta()).total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


def offset_at(zone: tzinfo, day: str, time: str) -> timezone | None:
    """Offset of a zone at a local date (DA) and time (TM) of PS3.5 section 6.2; noon where the time is not valid.

    None where the date is not valid. An hour that the clock shows twice is the first one.
    """
    digits = re.match(r"\d{0,6}", time)
    for at in (day + (digits[0] if digits else ""), day + "12"):
        first, _ = _ends(at)
        if first is not None:
            local = first.replace(tzinfo=zone)
            return offset_of(offset_text(zone, local))
    return None


def creation_time_of(ds: Dataset) -> CreationTime | None:
    """When an image was made: its acquisition, else its content, series or study; None where nothing readable says so.

    An Acquisition DateTime and an Acquisition Date and Time may stand beside each other; the newer one counts.
    """
    own = text(ds, "TimezoneOffsetFromUTC", 16)
    offset = own.replace(":", "") if offset_of(own) is not None else ""
    for kind in KINDS:
        candidates = [_pair(ds, kind.capitalize())]
        if kind == "acquisition":
            candidates.append(_datetime(text(ds, "AcquisitionDateTime", 32)))
        stamps = [at for at in candidates if at]
        if stamps:
            newest = max(stamps, key=lambda at: _HAS_OFFSET.sub("", at).ljust(14, "9"))
            return CreationTime(kind, newest if _HAS_OFFSET.search(newest) else newest + offset)
    return None


def span_of(at: str, zone: tzinfo | None) -> Span | None:
    """What a DT means: from its first to its last moment.

    Parameters
    ----------
    at : str
        As in :class:`CreationTime`.
    zone : tzinfo or None
        Where it names no offset itself. None leaves every offset that is in use open.
    """
    own = _HAS_OFFSET.search(at)
    offset = offset_of(own[0]) if own else None
    first, last = _ends(_HAS_OFFSET.sub("", at))
    if first is None or last is None:
        return None
    where = offset or zone
    try:
        if where is not None:
            return Span(first.replace(tzinfo=where).astimezone(UTC), last.replace(tzinfo=where).astimezone(UTC))
        return Span(first - MOST_EAST, last - MOST_WEST)
    except (OverflowError, ValueError):
        return None


def has_offset(at: str) -> bool:
    """Whether a DT names its offset from UTC."""
    return _HAS_OFFSET.search(at) is not None


def newest_of(images: Iterable[CreationTime], zone: tzinfo | None) -> Span | None:
    """When a study was made: the newest date of the best kind that any of its images has, or None."""
    spans: dict[str, list[Span]] = {}
    for created in images:
        span = span_of(created.at, zone)
        if span is not None:
            spans.setdefault(created.kind, []).append(span)
    best = next((spans[kind] for kind in KINDS if kind in spans), None)
    return max(best, key=lambda span: span.last) if best else None


def _ends(digits: str) -> tuple[datetime | None, datetime | None]:
    """First and last moment that digits mean on a clock whose zone is to be put in their place."""
    if len(digits) not in _PARTS or not digits.isdecimal():
        return None, None
    parts = [int(digits[:4]), *(int(digits[n : n + 2]) for n in range(4, len(digits), 2))]
    if len(parts) == 6:
        parts[5] = min(parts[5], 59)  # a leap second
    try:
        year, month, day, hour, minute, second = parts + [1, 1, 0, 0, 0][len(parts) - 1 :]
        first = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if len(parts) == 1:
            after = first.replace(year=first.year + 1)
        elif len(parts) == 2:
            after = (first + timedelta(days=31)).replace(day=1)
        else:
            after = first + {3: timedelta(days=1), 4: timedelta(hours=1), 5: timedelta(minutes=1)}.get(
                len(parts), timedelta(seconds=1)
            )
    except (OverflowError, ValueError):
        return None, None
    return first, after - timedelta(seconds=1)


def _plausible(digits: str) -> str:
    first, _ = _ends(digits)
    return digits if first is not None and first.year >= EARLIEST_YEAR else ""


def _pair(ds: Dataset, name: str) -> str:
    """Date and time of a level as digits; empty where there is no date. ACR-NEMA's points and colons are read."""
    date = _DATE.fullmatch(text(ds, f"{name}Date", 16))
    if date is None:
        return ""
    time = _TIME.fullmatch(text(ds, f"{name}Time", 32))
    whole = "".join(date.groups()) + ("".join(part or "" for part in time.groups()) if time else "")
    return _plausible(whole) or _plausible(whole[:8])


def _datetime(value: str) -> str:
    match = _DATETIME.fullmatch(value)
    if match is None:
        return ""
    digits = _plausible("".join(part or "" for part in match.groups()[:6]))
    suffix = match[7] or ""
    return digits + (suffix if offset_of(suffix) is not None else "") if digits else ""
