"""What the head-CT pipeline leaves aside or refuses, and what it scores only because a person asked for it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from firstread.codes import IMAGE_CODES
from firstread.phantoms.chest import body_study, chest_film
from firstread.phantoms.ct import CtLabels, localizer, secondary_capture
from firstread.phantoms.head import HeadPhantom, HeadSpec, head_grid, head_study
from firstread.phantoms.lesion import lesion_photograph
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from
from worker.pipelines import reasons as codes
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run

SPEC = HeadSpec(slices=28, size=128)


@pytest.fixture(scope="module")
def head() -> HeadPhantom:
    return head_study(SPEC)


def _run(objects: list[Dataset], folder: Path, forced: bool = False) -> RunResult:
    return run(row("head_ct"), study_from(objects, folder, forced), served(head_card()), ThresholdEngine())


def _changed(objects: list[Dataset], change: Callable[[Dataset], None]) -> list[Dataset]:
    copies = [deepcopy(ds) for ds in objects]
    for ds in copies:
        change(ds)
    return copies


def _warnings(result: RunResult) -> tuple[str, ...]:
    assert result.outcome is not None, result.reasons
    return result.outcome.warnings


def _set(**values: object) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return change


def _as_capture(ds: Dataset) -> None:
    """What CT-ICH's authors wrote: HU as Secondary Capture, Modality OT, no rescale, no geometry."""
    stored = np.frombuffer(ds.PixelData, "<u2").astype(np.int32) - 1024
    ds.PixelData = stored.astype("<i2").tobytes()
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 1
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds.Modality = "OT"
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, keyword)
    for keyword in ("ImagePositionPatient", "SliceThickness", "ImageType", "InstanceNumber", "SliceLocation"):
        delattr(ds, keyword)


REFUSED: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "another modality": (_set(Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), "not_ct"),
    "coronal": (_set(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "not_axial"),
    "projection": (_set(ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"]), "derived"),
    "perfusion map": (_set(ImageType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]), "derived"),
    "scout": (_set(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "contrast": (_set(ContrastBolusAgent="Iomeprol 400"), "contrast_agent"),
    "no rescale": (_set(RescaleIntercept=None, RescaleSlope=None), "rescale_missing"),
    "rescale in another unit": (_set(RescaleType="MGML"), "rescale_missing"),
    "palette": (_set(PhotometricInterpretation="PALETTE COLOR"), "unsupported_photometric"),
    "capture": (_as_capture, "not_ct"),
    "no pixels": (_set(PixelData=None), "unreadable_pixel_data"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_with_its_reason(name: str, head: HeadPhantom, tmp_path: Path) -> None:
    change, reason = REFUSED[name]
    result = _run(_changed(head.objects, change), tmp_path)
    assert result.outcome is None
    assert result.reasons == (reason,)
    assert result.notes[0].reasons == (reason,) and not result.notes[0].chosen


def _as_mislabelled_capture(ds: Dataset) -> None:
    _as_capture(ds)
    _set(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT")(ds)


ASKED_FOR: dict[str, tuple[Callable[[Dataset], None], set[str]]] = {
    "contrast": (REFUSED["contrast"][0], {"contrast_agent"}),
    "capture": (_as_capture, {"secondary_capture", "rescale_missing", "geometry_missing"}),
    "HU without rescale": (
        _as_mislabelled_capture,
        {"rescale_missing"},
    ),
}


@pytest.mark.parametrize("name", sorted(ASKED_FOR))
def test_what_a_person_asked_for_is_scored_with_warnings(name: str, head: HeadPhantom, tmp_path: Path) -> None:
    change, expected = ASKED_FOR[name]
    assert expected <= set(_warnings(_run(_changed(head.objects, change), tmp_path, forced=True)))


@pytest.mark.parametrize("change", [lambda ds: None, _as_capture], ids=["ct", "capture"])
def test_a_single_slice_is_scored_where_a_person_asked(
    change: Callable[[Dataset], None], head: HeadPhantom, tmp_path: Path
) -> None:
    slices = _changed([head.objects[14]], change)
    assert "too_few_slices" in _warnings(_run(slices, tmp_path / "forced", forced=True))
    assert _run(slices, tmp_path / "sent").outcome is None


def test_a_picture_has_no_hounsfield_units(tmp_path: Path) -> None:
    assert _run([lesion_photograph()], tmp_path / "colour", forced=True).reasons == ("picture_has_no_hu",)
    assert _run([secondary_capture(CtLabels())], tmp_path / "grey", forced=True).reasons == ("picture_has_no_hu",)
    film = chest_film()
    film.Modality, film.SOPClassUID = "OT", SecondaryCaptureImageStorage
    film.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    assert _run([film], tmp_path / "deep", forced=True).reasons == ("picture_has_no_hu",)


def test_a_film_is_no_ct_even_if_asked(tmp_path: Path) -> None:
    assert _run([chest_film()], tmp_path, forced=True).reasons == ("not_ct",)


@pytest.mark.parametrize("forced", [False, True])
def test_a_trunk_is_no_head_whatever_its_label_says(forced: bool, tmp_path: Path) -> None:
    lying = CtLabels(kind="BODY", body_part="HEAD", description="HEAD 5MM")
    assert _run(body_study(24, 128, lying), tmp_path, forced).reasons == ("not_a_head",)


def _without_bone_on_one_side(ds: Dataset) -> None:
    """A hemicraniectomy: bone replaced by soft tissue over a third of the skull."""
    stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()
    y, x = np.mgrid[: ds.Rows, : ds.Columns]
    angle = np.arctan2(y - ds.Rows / 2, x - ds.Columns / 2)
    stored[(stored > 1124) & (np.abs(angle) < 1.0)] = 1024 + 35
    ds.PixelData = stored.tobytes()


def test_a_skull_with_a_gap_is_still_a_head(head: HeadPhantom, tmp_path: Path) -> None:
    assert "head_uncertain" in _warnings(_run(_changed(head.objects, _without_bone_on_one_side), tmp_path))


def _through_a_window(ds: Dataset) -> None:
    """A series made from brain-window pictures: 0 to 80 HU, everything else saturated."""
    hu = np.frombuffer(ds.PixelData, "<u2").astype(np.int32) - 1024
    ds.PixelData = (np.clip(hu, 0, 80) + 1024).astype("<u2").tobytes()


def test_a_windowed_head_is_scored_with_a_warning(head: HeadPhantom, tmp_path: Path) -> None:
    assert "values_windowed" in _warnings(_run(_changed(head.objects, _through_a_window), tmp_path))
    assert "values_windowed" not in _warnings(_run(head.objects, tmp_path / "plain"))


def test_too_few_slices(head: HeadPhantom, tmp_path: Path) -> None:
    assert _run(head.objects[10:15], tmp_path).reasons == ("too_few_slices",)


def test_one_missing_slice_is_a_warning_and_many_are_a_reason(head: HeadPhantom, tmp_path: Path) -> None:
    one = _run([*head.objects[:10], *head.objects[11:]], tmp_path / "one")
    assert "missing_slices" in _warnings(one) and one.details["missing_slices"] == 1
    assert _run(head.objects[::2], tmp_path / "half").reasons == ("missing_slices",)
    assert "missing_slices" in _warnings(_run(head.objects[::2], tmp_path / "asked", forced=True))


def test_part_of_a_head_is_said_to_be_part(head: HeadPhantom, tmp_path: Path) -> None:
    assert "incomplete_coverage" in _warnings(_run(head.objects[6:18], tmp_path))


def test_a_slice_sent_twice_under_two_uids_counts_once(head: HeadPhantom, tmp_path: Path) -> None:
    twin = deepcopy(head.objects[5])
    twin.SOPInstanceUID = "1.2.3.4"
    twin.InstanceNumber = 99
    result = _run([twin, *head.objects], tmp_path)
    assert "duplicate_positions" in _warnings(result)
    assert result.outcome is not None
    assert 1 not in {s.instance_key for s in result.outcome.slice_scores}
    assert len({s.instance_key for s in result.outcome.slice_scores}) == 28


def test_of_two_acquisitions_in_one_series_the_larger_is_taken(head: HeadPhantom, tmp_path: Path) -> None:
    second = []
    for number, ds in enumerate(head.objects[:20]):
        copy = deepcopy(ds)
        copy.SOPInstanceUID, copy.AcquisitionNumber = f"1.2.3.{number}", 2
        second.append(copy)
    result = _run([*second, *head.objects], tmp_path)
    assert result.details["n_slices"] == 28 and "duplicate_positions" in _warnings(result)


def test_a_series_of_phases_is_refused(head: HeadPhantom, tmp_path: Path) -> None:
    phases = []
    for phase in range(3):
        for number, ds in enumerate(head.objects):
            copy = deepcopy(ds)
            copy.SOPInstanceUID = f"1.2.{phase}.{number}"
            phases.append(copy)
    assert _run(phases, tmp_path).reasons == ("duplicate_positions",)


def test_localizer_and_dose_sheet_are_left_aside_and_noted(head: HeadPhantom, tmp_path: Path) -> None:
    labels = CtLabels()
    scout = localizer(head.hu, head_grid(SPEC), labels)
    dose = secondary_capture(labels)
    result = _run([scout, dose, *head.objects], tmp_path)
    notes = {note.SeriesInstanceUID: note for note in result.notes}
    assert notes[scout.SeriesInstanceUID].reasons == ("localizer",)
    assert notes[dose.SeriesInstanceUID].reasons == ("dose_report",)
    assert notes[head.objects[0].SeriesInstanceUID].chosen
    assert result.outcome is not None and result.outcome.SeriesInstanceUID == head.objects[0].SeriesInstanceUID


def test_a_localizer_inside_the_series_is_left_out(head: HeadPhantom, tmp_path: Path) -> None:
    scout = localizer(head.hu, head_grid(SPEC), CtLabels())
    scout.SeriesInstanceUID = head.objects[0].SeriesInstanceUID
    result = _run([scout, *head.objects], tmp_path)
    assert result.details["n_slices"] == 28
    assert result.notes[0].chosen and result.notes[0].reasons == ("localizer",)


def _series(spec: HeadSpec, **labels: Any) -> list[Dataset]:
    return head_study(spec, CtLabels(**labels)).objects


WORSE: dict[str, tuple[HeadSpec, dict[str, Any]]] = {
    "contrast": (replace(SPEC, slices=30), {"contrast": "Iohexol"}),
    "described as contrast": (replace(SPEC, slices=30), {"description": "CTA 5.0"}),
    "sharp": (SPEC, {"kernel": "H60s"}),
    "derived": (SPEC, {"image_type": ("DERIVED", "SECONDARY", "REFORMATTED")}),
    "thin": (replace(SPEC, step_mm=2.5, thickness_mm=2.5, slices=40), {}),
    "another part": (SPEC, {"body_part": "NECK"}),
    "smaller": (replace(SPEC, slices=24), {}),
    "too few": (replace(SPEC, slices=6), {}),
}


@pytest.mark.parametrize("name", sorted(WORSE))
def test_the_better_series_is_chosen(name: str, head: HeadPhantom, tmp_path: Path) -> None:
    spec, labels = WORSE[name]
    worse = _series(spec, series="0", **labels)
    result = _run([*worse, *head.objects], tmp_path)
    assert result.outcome is not None
    assert result.outcome.SeriesInstanceUID == head.objects[0].SeriesInstanceUID


def test_a_later_contrast_series_takes_nothing_back(head: HeadPhantom, tmp_path: Path) -> None:
    before = _run(head.objects, tmp_path / "before")
    with_contrast = [*head.objects, *_series(SPEC, series="2", contrast="Iohexol")]
    after = _run(with_contrast, tmp_path / "after")
    assert before.outcome is not None and after.outcome is not None
    assert after.outcome.SeriesInstanceUID == before.outcome.SeriesInstanceUID
    assert "contrast_agent" not in after.outcome.warnings


def test_words_for_no_contrast_are_no_contrast(head: HeadPhantom, tmp_path: Path) -> None:
    assert _run(_changed(head.objects, _set(ContrastBolusAgent="NONE")), tmp_path).outcome is not None


def test_if_the_best_fails_its_gate_the_next_is_tried(head: HeadPhantom, tmp_path: Path) -> None:
    trunk = body_study(30, 128, CtLabels(kind="HEAD", series="trunk"))
    result = _run([*trunk, *head.objects], tmp_path)
    notes = {note.SeriesInstanceUID: note for note in result.notes}
    assert result.outcome is not None and result.outcome.SeriesInstanceUID == head.objects[0].SeriesInstanceUID
    assert notes[trunk[0].SeriesInstanceUID].reasons == ("not_a_head",)
    assert not notes[trunk[0].SeriesInstanceUID].chosen


def test_lossy_axial_slices_called_derived_are_read(head: HeadPhantom, tmp_path: Path) -> None:
    assert _run(_changed(head.objects, _set(ImageType=["DERIVED ", "PRIMARY", "AXIAL"])), tmp_path).outcome is not None


def test_every_code_has_a_line_for_people() -> None:
    for code in [*codes.Reason, *codes.Caution]:
        assert IMAGE_CODES[code].endswith(".") and "\n" not in IMAGE_CODES[code]
