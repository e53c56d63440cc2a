"""Dense sinuses and arteries are seen, and nothing of a plain head is taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstread.phantoms.ct import CtLabels, ct_series
from firstread.phantoms.head import BLEEDS, Bleed, HeadSpec, head_grid, head_volume
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from
from worker.pipelines.head_ct.cavity import cavities_of
from worker.pipelines.head_ct.checks import cautions_of
from worker.pipelines.head_ct.enhancement import enhancement_of
from worker.pipelines.head_ct.shapes import Blob, closed, tracks_of
from worker.pipelines.registry import row
from worker.pipelines.runner import run

SPEC = HeadSpec(slices=28, size=256)
PIXEL_MM = SPEC.field_mm / SPEC.size


def _with_sinus(hu: np.ndarray, value_hu: float) -> np.ndarray:
    """A strand of 8 mm at the back of the cavity, on every slab that has one."""
    head = cavities_of(hu, PIXEL_MM)
    out = hu.copy()
    half, depth = round(4 / PIXEL_MM), round(8 / PIXEL_MM)
    for slab in head.shown:
        rows, columns = np.nonzero(head.inside[slab])
        back, middle = round(rows.max() / PIXEL_MM), round(columns.mean() / PIXEL_MM)
        part = out[slab, back - depth : back, middle - half : middle + half]
        part[part < 300] = value_hu
    return out


@pytest.mark.parametrize("bleed", [None, *BLEEDS])
def test_a_plain_head_has_no_dense_vessels_whatever_bleeds(bleed: Bleed | None) -> None:
    hu, _ = head_volume(HeadSpec(slices=28, size=256, bleed=bleed), seed=3)
    head = cavities_of(hu, PIXEL_MM)
    assert len(head.shown) > 12
    assert enhancement_of(head, 5.0).sinus_mm < 20.0 and enhancement_of(head, 5.0).arteries < 2


@pytest.mark.parametrize(("value_hu", "suspected"), [(65.0, False), (120.0, True), (250.0, True)])
def test_a_dense_sinus_is_contrast_agent(value_hu: float, suspected: bool) -> None:
    hu = _with_sinus(head_volume(SPEC, seed=1)[0], value_hu)
    assert (cautions_of(hu, PIXEL_MM, 5.0) == ["contrast_suspected"]) is suspected


def test_values_of_a_window_say_nothing() -> None:
    hu = _with_sinus(head_volume(SPEC, seed=1)[0], 180.0)
    assert cautions_of(np.clip(hu, -1000, 250), PIXEL_MM, 5.0) == []


@pytest.mark.parametrize(("agent", "warned"), [("", True), ("NONE", True), ("Iomeprol", False)])
def test_the_warning_stands_where_the_header_says_nothing(agent: str, warned: bool, tmp_path: Path) -> None:
    hu = _with_sinus(head_volume(SPEC, seed=1)[0], 150.0)
    objects = ct_series(hu, head_grid(SPEC), CtLabels(contrast=agent))
    result = run(row("head_ct"), study_from(objects, tmp_path, forced=True), served(head_card()), ThresholdEngine())
    assert result.outcome is not None
    assert ("contrast_suspected" in result.outcome.warnings) is warned
    assert ("contrast_agent" in result.outcome.warnings) is not warned


def test_blobs_are_followed_to_where_they_end() -> None:
    slices = [[Blob(5, 5, 9)], [Blob(6, 5, 9), Blob(40, 40, 9)], [], [Blob(6, 5, 9)]]
    assert sorted((t.start, t.stop) for t in tracks_of(slices, 3.0)) == [(0, 2), (1, 2), (3, 4)]


def test_gaps_are_closed_up_to_their_width() -> None:
    wall = np.ones((40, 60), bool)
    wall[:, 20:30] = False
    assert closed(wall, 15)[20].all() and not closed(wall, 7)[20, 25]
