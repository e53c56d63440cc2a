"""Numbers of headers: as large as they come, as columns take them, and as Decimal Strings."""

from __future__ import annotations

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import DSfloat

from firstread.dicom.values import decimal_string, integer, small_integer


def _with(raw: bytes) -> Dataset:
    ds = Dataset()
    tag = Tag("InstanceNumber")
    ds._dict[tag] = RawDataElement(tag, "IS", len(raw), raw, 0, False, True)
    return ds


@pytest.mark.parametrize(
    ("raw", "exact", "small"),
    [
        (b"7 ", 7, 7),
        (b"-5", -5, -5),
        (b"2147483647", 2147483647, 2147483647),
        (b"2147483648", 2147483648, None),
        (b"20260102030405", 20260102030405, None),
        (b"9999999999999999999901", 9999999999999999999901, None),
        (b"12.5", 12, 12),
        (b"1\\2", 1, 1),
        (b"abc", None, None),
        (b"", None, None),
    ],
)
def test_integers(raw: bytes, exact: int | None, small: int | None) -> None:
    assert (integer(_with(raw), "InstanceNumber"), small_integer(_with(raw), "InstanceNumber")) == (exact, small)


@pytest.mark.parametrize(
    "value", [-115.19999999999999, 1 / 3, -1e-100 / 3, 123456789012345678.0, 5.0, -0.00012345678901]
)
def test_a_decimal_string_has_16_characters_at_most(value: float) -> None:
    text = decimal_string(value)
    assert len(text) <= 16 and float(text) == pytest.approx(value, rel=1e-8)
    assert DSfloat(text) == float(text)


def test_there_is_no_decimal_string_for_what_is_no_number() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            decimal_string(value)
