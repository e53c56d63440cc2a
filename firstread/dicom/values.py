"""Values of elements as plain text and numbers, whatever a header holds in their place."""

from __future__ import annotations

import math
import struct
import zlib
from functools import cache
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag
from pydicom.valuerep import format_number_as_ds

from firstread.dicom.elements import base_tag

PARSE_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on bytes that are not a valid data set."""

BIGGEST: Final = 2**31 - 1
"""Largest integer of a column, and of an Integer String (PS3.5 table 6.2-1)."""


def value_of(ds: Dataset, keyword: str) -> Any:
    """The value of an element as pydicom builds it, None where it is absent; what pydicom raises is raised.

    Several times as fast as asking a data set by the keyword.
    """
    element = ds.get(_tag_of(keyword))
    return None if element is None else element.value


@cache
def _tag_of(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no keyword of an element")
    return base_tag(tag)


def text(ds: Dataset, keyword: str, limit: int = 256) -> str:
    """An element as clean text: no padding, no control characters, at most ``limit`` characters.

    Empty where the element is absent, empty, or holds what its VR cannot mean.
    """
    try:
        value = value_of(ds, keyword)
    except PARSE_ERRORS:
        return ""
    if value is None:
        return ""
    many = not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") and not hasattr(value, "components")
    joined = "\\".join(str(part) for part in value) if many else str(value)
    clean = joined if joined.isprintable() else "".join(c for c in joined if c.isprintable())
    return clean.strip()[:limit]


class BadNumber(ValueError):
    """An element that should hold numbers and does not. The message names the element, never its value."""

    def __init__(self, keyword: str) -> None:
        super().__init__(f"{keyword} is not a number")
        self.keyword = keyword


def each_number(ds: Dataset, keyword: str) -> tuple[float, ...]:
    """All values of an element as finite floats; none where it is absent or empty.

    Raises
    ------
    BadNumber
        If it is there and says something that is not a number, such as a DS with a decimal comma.
    """
    tag = _tag_of(keyword)
    if tag not in ds:
        return ()
    try:
        value = ds[tag].value
        if value is None or (hasattr(value, "__len__") and not len(value)):
            return ()
        many = value if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) else [value]
        values = tuple(float(part) for part in many)
    except PARSE_ERRORS as error:
        raise BadNumber(keyword) from error
    if not all(part - part == 0.0 for part in values):
        raise BadNumber(keyword)
    return values


def strict_number(ds: Dataset, keyword: str) -> float | None:
    """First value of an element as a finite float, None where it is absent or empty; raises :class:`BadNumber`."""
    values = each_number(ds, keyword)
    return values[0] if values else None


def number(ds: Dataset, keyword: str) -> float | None:
    """First value of an element as a finite float, or None, also where it is no number.

    For what decides pixels there is :func:`strict_number`.
    """
    try:
        value = value_of(ds, keyword)
        if value is None or value == "":
            return None
        if not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__getitem__"):
            value = value[0]
        result = float(value)
    except PARSE_ERRORS:
        return None
    return result if result - result == 0.0 else None


def numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite floats of a multi-valued element, or None."""
    try:
        value = value_of(ds, keyword)
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) != count:
            return None
        result = tuple(float(part) for part in value)
    except PARSE_ERRORS:
        return None
    return result if all(part - part == 0.0 for part in result) else None


def integer(ds: Dataset, keyword: str) -> int | None:
    """First value of an element as an integer of any size, or None: time stamps of 20 digits keep all of them."""
    try:
        value = value_of(ds, keyword)
        return int(str(getattr(value, "original_string", value)))
    except PARSE_ERRORS:
        rounded = number(ds, keyword)
    return None if rounded is None else int(rounded)


def small_integer(ds: Dataset, keyword: str) -> int | None:
    """:func:`integer` where it fits a column of 32 bits, else None."""
    value = integer(ds, keyword)
    return value if value is not None and abs(value) <= BIGGEST else None


def decimal_string(value: float) -> str:
    """A finite number as a Decimal String (PS3.5 table 6.2-1), rounded to what 16 characters hold.

    Raises
    ------
    ValueError
        For NaN and infinities.
    """
    if not math.isfinite(value):
        raise ValueError("no Decimal String holds this")
    shortest = repr(float(value)).removesuffix(".0")
    return shortest if len(shortest) <= 16 else format_number_as_ds(float(value))
