"""DICOM objects of a result: valid, deterministic, in the same study, and honest about what they are."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage
from sqlalchemy import delete, update

from firstread.dicom.datasets import read_dataset
from firstread.records import Database, Job, OutputObject, Result, Revision
from firstread.settings import Settings
from tests.builders.result_objects import objects_of, read, validate
from tests.builders.scored_studies import CLOSED_AT, scored_study, write_evidence
from tests.builders.site import database_in, settings_in
from tests.builders.stored_images import SECRET_ID, SECRET_NAME
from tests.builders.templates import template_digests
from worker.outputs.objects import capture, finishing, report, segmentation, source
from worker.outputs.objects.capture import display_orientation, frame_picture
from worker.outputs.objects.files import ensure_objects
from worker.pipelines.base import Evidence
from worker.pipelines.heatmap import picture
from worker.scoring.evidence import EvidenceStore


@pytest.mark.parametrize("pipeline", ["head_ct", "chest_xray", "dermoscopy"])
@pytest.mark.parametrize("probability", [0.93, 0.02])
def test_objects_pass_dciodvfy(site: tuple[Settings, Database], pipeline: str, probability: float) -> None:
    n = 4 if pipeline == "head_ct" else 1
    scored = scored_study(site[1], site[0], pipeline=pipeline, n=n, probability=probability)
    rows = objects_of(site, scored.job_id)
    expected = {"sr", "sc"} if pipeline == "chest_xray" else {"sr", "sc", "seg"}
    assert {kind for kind, row in rows.items() if row.path} == expected, {k: r.reason for k, r in rows.items()}
    for kind in expected:
        ds = read(site, rows[kind])
        assert validate(site[0].objects_dir / str(rows[kind].path)) == []
        assert ds.StudyInstanceUID == scored.study_uid
        assert (str(ds.PatientName), ds.PatientID, ds.AccessionNumber) == (SECRET_NAME, SECRET_ID, "A-100")
        assert ds.SeriesInstanceUID not in {rows[k].series_instance_uid for k in expected - {kind}}


def digits(ds: Dataset) -> list[str]:
    """Numbers of a report as they are written, in order."""
    texts: list[str] = []
    for item in ds.get("ContentSequence", []):
        texts += [str(value.NumericValue.original_string) for value in item.get("MeasuredValueSequence", [])]
        texts += digits(item)
    return texts


def test_report_says_what_was_found(site: tuple[Settings, Database]) -> None:
    scored = scored_study(site[1], site[0])
    with site[1].write() as session:
        session.execute(update(Result).where(Result.finding == "bleed_volume").values(value=107.700192))
        session.execute(update(Result).where(Result.finding == "epidural").values(probability=0.12345, threshold=0.5))
    row = objects_of(site, scored.job_id)["sr"]
    document = hd.sr.srread(site[0].objects_dir / str(row.path))
    assert document.VerificationFlag == "UNVERIFIED"
    assert document.PreliminaryFlag == "PRELIMINARY"
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    content = list(document.ContentSequence)
    texts = [i for i, item in enumerate(content) if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"]
    container = next(i for i, item in enumerate(content) if item.ValueType == "CONTAINER")
    assert max(texts) < container, "words come before numbers"
    assert [str(content[i].TextValue) for i in texts] == [
        "Suspected intracranial hemorrhage, flagged for early reading: certainty 93.0 %, threshold of the flag 50.0 %. "
        "The outlined volume is 108 mL.",
        "Not for diagnosis. A finding that is not flagged is not thereby excluded.",
    ]
    groups = _groups(document)
    names = [str(group.tracking_identifier) for group in groups]
    assert names == [
        "Intracranial hemorrhage",
        "Bleed volume",
        "Epidural hemorrhage (a hint, never flagged)",
        "Subdural hemorrhage (a hint, never flagged)",
    ]
    assert digits(read(site, row)) == ["93.0", "50.0", "108", "12.3", "40.0"]
    any_bleed, _, epidural, _ = groups
    assert "threshold" not in str(epidural) and not epidural.get_qualitative_evaluations()
    assert "bleed_net" in str(any_bleed)
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    referenced = document.get("PertinentOtherEvidenceSequence")
    assert len(evidence.ReferencedSOPSequence) == 4
    assert referenced is None


def _groups(document: Dataset) -> list[Any]:
    content = document.content
    assert isinstance(content, hd.sr.MeasurementReport)
    return list(content.get_image_measurement_groups())


def test_a_score_without_a_threshold_is_called_a_hint(site: tuple[Settings, Database]) -> None:
    scored = scored_study(site[1], site[0], pipeline="chest_xray", n=1, threshold=None)
    rows = objects_of(site, scored.job_id)
    document = hd.sr.srread(site[0].objects_dir / str(rows["sr"].path))
    comments = [str(item.TextValue) for item in document.ContentSequence if item.ValueType == "TEXT"]
    assert "Not flagged for pneumonia, which is a hint at this age and has no threshold: certainty 93.0 %." in comments
    pneumonia = _groups(document)[0]
    assert str(pneumonia.tracking_identifier) == "Pneumonia (a hint, not flagged)"
    assert "threshold" not in str(pneumonia) and not pneumonia.get_qualitative_evaluations()
    for kind in ("sr", "sc"):
        assert validate(site[0].objects_dir / str(rows[kind].path)) == []


def test_segmentation_reads_back_where_it_lay(site: tuple[Settings, Database]) -> None:
    scored = scored_study(site[1], site[0])
    seg = hd.seg.segread(site[0].objects_dir / str(objects_of(site, scored.job_id)["seg"].path))
    source = seg.get_source_image_uids()
    assert len(source) == 1
    pixels = seg.get_pixels_by_source_instance([source[0][2]], combine_segments=True)
    expected = np.zeros((64, 64), bool)
    expected[20:40, 24:44] = True
    assert np.array_equal(pixels[0] > 0, expected)
    assert seg.FrameOfReferenceUID


NAMES = {"head_ct": "head CT", "chest_xray": "chest film", "dermoscopy": "skin lesion"}


@pytest.mark.parametrize("pipeline", NAMES)
def test_a_viewer_lists_what_each_object_is(site: tuple[Settings, Database], pipeline: str) -> None:
    scored = scored_study(site[1], site[0], pipeline=pipeline, n=2)
    rows = objects_of(site, scored.job_id)
    for kind, called in (("sr", "report"), ("seg", "outline"), ("sc", "heat map")):
        if rows[kind].path:
            expected = f"Firstread {NAMES[pipeline]}: {called} (not for diagnosis)"
            ds = read(site, rows[kind])
            assert ds.SeriesDescription == expected
            assert ds.get("ContentDescription", expected) == expected
            assert "no diagnosis" not in str(ds).lower()


def test_a_capture_is_the_evidence_picture_with_words_below(site: tuple[Settings, Database]) -> None:
    scored = scored_study(site[1], site[0])
    ds = read(site, objects_of(site, scored.job_id)["sc"])
    assert ds.PhotometricInterpretation == "RGB"
    assert ds.ImageComments == "Firstread head CT: heat map (not for diagnosis)"
    assert "diagnosis" not in ds.DerivationDescription
    assert list(ds.PatientOrientation) == ["L", "P"]
    pixels = ds.pixel_array
    assert pixels.shape[1] == 512 and pixels[512:].max() > 150, "lines below"


def test_side_letters_and_the_notice_stand_once_on_a_capture() -> None:
    grey = np.zeros((256, 256), np.uint8)
    evidence = picture(grey, None, ("any 0.93",))
    framed = frame_picture(evidence, ["Intracranial hemorrhage: 93.0 %"])
    assert np.array_equal(framed[: evidence.shape[0]], evidence)
    middle = evidence[evidence.shape[0] // 2 - 40 : evidence.shape[0] // 2 + 40]
    assert middle[:, :40].max() > 200 and middle[:, -40:].max() > 200, "R and L"
    assert middle[:, 60:-60].max() == 0, "and no second pair"


def test_the_picture_is_in_display_orientation_however_the_image_was_stored() -> None:
    header = Dataset()
    header.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
    assert display_orientation("head_ct", header, 0) == ("L", "P")
    header = Dataset()
    header.PatientOrientation = ["R", "F"]
    assert display_orientation("chest_xray", header, 0) == ("L", "F")
    assert display_orientation("dermoscopy", header, 0) is None
    assert display_orientation("head_ct", Dataset(), 0) is None


def test_no_side_is_marked_where_the_header_has_none(site: tuple[Settings, Database]) -> None:
    def change(ds: Dataset) -> None:
        del ds.PatientOrientation

    scored = scored_study(site[1], site[0], pipeline="chest_xray", n=1, change=change)
    row = objects_of(site, scored.job_id)["sc"]
    assert not read(site, row).PatientOrientation
    assert validate(site[0].objects_dir / str(row.path)) == []


def test_a_second_run_makes_the_same_bytes(site: tuple[Settings, Database], tmp_path: Path) -> None:
    scored = scored_study(site[1], site[0])
    first = objects_of(site, scored.job_id)
    data = {kind: (site[0].objects_dir / str(row.path)).read_bytes() for kind, row in first.items()}
    for row in first.values():
        (site[0].objects_dir / str(row.path)).unlink()
    time.sleep(1.1)  # a clock that shows in the bytes would have moved on
    again = objects_of(site, scored.job_id)
    for kind, row in again.items():
        assert row.sop_instance_uid == first[kind].sop_instance_uid
        assert (site[0].objects_dir / str(row.path)).read_bytes() == data[kind]


def test_a_changed_result_makes_new_objects(site: tuple[Settings, Database]) -> None:
    settings, db = site
    scored = scored_study(db, settings)
    first = {kind: row.sop_instance_uid for kind, row in objects_of(site, scored.job_id).items()}
    with db.write() as session:
        session.execute(update(Job).where(Job.id == scored.job_id).values(run=2))
        session.execute(update(Result).where(Result.job_id == scored.job_id).values(run=2))
    same = {kind: row.sop_instance_uid for kind, row in objects_of(site, scored.job_id).items()}
    assert same == first
    with db.write() as session:
        session.execute(update(Job).where(Job.id == scored.job_id).values(run=3, models=["bleed_net/2.0"]))
        session.execute(update(Result).where(Result.job_id == scored.job_id).values(run=3, model_version="2.0"))
    changed = {kind: row.sop_instance_uid for kind, row in objects_of(site, scored.job_id).items()}
    assert not set(changed.values()) & set(first.values())


def test_each_slice_of_an_outline_has_its_own_thickness(site: tuple[Settings, Database]) -> None:
    def change(ds: Dataset) -> None:
        ds.SliceThickness = 2.5 * int(ds.InstanceNumber)

    scored = scored_study(site[1], site[0], change=change, mask=False)
    with site[1].write() as session:
        path = write_evidence(site[0], scored.instance_ids, mask=True, every=True)
        session.execute(update(Job).values(evidence_path=path))
    rows = objects_of(site, scored.job_id)
    assert validate(site[0].objects_dir / str(rows["seg"].path)) == []
    thicknesses = {
        float(group.PlanePositionSequence[0].ImagePositionPatient[2]): float(
            group.PixelMeasuresSequence[0].SliceThickness
        )
        for group in read(site, rows["seg"]).PerFrameFunctionalGroupsSequence
    }
    assert thicknesses == {5.0: 2.5, 10.0: 5.0, 15.0: 7.5, 20.0: 10.0}


@pytest.mark.parametrize(
    ("zone", "image", "study_date", "offset", "time"),
    [
        ("Europe/Berlin", None, "20261120", "+0100", "093000"),
        ("Europe/Berlin", None, "20260715", "+0200", "103000"),
        ("Europe/Berlin", "-0500", "20261120", "-0500", "033000"),
        ("", "+0530", "20261120", "+0530", "140000"),
        ("Asia/Kathmandu", "+9900", "", "+0545", "141500"),
        ("", "CET", "20261120", None, None),
        ("", None, "20261120", None, None),
    ],
)
def test_objects_have_the_time_of_the_image_or_of_the_site(
    tmp_path: Path, zone: str, image: str | None, study_date: str, offset: str | None, time: str | None
) -> None:
    """One Timezone Offset From UTC rules the copied study times too, so it is that of the study's day."""
    site = settings_in(tmp_path, time_zone=zone), database_in(settings_in(tmp_path))

    def change(ds: Dataset) -> None:
        ds.StudyDate = study_date
        if image is not None:
            ds.add_new("TimezoneOffsetFromUTC", "SH", image)

    scored = scored_study(site[1], site[0], change=change)
    for row in objects_of(site, scored.job_id).values():
        ds = read(site, row)
        assert ds.get("TimezoneOffsetFromUTC") == offset
        assert (ds.StudyDate, ds.StudyTime) == (study_date, "081500")
        if time is not None:
            assert {ds.InstanceCreationTime, ds.ContentTime, ds.SeriesTime} == {time}
            assert validate(site[0].objects_dir / str(row.path)) == []


def test_what_changes_the_bytes_changes_the_uids(
    site: tuple[Settings, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PACS quarantines an object whose UID it knows with other bytes."""
    settings, db = site
    scored = scored_study(db, settings)
    seen: dict[str, str] = {}

    def make() -> None:
        with db.write() as session:
            session.execute(delete(OutputObject))
        for row in objects_of((settings, db), scored.job_id).values():
            assert seen.setdefault(str(row.sop_instance_uid), str(row.sha256)) == row.sha256
            assert seen.setdefault(str(row.series_instance_uid), str(row.sha256)) == row.sha256

    make()
    assert len(seen) == 6
    make()
    assert len(seen) == 6, "a second run makes the same"
    for module in (report, segmentation, capture):
        monkeypatch.setattr(module, "TEMPLATE_VERSION", 999)
    make()
    assert len(seen) == 12
    monkeypatch.setattr(finishing, "software_version", lambda: "99.9")
    make()
    assert len(seen) == 18
    monkeypatch.setattr(report, "NOT_EXCLUDED", "OTHER WORDS")
    make()
    assert len(seen) == 20, "the report alone"
    with db.write() as session:
        session.execute(update(Revision).values(closed_at=CLOSED_AT + timedelta(hours=1)))
    make()
    assert len(seen) == 26, "the time is in the bytes"


TEMPLATES = json.loads((Path(__file__).parents[3] / "data/templates.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("pipeline", ["head_ct", "chest_xray", "dermoscopy"])
def test_a_template_that_changes_gets_a_new_version(
    site: tuple[Settings, Database], pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fixed results make the bytes that were recorded for the templates' versions.

    Where this fails after a change of words or structure: raise ``TEMPLATE_VERSION`` beside the template, run
    ``python -m tests.builders.templates`` and commit what it writes.
    """
    settings = site[0].model_copy(update={"time_zone": "Europe/Berlin"})
    digests = template_digests((settings, site[1]), pipeline, monkeypatch.setattr)
    assert digests == {key: value for key, value in TEMPLATES.items() if key.startswith(pipeline)}


def test_what_could_not_be_read_is_the_first_sentence_of_the_report(site: tuple[Settings, Database]) -> None:
    scored = scored_study(site[1], site[0])
    detail = "3 of 32 slices could not be read (3: the file is gone); a finding may lie there."
    with site[1].write() as session:
        session.execute(update(Job).values(detail=detail, warnings=["unreadable_slices"]))
    row = objects_of(site, scored.job_id)["sr"]
    assert validate(site[0].objects_dir / str(row.path)) == []
    report = read(site, row)
    contents = [item for item in report.ContentSequence if item.RelationshipType == "CONTAINS"]
    assert contents[0].ValueType == "TEXT" and contents[0].TextValue == detail


def test_each_file_is_parsed_once_for_all_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    scored = scored_study(db, settings, n=4)
    parsed: list[Path] = []

    def read(path: Path) -> Dataset:
        parsed.append(path)
        return read_dataset(path)

    monkeypatch.setattr(source, "read_dataset", read)
    rows = ensure_objects(db, settings, scored.job_id)
    assert [row.kind for row in rows if row.path is not None] == ["sr", "seg", "sc"]
    assert len(parsed) == 1, "the mask lies on the key image"
    db.dispose()


def _enhanced(ds: Dataset) -> None:
    """One file of three frames in place of one slice."""
    ds.SOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = 3
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for number in range(3):
        group, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-32, -32, 5 * number]
        content.DimensionIndexValues = [1, number + 1]
        group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)


def test_a_mask_on_frames_of_one_file_is_a_segmentation_of_them(site: tuple[Settings, Database]) -> None:
    settings, db = site
    scored = scored_study(db, settings, n=1, change=_enhanced)
    mask = np.zeros((3, 64, 64), bool)
    mask[1, 20:40, 24:44] = True
    (key,) = scored.instance_ids
    evidence = Evidence({"key": np.zeros((64, 64, 3), np.uint8)}, mask, tuple((key, frame) for frame in (1, 2, 3)))
    with db.write() as session:
        session.get_one(Job, scored.job_id).evidence_path = EvidenceStore(settings.evidence_dir).write(evidence)
    outline = read(site, objects_of(site, scored.job_id)["seg"])
    assert np.array_equal(outline.pixel_array.reshape(-1, 64, 64).max(axis=0), mask[1])
    (group,) = outline.PerFrameFunctionalGroupsSequence
    assert group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 2
