"""A series stays one where its headers differ in small things, and has an order where its positions tell nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from firstread.phantoms.ct import CtLabels, enhanced_ct
from firstread.phantoms.head import HeadPhantom, HeadSpec, head_grid, head_study
from tests.builders.heads import BAD_SLICES, altered, spoilt
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from
from worker.pipelines.head_ct.stack import Ruler
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run

SPEC = HeadSpec(slices=28, size=128, bleed="intraparenchymal")


@pytest.fixture(scope="module")
def ball() -> HeadPhantom:
    return head_study(SPEC)


def _run(objects: list[Dataset], folder: Path, forced: bool = False) -> RunResult:
    return run(row("head_ct"), study_from(objects, folder, forced), served(head_card()), ThresholdEngine())


def _each(objects: list[Dataset], change: Callable[[int, Dataset], None]) -> list[Dataset]:
    copies = [deepcopy(ds) for ds in objects]
    for index, ds in enumerate(copies):
        change(index, ds)
    return copies


def _order(result: RunResult) -> list[int]:
    """Keys of the scored instances, from foot to head; the study's keys count from 1."""
    assert result.outcome is not None, result.reasons
    return list(dict.fromkeys(score.instance_key for score in result.outcome.slice_scores))


def _wobble(every: int, by: float) -> Callable[[int, Dataset], None]:
    def change(index: int, ds: Dataset) -> None:
        cosine = 0.985 + (-by if index % every == 0 else by)
        sine = -math.sqrt(1 - cosine * cosine)
        ds.ImageOrientationPatient = [1, 0, 0, 0, round(cosine, 7), round(sine, 7)]
        spacing = 1.7965 + (-by if index % every == 0 else by)
        ds.PixelSpacing = [round(spacing, 7), round(spacing, 7)]

    return change


@pytest.mark.parametrize("every", [2, 9])
@pytest.mark.parametrize("by", [4e-5, 1e-3])
def test_a_fifth_decimal_splits_no_series(every: int, by: float, ball: HeadPhantom, tmp_path: Path) -> None:
    result = _run(_each(ball.objects, _wobble(every, by)), tmp_path)
    assert _order(result) == list(range(1, 29)) and result.details["missing_slices"] == 0
    assert result.outcome is not None and result.outcome.warnings == ()


LOOSE: dict[str, dict[str, object]] = {
    "orientation": {"ImageOrientationPatient": None},
    "spacing": {"PixelSpacing": None},
    "position": {"ImagePositionPatient": None},
    "kernel": {"ConvolutionKernel": None},
    "kind": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
    "thickness": {"SliceThickness": None},
}


@pytest.mark.parametrize("name", sorted(LOOSE))
def test_a_slice_that_lacks_a_word_of_the_header_stays_in_its_place(
    name: str, ball: HeadPhantom, tmp_path: Path
) -> None:
    objects = [altered(ds, **LOOSE[name]) if index == 12 else ds for index, ds in enumerate(ball.objects)]
    result = _run(objects, tmp_path)
    assert _order(result) == list(range(1, 29))
    assert result.details["missing_slices"] == 0 and result.details["spacing_mm"] == pytest.approx(5)


NOTHING: dict[str, Callable[[int, Dataset], None]] = {
    "zeros": lambda index, ds: setattr(ds, "ImagePositionPatient", [0, 0, 0]),
    "in the plane alone": lambda index, ds: setattr(ds, "ImagePositionPatient", [index * 2.0, -index * 2.0, 7]),
    "all but the first": lambda index, ds: setattr(ds, "ImagePositionPatient", [0, 0, 0 if index else 30]),
    "all but three": lambda index, ds: setattr(ds, "ImagePositionPatient", [0, 0, max(0, index - 24) * 5.0]),
}


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("name", sorted(NOTHING))
@pytest.mark.parametrize("by", ["numbers", "locations", "acquisitions"])
def test_numbers_order_slices_whose_positions_do_not(
    by: str, name: str, forced: bool, ball: HeadPhantom, tmp_path: Path
) -> None:
    def change(index: int, ds: Dataset) -> None:
        NOTHING[name](index, ds)
        if by == "locations":
            ds.InstanceNumber = 1
        else:
            del ds.SliceLocation
        if by == "acquisitions":
            ds.AcquisitionNumber = index + 1

    result = _run(_each(ball.objects, change)[::-1], tmp_path, forced)
    assert _order(result) == list(range(28, 0, -1))
    assert result.outcome is not None
    assert {"geometry_missing", "spacing_unknown"} <= set(result.outcome.warnings)
    assert "duplicate_positions" not in result.outcome.warnings
    assert [f.flagged for f in result.outcome.findings if f.name == "any"] == [True]


def test_a_series_without_useful_positions_or_numbers_is_refused(ball: HeadPhantom, tmp_path: Path) -> None:
    def change(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient, ds.InstanceNumber = [0, 0, 0], 1
        del ds.SliceLocation

    objects = _each(ball.objects, change)
    assert _run(objects, tmp_path / "sent").reasons == ("duplicate_positions",)
    asked = _run(objects, tmp_path / "asked", forced=True)
    assert len(_order(asked)) == 28
    assert asked.outcome is not None and "duplicate_positions" in asked.outcome.warnings


def test_no_order_by_folder_scores_a_few_slices_of_many(ball: HeadPhantom, tmp_path: Path) -> None:
    def change(index: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [0, 0, 40.0 * (index % 3)]

    objects = _each(ball.objects, change)
    assert _run(objects, tmp_path / "sent").reasons == ("duplicate_positions",)
    assert _order(_run(objects, tmp_path / "asked", forced=True)) == list(range(1, 29))


def test_pictures_of_one_place_beside_a_whole_head_are_left_aside(ball: HeadPhantom, tmp_path: Path) -> None:
    watched = []
    for number in range(40):
        watched.append(altered(ball.objects[14], SOPInstanceUID=f"1.2.3.{number}", AcquisitionNumber=2))
        watched[-1].InstanceNumber = 100 + number
    result = _run([*watched, *ball.objects], tmp_path)
    assert _order(result) == list(range(41, 69))


def test_equal_positions_of_an_enhanced_object_give_way_to_its_frames(ball: HeadPhantom, tmp_path: Path) -> None:
    ds = enhanced_ct(ball.hu, head_grid(SPEC), CtLabels())
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]
    result = _run([ds], tmp_path)
    assert result.outcome is not None and "geometry_missing" in result.outcome.warnings
    assert [s.frame for s in result.outcome.slice_scores if s.finding == "any"] == list(range(1, 29))


def test_a_ruler_leads_from_numbers_to_places() -> None:
    ruler = Ruler.of([(10, 0.0), (11, 5.0), (13, 15.0), (None, 99.0)])
    assert (ruler.place(12), ruler.place(15), ruler.place(9)) == (10.0, 25.0, -5.0)
    assert ruler.place(11) is None and ruler.place(None) is None
    assert Ruler.of([(1, 0.0), (2, 9.0), (3, 1.0), (4, 8.0)]).place(5) is None
    big = 10**22
    assert Ruler.of([(big, 0.0), (big + 2, 10.0)]).place(big + 1) == 5.0


@pytest.mark.parametrize("present", [range(28), [i for i in range(28) if i != 13]], ids=["whole", "with a hole"])
def test_a_second_reconstruction_in_the_series_fills_no_hole(
    present: Sequence[int], ball: HeadPhantom, tmp_path: Path
) -> None:
    sharp = head_study(replace(SPEC, slices=30), CtLabels(kernel="H60s")).objects
    for number, ds in enumerate(sharp):
        ds.SOPInstanceUID = f"1.2.3.{number}"
        ds.ImagePositionPatient = [
            *ball.objects[0].ImagePositionPatient[:2],
            ball.objects[0].SliceLocation + 5.0 * (number - 1),
        ]
    result = _run([*(ball.objects[i] for i in present), *sharp], tmp_path)
    assert result.outcome is not None and _order(result) == list(range(1, len(present) + 1))
    assert result.details["missing_slices"] == 28 - len(present)
    assert "unreadable_slices" not in result.outcome.warnings


def test_a_part_of_the_head_on_another_matrix_is_not_passed_over(tmp_path: Path) -> None:
    head = head_study(replace(SPEC, bleed=None)).objects
    objects = spoilt(head, range(18, 28), BAD_SLICES["another size"])
    result = _run(objects, tmp_path)
    assert result.outcome is None and result.reasons == ("unreadable_pixel_data",)
    assert "10 of 28 slices could not be read (10: of another size than the rest)" in result.detail
