"""Slices of unequal thickness and pixels that are not square give what a uniform series of the same head gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from firstread.dicom.geometry import stack_of
from firstread.phantoms.head import HeadPhantom, HeadSpec, head_study
from tests.builders.heads import altered, squeezed, thin_below
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from
from worker.pipelines.head_ct.grid import Grid, grid_of
from worker.pipelines.head_ct.stack import slabs_of
from worker.pipelines.registry import row
from worker.pipelines.runner import RunResult, run

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPEC = HeadSpec(slices=28, size=128, bleed="intraparenchymal")


@pytest.fixture(scope="module")
def ball() -> HeadPhantom:
    return head_study(SPEC)


def _run(objects: list[Dataset], folder: Path, engine: ThresholdEngine | None = None) -> RunResult:
    return run(row("head_ct"), study_from(objects, folder), served(head_card()), engine or ThresholdEngine())


def _said(result: RunResult) -> tuple[float, float, tuple[str, ...]]:
    assert result.outcome is not None, result.reasons
    (p,) = [f.probability for f in result.outcome.findings if f.name == "any"]
    (volume,) = [f.value for f in result.outcome.findings if f.name == "bleed_volume"]
    assert p is not None and volume is not None
    return p, volume, result.outcome.warnings


@pytest.mark.parametrize("thick_from", [6, 14, 22])
@pytest.mark.parametrize("from_above", [False, True], ids=["feet first", "head first"])
def test_thin_slices_below_and_thick_ones_above(
    thick_from: int, from_above: bool, ball: HeadPhantom, tmp_path: Path
) -> None:
    p, volume, _ = _said(_run(ball.objects, tmp_path / "uniform"))
    mixed = thin_below(ball, thick_from)
    engine = ThresholdEngine()
    result = _run(mixed[::-1] if from_above else mixed, tmp_path / "mixed", engine)
    assert engine.batches[0][1][0] == 28, "two thin ones make a slab, two thick ones do not"
    mixed_p, mixed_volume, warnings = _said(result)
    assert mixed_p == pytest.approx(p, abs=1e-4) and mixed_volume == pytest.approx(volume, rel=1e-3)
    assert warnings == ("slices_averaged",)
    assert result.details["missing_slices"] == 0


def test_a_gap_among_thick_slices_is_found_beside_thin_ones(ball: HeadPhantom, tmp_path: Path) -> None:
    mixed = thin_below(ball, 10)
    result = _run([*mixed[:30], *mixed[31:]], tmp_path)
    assert result.details["missing_slices"] == 1 and "missing_slices" in _said(result)[2]


@pytest.mark.parametrize("values", [0.001, 50.0, -5.0, 0.0, float("nan"), None], ids=str)
def test_one_slice_whose_thickness_is_nonsense_changes_nothing(
    values: float | None, ball: HeadPhantom, tmp_path: Path
) -> None:
    p, volume, _ = _said(_run(ball.objects, tmp_path / "plain"))
    objects = [altered(ds) for ds in ball.objects]
    if values is None:
        del objects[0].SliceThickness
    else:
        objects[0]["SliceThickness"]._value = values
    result = _run(objects, tmp_path / "odd")
    assert result.details["missing_slices"] == 0
    odd_p, odd_volume, _ = _said(result)
    assert odd_p == pytest.approx(p, abs=1e-4) and odd_volume == pytest.approx(volume, rel=0.02)


def _stack(places: list[float], thickness: Sequence[float | None]) -> np.ndarray:
    stack = stack_of([(0.0, 0.0, z) for z in places], [AXIAL] * len(places), range(len(places)), thickness)
    assert stack.missing == 0
    return slabs_of(stack)


@pytest.mark.parametrize("known", [True, False], ids=["thickness", "spacing alone"])
def test_slabs_keep_within_their_limit_on_either_side_of_the_change(known: bool) -> None:
    thin, thick = [2.5 * i for i in range(12)], [31.25 + 5.0 * i for i in range(4)]
    slabs = _stack([*thin, *thick], [2.5] * 12 + [5.0] * 4 if known else [None] * 16)
    assert [int(n) for n in np.bincount(slabs)][-4:] == [1, 1, 1, 1]
    assert max(np.bincount(slabs)) == 2


def test_slabs_of_a_uniform_series_are_as_many_as_fit() -> None:
    assert [int(n) for n in np.bincount(_stack([1.25 * i for i in range(10)], [1.25] * 10))] == [4, 4, 2]
    assert [int(n) for n in np.bincount(_stack([0.5 * i for i in range(8)], [5.0] * 8))] == [1] * 8
    assert max(_stack([0.01 * i + 0.5 * i for i in range(2000)], [0.5] * 2000)) < 200


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (1, 2)])
def test_pixels_that_are_not_square_are_made_so_first(rows: int, columns: int, tmp_path: Path) -> None:
    ball = head_study(replace(SPEC, size=256))
    p, volume, _ = _said(_run(ball.objects, tmp_path / "square"))
    flat = [squeezed(ds, rows, columns) for ds in ball.objects]
    result = _run(flat, tmp_path / "flat")
    flat_p, flat_volume, warnings = _said(result)
    assert flat_p == pytest.approx(p, abs=0.03) and flat_volume == pytest.approx(volume, rel=0.1)
    assert warnings == ()
    assert result.outcome is not None and result.outcome.evidence.mask is not None
    assert result.outcome.evidence.mask.shape[1:] == (256 // rows, 256 // columns), "the mask lies on its source"
    picture = result.outcome.evidence.pictures["key_slice"]
    assert abs(picture.shape[1] / picture.shape[0] - 2) < 0.2, "two square pictures side by side"


def test_the_aspect_ratio_stands_in_for_a_spacing(ball: HeadPhantom, tmp_path: Path) -> None:
    flat = [altered(squeezed(ds, rows=2), PixelSpacing=None, PixelAspectRatio=[2, 1]) for ds in ball.objects]
    result = _run(flat, tmp_path)
    assert result.outcome is not None and "spacing_unknown" in result.outcome.warnings
    assert result.outcome.evidence.pictures["key_slice"].shape[0] > 100


def test_a_grid_leads_to_square_pixels_and_back() -> None:
    assert grid_of(512, 512, (0.45, 0.4501), None) == Grid((512, 512), (512, 512), (0.45, 0.4501))
    grid = grid_of(100, 200, (1.0, 0.5), None)
    assert grid.shape == (200, 200) and grid.pixel_mm == (0.5, 0.5)
    mask = np.zeros((3, 200, 200), bool)
    mask[:, 40:60, 70:80] = True
    assert grid.stored(mask).shape == (3, 100, 200) and grid.stored(mask)[0, 20:30, 70:80].all()
    assert grid.stored(mask)[0].sum() == 100
    assert max(grid_of(512, 512, (0.1, 20.0), None).shape) <= 1024


def test_bone_beside_air_does_not_come_out_as_blood() -> None:
    plane = np.full((64, 32), -1000.0, np.float32)
    plane[:, 16:] = 1200.0
    out = grid_of(64, 32, (0.5, 1.0), None).squared(plane)
    assert out.shape == (64, 64) and set(np.unique(out)) == {-1000.0, 1200.0}


@pytest.mark.parametrize("base", ["202601020304%02d", "99999999999999999999%02d"])
def test_instance_numbers_that_no_column_holds_are_null_and_still_order(base: str, tmp_path: Path) -> None:
    objects = [altered(ds, ImagePositionPatient=None, SliceLocation=None) for ds in head_study(SPEC).objects]
    for index, ds in enumerate(objects):
        raw = (base % index).encode()
        tag = Tag("InstanceNumber")
        ds._dict[tag] = RawDataElement(tag, "IS", len(raw), raw, 0, False, True)
    study = study_from(objects[::-1], tmp_path)
    result = run(row("head_ct"), study, served(head_card()), ThresholdEngine())
    assert result.outcome is not None
    assert {score.instance_number for score in result.outcome.slice_scores} == {None}
    keys = list(dict.fromkeys(score.instance_key for score in result.outcome.slice_scores))
    assert keys == [instance.key for instance in study.instances][::-1]
