"""Objects of images that break the standard's rules: what is left out, and why no object is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from firstread.records import Database
from firstread.settings import Settings
from tests.builders.result_objects import objects_of, read, validate
from tests.builders.scored_studies import Change, scored_study


def without(*keywords: str) -> Change:
    def change(ds: Dataset) -> None:
        for keyword in keywords:
            if keyword in ds:
                delattr(ds, keyword)

    return change


def test_sources_that_miss_attributes(site: tuple[Settings, Database]) -> None:
    change = without(
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
    )
    rows = objects_of(site, scored_study(site[1], site[0], change=change).job_id)
    for kind in ("sr", "sc"):
        assert validate(site[0].objects_dir / str(rows[kind].path)) == []
    assert rows["seg"].path is None
    assert rows["seg"].reason


def test_values_that_break_their_vr_are_left_empty(site: tuple[Settings, Database]) -> None:
    def change(ds: Dataset) -> None:
        ds.PatientBirthDate = "unknown"
        ds.PatientSex = "X"
        ds.StudyTime = "eight"
        ds.PatientAge = "old"

    with disable_value_validation():
        rows = objects_of(site, scored_study(site[1], site[0], change=change).job_id)
    for row in rows.values():
        assert validate(site[0].objects_dir / str(row.path)) == []
        ds = read(site, row)
        assert not ds.PatientSex
        assert not ds.StudyTime
    assert "dropped_StudyTime" in rows["sr"].notes


@pytest.mark.parametrize(
    ("keyword", "value", "reasons"),
    [
        ("StudyInstanceUID", "ID_f10de2d018", {"sr": "illegal_study_uid", "seg": "illegal_study_uid"}),
        ("SOPInstanceUID", "ID_f10de2d018", {"sr": "illegal_source_uid", "seg": "illegal_source_uid"}),
        ("SOPClassUID", "", {"sr": "no_sop_class", "seg": "no_sop_class"}),
    ],
)
def test_a_source_that_cannot_be_referenced_says_so(
    site: tuple[Settings, Database], keyword: str, value: str, reasons: dict[str, str]
) -> None:
    def change(ds: Dataset) -> None:
        if value:
            setattr(ds, keyword, value)
        else:
            delattr(ds, keyword)

    with disable_value_validation():
        scored = scored_study(site[1], site[0], n=1, change=change)
    rows = objects_of(site, scored.job_id)
    assert {kind: rows[kind].reason for kind in reasons} == reasons
    if keyword == "StudyInstanceUID":
        assert rows["sc"].reason == "illegal_study_uid"
    else:
        assert validate(site[0].objects_dir / str(rows["sc"].path)) == []


def test_two_patients_in_one_series_make_no_object(site: tuple[Settings, Database]) -> None:
    def change(ds: Dataset) -> None:
        ds.PatientID = f"P{ds.InstanceNumber % 2}"

    rows = objects_of(site, scored_study(site[1], site[0], change=change).job_id)
    assert {row.reason for row in rows.values()} == {"patient_mismatch"}


def test_a_deleted_source_is_a_reason(site: tuple[Settings, Database]) -> None:
    scored = scored_study(site[1], site[0])
    for path in site[0].spool_dir.rglob("*.dcm"):
        path.unlink()
    assert {row.reason for row in objects_of(site, scored.job_id).values()} == {"source_deleted"}


def _raw(**values: str) -> Callable[[Dataset], None]:
    """Set elements to bytes as they stand in a file, whatever their VR allows."""

    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            data = value.replace("Z", str(5.0 * int(ds.InstanceNumber))).encode()
            data += b" " * (len(data) % 2)
            tag = Tag(keyword)
            ds._dict[tag] = RawDataElement(tag, dictionary_VR(tag), len(data), data, 0, False, True)

    return change


ODD_NUMBERS = {
    "position": _raw(ImagePositionPatient="-115.19999999999999\\-115.19999999999999\\Z"),
    "orientation": _raw(ImageOrientationPatient="1\\0\\0\\0\\0.98481775301220805\\-0.17364817766693033"),
    "spacing": _raw(PixelSpacing="0.58789062500000000\\0.58789062500000000"),
    "long thickness": _raw(SliceThickness="4.9999999999999999999"),
    "negative thickness": _raw(SliceThickness="-5", SpacingBetweenSlices="-5"),
    "no number": _raw(SliceThickness="NaN"),
    "big integers": _raw(InstanceNumber="20260102030405", AcquisitionNumber="99999999999999999999"),
}


@pytest.mark.parametrize("name", sorted(ODD_NUMBERS))
def test_numbers_that_no_vr_holds_cost_no_object(site: tuple[Settings, Database], name: str) -> None:
    rows = objects_of(site, scored_study(site[1], site[0], change=ODD_NUMBERS[name]).job_id)
    assert {row.reason for row in rows.values()} == {None}
    assert validate(site[0].objects_dir / str(rows["seg"].path)) == []
    seg = read(site, rows["seg"])
    (place,) = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    expected = -115.2 if name == "position" else -32.0
    assert [float(mm) for mm in place.ImagePositionPatient] == pytest.approx([expected, expected, 10.0])
    (measures,) = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SliceThickness) == pytest.approx(5)


@pytest.mark.parametrize(
    "change",
    [
        _raw(ImagePositionPatient="nan\\nan\\Z"),
        _raw(ImageOrientationPatient="0\\0\\0\\0\\0\\0"),
        _raw(PixelSpacing="0,5\\0,5"),
    ],
)
def test_a_slice_that_does_not_say_where_it_lies_has_no_outline(
    site: tuple[Settings, Database], change: Callable[[Dataset], None]
) -> None:
    rows = objects_of(site, scored_study(site[1], site[0], change=change).job_id)
    assert {kind: row.reason for kind, row in rows.items()} == {"sr": None, "sc": None, "seg": "no_geometry"}
