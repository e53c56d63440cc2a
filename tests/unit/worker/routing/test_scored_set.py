"""When two revisions hold the same pictures for a pipeline, and when they do not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.datadict import keyword_dict
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from firstread.dicom.datasets import read_dataset
from tests.builders.listening import small_series
from tests.builders.stored_images import image_header
from worker.pipelines import registry
from worker.pipelines.base import StoredInstance, StudyImages
from worker.routing.scored_set import _NAMED, Change, compare, counts, identity_of, scored_images

ROOT = Path(__file__).resolve().parents[4]
HEAD = registry.row("head_ct")
KEYS = iter(range(1, 10_000))

READ_AND_NOT_COUNTED = {
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "AccessionNumber", "StudyDate"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "MediaStorageSOPClassUID", "TransferSyntaxUID"),
    *("MediaStorageSOPInstanceUID", "Manufacturer", "ManufacturerModelName", "StationName"),
    *("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "HighBit", "PixelRepresentation"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("TimezoneOffsetFromUTC", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "ContentDate"),
    *("ContentTime", "SeriesDate", "SeriesTime", "StudyTime", "CodeMeaning", "CodeValue", "CodingSchemeDesignator"),
    *("DirectoryRecordSequence", "MediaStorageSOPClassUID", "SourceApplicationEntityTitle"),
}
"""Who and when; how the pixels are packed, which the decoded pixels tell; and what only intake reads."""


def stored(folder: Path, objects: list[Dataset]) -> tuple[StoredInstance, ...]:
    """Objects as files, each with a key of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    instances = []
    for ds in objects:
        key = next(KEYS)
        path = folder / f"{key}.dcm"
        ds.save_as(path)
        instances.append(
            StoredInstance(key, path, read_dataset(path), ds.SOPInstanceUID, ds.SeriesInstanceUID, str(ds.SOPClassUID))
        )
    return tuple(instances)


def images(n: int = 3, size: int = 32) -> list[Dataset]:
    series = small_series(n, size)
    rng = np.random.default_rng(3)
    for ds in series:
        ds.PixelData = rng.integers(0, 900, (size, size)).astype(np.int16).tobytes()
    return series


def changed(tmp_path: Path, change: Any, n: int = 3) -> Change:
    """What :func:`compare` says after ``change`` was done to copies of every image."""
    before = images(n)
    after = copy.deepcopy(before)
    change(after)
    return compare(stored(tmp_path / "a", before), stored(tmp_path / "b", after))


def encoded(syntax: UID, **options: Any) -> Any:
    def change(objects: list[Dataset]) -> None:
        for ds in objects:
            if syntax.is_encapsulated:
                ds.compress(syntax, generate_instance_uid=False, **options)
            else:
                if syntax == ExplicitVRBigEndian:
                    ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
                ds.file_meta.TransferSyntaxUID = syntax

    return change


@pytest.mark.parametrize(
    "syntax",
    [RLELossless, JPEGLSLossless, JPEG2000Lossless, ImplicitVRLittleEndian, ExplicitVRBigEndian],
    ids=lambda uid: uid.name,
)
def test_another_encoding_without_loss_is_the_same_set(syntax: UID, tmp_path: Path) -> None:
    assert changed(tmp_path, encoded(syntax)) is Change.NONE


def test_a_lossy_encoding_is_another_set(tmp_path: Path) -> None:
    assert changed(tmp_path, encoded(JPEGLSNearLossless, jls_error=4)) is Change.IMAGES


def _put(keyword: str, value: Any, only: slice = slice(None)) -> Any:
    def change(objects: list[Dataset]) -> None:
        for ds in objects[only]:
            setattr(ds, keyword, value)

    return change


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("RescaleIntercept", -1000),
        ("SeriesDescription", "CTA"),
        ("ContrastBolusAgent", "IOPAMIDOL"),
        ("ImageType", ["DERIVED", "SECONDARY", "MIP"]),
        ("SliceThickness", 2.5),
        ("BodyPartExamined", "CHEST"),
        ("WindowCenter", 30),
        ("InstanceNumber", 77),
    ],
)
def test_what_selects_gates_or_scores_counts(keyword: str, value: Any, tmp_path: Path) -> None:
    assert changed(tmp_path, _put(keyword, value, slice(1))) is Change.IMAGES


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ReferringPhysicianName", "Storch^Adele"),
        ("InstitutionName", "Klinik"),
        ("RetrieveAETitle", "PACS"),
        ("OtherPatientIDs", "X"),
        ("StudyID", "77"),
        ("SliceThickness", "5.000"),
        ("PatientName", "Phantom^Head^^^"),
        ("OriginalAttributesSequence", Sequence([Dataset()])),
        ("ContributingEquipmentSequence", Sequence([Dataset()])),
    ],
)
def test_what_systems_on_the_way_write_counts_for_nothing(keyword: str, value: Any, tmp_path: Path) -> None:
    def change(objects: list[Dataset]) -> None:
        for ds in objects:
            if keyword == "PatientName":
                value_of = str(ds.PatientName) + "^^^"
                ds.PatientName = value_of
            else:
                setattr(ds, keyword, value)

    assert changed(tmp_path, change) is Change.NONE


def test_one_other_pixel_and_one_more_or_less_image_are_other_sets(tmp_path: Path) -> None:
    def pixel(objects: list[Dataset]) -> None:
        data = bytearray(objects[1].PixelData)
        data[40] ^= 1
        objects[1].PixelData = bytes(data)

    assert changed(tmp_path, pixel) is Change.IMAGES
    assert changed(tmp_path, lambda objects: objects.pop()) is Change.IMAGES
    assert changed(tmp_path, lambda objects: objects.reverse()) is Change.IMAGES, "the builder's order is the set's"


def test_pixels_that_cannot_be_read_are_never_the_same(tmp_path: Path) -> None:
    def cut(objects: list[Dataset]) -> None:
        objects[0].PixelData = objects[0].PixelData[:100]

    before = images()
    cut(before)
    after = copy.deepcopy(before)
    after[0].InstitutionName = "Klinik"
    assert compare(stored(tmp_path / "a", before), stored(tmp_path / "b", after)) is Change.IMAGES


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "CORRECT-1"),
        ("PatientName", "Somebody^Else"),
        ("PatientBirthDate", "19700102"),
        ("PatientSex", "F"),
        ("AccessionNumber", "ACC-9"),
    ],
)
def test_identity_in_all_and_in_part(keyword: str, value: str, tmp_path: Path) -> None:
    assert changed(tmp_path / "all", _put(keyword, value)) is Change.IDENTITY
    assert changed(tmp_path / "part", _put(keyword, value, slice(2))) is Change.IDENTITY_IN_PART


def test_the_rest_of_a_correction_makes_one_identity(tmp_path: Path) -> None:
    half = images()
    _put("PatientID", "CORRECT-1", slice(2))(half)
    whole = copy.deepcopy(half)
    _put("PatientID", "CORRECT-1")(whole)
    before = stored(tmp_path / "a", half)
    after = (*before[:2], *stored(tmp_path / "b", whole[2:]))
    assert compare(before, after) is Change.IDENTITY


def test_equal_bytes_are_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored(tmp_path, images())
    monkeypatch.setattr("worker.routing.scored_set.iter_frames", lambda *_, **__: pytest.fail("decoded"))
    assert compare(before, before) is Change.NONE


def test_comparing_reports_progress_and_ends_in_time(tmp_path: Path) -> None:
    before = images()
    after = copy.deepcopy(before)
    encoded(RLELossless)(after)
    pairs = stored(tmp_path / "a", before), stored(tmp_path / "b", after)
    touched: list[int] = []
    assert compare(*pairs, touch=lambda: touched.append(1)) is Change.NONE
    assert len(touched) >= 2 * len(before), "also between the frames of a large object"
    assert compare(*pairs, limit_s=-1.0) is Change.IMAGES


def test_the_set_is_what_the_pipeline_chooses_from(tmp_path: Path) -> None:
    """A late localizer, dose report or report is not looked at; a late series of slices is."""
    uid = "1.2.3"

    def series(kind: str, name: str, n: int, **values: Any) -> list[Dataset]:
        slices = []
        for number in range(1, n + 1):
            ds = image_header(kind, number, uid)
            ds.SeriesInstanceUID, ds.SOPInstanceUID = f"1.2.3.{name}", f"1.2.3.{name}.{number}"
            for keyword, value in values.items():
                setattr(ds, keyword, value)
            slices.append(ds)
        return slices

    def chosen(*parts: list[Dataset]) -> list[tuple[str, str]]:
        instances = tuple(
            StoredInstance(
                next(KEYS), tmp_path, ds, ds.SOPInstanceUID, ds.SeriesInstanceUID, str(ds.get("SOPClassUID", ""))
            )
            for part in parts
            for ds in part
        )
        return [(i.SeriesInstanceUID, i.SOPInstanceUID) for i in scored_images(HEAD, StudyImages(uid, 1, instances))]

    plain = series("ct", "1", 10)
    alone = chosen(plain)
    assert len(alone) == 10
    localizer = series("ct", "2", 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    dose_picture = series("sc", "3", 1, SeriesDescription="Dose Report", BitsStored=8)
    report = Dataset()
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.67", "SR"
    report.SeriesInstanceUID, report.SOPInstanceUID = "1.2.3.4", "1.2.3.4.1"
    assert chosen(plain, localizer, dose_picture, [report]) == alone
    assert chosen([report], localizer, plain) == alone, "the order of arrival says nothing"
    assert len(chosen(plain, series("ct", "5", 9))) == 19
    assert chosen(localizer, [report]) == [("1.2.3.2", "1.2.3.2.1")], "of nothing suitable all images count"


def test_every_attribute_that_is_read_for_scoring_counts() -> None:
    """Whoever makes a pipeline look at one more attribute learns here that it belongs to the scored set."""
    read: set[str] = set()
    modules = ("frames", "geometry", "pixels/hounsfield", "pixels/reading", "pixels/colour", "modality")
    files = [*(ROOT / "worker/pipelines").rglob("*.py"), *(ROOT / "firstread/dicom" / f"{m}.py" for m in modules)]
    for file in files:
        source = file.read_text(encoding="utf-8")
        words = re.findall(r"[\"']([A-Z]\w+)[\"']", source) + re.findall(r"\bds\.([A-Z]\w+)", source)
        read |= {word for word in words if word in keyword_dict}
    inside = {"CTImageFrameTypeSequence", "FrameType", "PlaneOrientationSequence", "PlanePositionSequence"}
    missed = set()
    for keyword in read - READ_AND_NOT_COUNTED - inside:
        ds = Dataset()
        ds.add_new(keyword, "LO", "x")
        if not counts(ds[keyword]):
            missed.add(keyword)
    assert not missed, f"add them to worker/routing/scored_set.py: {sorted(missed)}"
    assert {"SliceThickness", "RescaleSlope", "Modality"} <= read
    assert all(keyword in keyword_dict for keyword in _NAMED)


def test_a_copy_without_identity_corrects_nothing(tmp_path: Path) -> None:
    def emptied(objects: list[Dataset]) -> None:
        for ds in objects:
            ds.PatientName = ds.PatientID = ds.AccessionNumber = ""

    assert changed(tmp_path, emptied) is Change.NONE


def test_case_and_empty_components_of_a_name_say_nothing() -> None:
    one, other = Dataset(), Dataset()
    one.PatientName, other.PatientName = "Doe^Jane", "DOE^JANE^^^"
    assert identity_of(one) == identity_of(other)
