"""Numbers of headers as the database and DICOM objects can hold them."""

from __future__ import annotations

import math
from typing import Final

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from firstread.dicom.datasets import PARSE_ERRORS, number

BIGGEST: Final = 2**31 - 1
"""Largest integer of a column, and of an Integer String (PS3.5 table 6.2-1)."""


def integer(ds: Dataset, keyword: str) -> int | None:
    """First value of an element as an integer of any size, or None: time stamps of 20 digits keep all of them."""
    try:
        value = ds.get(keyword)
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
