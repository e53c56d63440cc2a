"""Values of elements as plain text and numbers, whatever a header holds in their place."""

from __future__ import annotations

import math
import re
import struct
import zlib
from functools import cache
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.sequence import Sequence
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

VALUE_ERRORS: Final = (*PARSE_ERRORS, OSError)
"""The same for the value of one element, whose bytes are in memory: a sequence that ends early is an ``OSError``."""

_PLAIN_TEXTS: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UI"})
_PLAIN_VRS: Final = _PLAIN_TEXTS | {"IS"}
_SPECIAL: Final = re.compile(rb"[^ -}]|\\")
"""What makes a value more than one, or its meaning depend on a character set (PS3.5 section 6.1)."""

_DECIMAL: Final = rb" *[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? *"
_DECIMALS: Final = re.compile(rb"%b(?:\\%b)*" % (_DECIMAL, _DECIMAL))
"""Decimal Strings, each as the standard has it (PS3.5 table 6.2-1)."""

_MOST_DECIMALS_BYTES: Final = 128
"""More values than this holds are no number or vector of a header."""

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


def _plain(ds: Dataset, keyword: str) -> tuple[str, bytes] | None:
    """VR and bytes of an element of one printable ASCII value that is still encoded.

    None for every other one: what has to be looked at more closely is left to pydicom, at ten times the cost.
    """
    try:
        raw = ds.get_item(_tag_of(keyword))
    except PARSE_ERRORS:  # an empty value of a VR that there is not
        return None
    if not isinstance(raw, RawDataElement):
        return None
    vr = raw.VR or _vr_of(keyword)
    value = raw.value.rstrip(b"\0") if isinstance(raw.value, bytes) else b""
    return None if not value or vr not in _PLAIN_VRS or _SPECIAL.search(value) else (vr, value)


def _encoded_numbers(ds: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Values of an element of DS or US that is still encoded, where nothing about it is doubtful; else None.

    pydicom gives the same numbers, at twenty times the cost.
    """
    raw = ds.get_item(_tag_of(keyword))
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        return None
    vr, value = raw.VR or _vr_of(keyword), raw.value
    if vr == "US" and len(value) == 2:
        return (float(int.from_bytes(value, "little" if raw.is_little_endian else "big")),)
    if vr != "DS" or len(value) > _MOST_DECIMALS_BYTES or not _DECIMALS.fullmatch(value):
        return None
    found = tuple(float(part) for part in value.split(b"\\"))
    return found if all(part - part == 0.0 for part in found) else None


@cache
def _vr_of(keyword: str) -> str:
    return str(dictionary_VR(_tag_of(keyword)))


def text(ds: Dataset, keyword: str, limit: int = 256) -> str:
    """An element as clean text: no padding, no control characters, at most ``limit`` characters.

    Empty where the element is absent, empty, or holds what its VR cannot mean.
    """
    plain = _plain(ds, keyword)
    if plain is not None and plain[0] in _PLAIN_TEXTS:
        return plain[1].decode("ascii").strip()[:limit]
    try:
        value = value_of(ds, keyword)
    except VALUE_ERRORS:
        return ""
    if value is None or isinstance(value, Sequence):
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
    encoded = _encoded_numbers(ds, keyword)
    if encoded is not None:
        return encoded
    tag = _tag_of(keyword)
    if tag not in ds:
        return ()
    try:
        value = ds[tag].value
        if value is None or (hasattr(value, "__len__") and not len(value)):
            return ()
        many = value if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) else [value]
        values = tuple(float(part) for part in many)
    except VALUE_ERRORS as error:
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
    plain = _plain(ds, keyword)
    if plain is not None and plain[0] == "IS" and (digits := plain[1].strip()).isdigit() and len(digits) < 10:
        return float(digits)
    encoded = _encoded_numbers(ds, keyword)
    if encoded is not None:
        return encoded[0]
    try:
        value = value_of(ds, keyword)
        if value is None or value == "":
            return None
        if not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__getitem__"):
            value = value[0]
        result = float(value)
    except VALUE_ERRORS:
        return None
    return result if result - result == 0.0 else None


def numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite floats of a multi-valued element, or None."""
    encoded = _encoded_numbers(ds, keyword)
    if encoded is not None:
        return encoded if len(encoded) == count > 1 else None
    try:
        value = value_of(ds, keyword)
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) != count:
            return None
        result = tuple(float(part) for part in value)
    except VALUE_ERRORS:
        return None
    return result if all(part - part == 0.0 for part in result) else None


def integer(ds: Dataset, keyword: str) -> int | None:
    """First value of an element as an integer of any size, or None: time stamps of 20 digits keep all of them."""
    plain = _plain(ds, keyword)
    if plain is not None and plain[0] == "IS" and (digits := plain[1].strip()).isdigit() and len(digits) < 20:
        return int(digits)
    try:
        value = value_of(ds, keyword)
        return int(str(getattr(value, "original_string", value)))
    except VALUE_ERRORS:
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
