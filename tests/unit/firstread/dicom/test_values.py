"""Numbers of headers: as large as they come, as columns take them, and as Decimal Strings."""

from __future__ import annotations

import warnings

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import DSfloat

from firstread.dicom.values import (
    BadNumber,
    decimal_string,
    each_number,
    integer,
    number,
    numbers,
    small_integer,
    text,
)


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


@pytest.mark.parametrize("is_implicit", [False, True])
@pytest.mark.parametrize(
    ("keyword", "vr", "raw"),
    [
        ("StudyInstanceUID", "UI", b"1.2.34\0"),
        ("StudyInstanceUID", "UI", b"ID_f10 \0\0"),
        ("PatientID", "LO", b" A 7 "),
        ("PatientID", "LO", b"A\\B "),
        ("PatientID", "LO", b"\x1b$B1\x1b(B"),
        ("PatientID", "LO", b"A\0B\tC"),
        ("PatientID", "LO", "Müller".encode("latin-1")),
        ("PatientID", "LO", b"~\\"),
        ("PatientID", "LO", b"\0\0"),
        ("PatientName", "PN", b"DOE^JOHN= "),
        ("Modality", "CS", b"CT"),
        ("Modality", "CS", b""),
        ("StudyDate", "DA", b"20260102"),
        ("StationName", "SH", b"x" * 70),
        ("InstanceNumber", "IS", b" 12 "),
        ("InstanceNumber", "IS", b"-3"),
        ("InstanceNumber", "IS", b"1.5 "),
        ("InstanceNumber", "IS", b"4\\5"),
        ("InstanceNumber", "IS", b"99999999999 "),
        ("InstanceNumber", "IS", b"abc "),
        ("Rows", "US", b"\0\2"),
        ("Rows", "US", b"12"),
    ],
)
def test_an_encoded_value_reads_as_the_one_that_pydicom_builds(
    keyword: str, vr: str, raw: bytes, is_implicit: bool
) -> None:
    tag = Tag(keyword)
    encoded = Dataset({tag: RawDataElement(tag, None if is_implicit else vr, len(raw), raw, 0, is_implicit, True)})
    built = Dataset({tag: RawDataElement(tag, None if is_implicit else vr, len(raw), raw, 0, is_implicit, True)})
    try:
        built[tag]
    except (TypeError, ValueError):  # neither way reads it
        assert text(encoded, keyword) == "" and number(encoded, keyword) is None
        return
    assert text(encoded, keyword, 64) == text(built, keyword, 64)
    assert number(encoded, keyword) == number(built, keyword)
    assert integer(encoded, keyword) == integer(built, keyword)


@pytest.mark.parametrize("is_implicit", [False, True])
@pytest.mark.parametrize("is_little", [False, True])
@pytest.mark.parametrize(
    ("keyword", "vr", "raw"),
    [
        ("SliceThickness", "DS", b"5"),
        ("SliceThickness", "DS", b" -4.8 "),
        ("SliceThickness", "DS", b"+.5"),
        ("SliceThickness", "DS", b"1,5 "),
        ("SliceThickness", "DS", b"1e400 "),
        ("SliceThickness", "DS", b"1e4\0"),
        ("SliceThickness", "DS", b"nan "),
        ("SliceThickness", "DS", b"  "),
        ("SliceThickness", "DS", b""),
        ("SliceThickness", "DS", b"1_0 "),
        ("SliceThickness", "DS", b"0.123456789012345678901234"),
        ("ImagePositionPatient", "DS", b"-125.5\\ 3.\\1E+2 "),
        ("ImagePositionPatient", "DS", b"-125.5\\3\\"),
        ("ImagePositionPatient", "DS", b"1\\2\\3\\4"),
        ("ImagePositionPatient", "DS", b"1\\x\\3 "),
        ("ImagePositionPatient", "DS", b"1\\2\\3\\" * 60 + b"4 "),
        ("Rows", "US", b"\2\0"),
        ("Rows", "US", b"\2\0\1\0"),
        ("Rows", "US", b"\2"),
        ("Rows", "US", b""),
    ],
)
def test_encoded_numbers_are_those_that_pydicom_builds(
    keyword: str, vr: str, raw: bytes, is_little: bool, is_implicit: bool
) -> None:
    tag = Tag(keyword)
    element = RawDataElement(tag, None if is_implicit else vr, len(raw), raw, 0, is_implicit, is_little)
    encoded, built = Dataset({tag: element}), Dataset({tag: element})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            built[tag]
        except Exception:  # noqa: BLE001  # neither way reads it
            assert number(encoded, keyword) is None and numbers(encoded, keyword, 3) is None
            return
        assert number(encoded, keyword) == number(built, keyword)
        assert numbers(encoded, keyword, 3) == numbers(built, keyword, 3)
        assert _strict(encoded, keyword) == _strict(built, keyword)


def _strict(ds: Dataset, keyword: str) -> object:
    try:
        return each_number(ds, keyword)
    except BadNumber as error:
        return str(error)


@pytest.mark.parametrize(
    "items",
    [
        b"\xfe\xff\x00\xe0\x0a\x00\x00\x00\x02\x00\x01\x00CT\x02\x00AB",  # of a VR that there is not
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff",  # ends within a tag
        b"",
    ],
)
def test_a_sequence_in_the_place_of_a_value_says_nothing(items: bytes) -> None:
    ds = Dataset()
    for keyword in ("StudyInstanceUID", "NumberOfFrames"):
        tag = Tag(keyword)
        ds._dict[tag] = RawDataElement(tag, "SQ", len(items), items, 0, False, True)
    assert text(ds, "StudyInstanceUID") == ""
    assert number(ds, "NumberOfFrames") is None and integer(ds, "NumberOfFrames") is None
