"""An infant's thin skull with open sutures is scored in doubt; what has no such shell is still refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstread.phantoms.anatomy import Age
from firstread.phantoms.chest import body_volume
from firstread.phantoms.ct import CtLabels
from firstread.phantoms.head import BLEEDS, Bleed, HeadSpec, head_study, head_volume
from tests.builders.study_images import ThresholdEngine, head_card, served, study_from
from worker.pipelines.head_ct.infant import is_infant_slice
from worker.pipelines.head_ct.likeness import likeness_of
from worker.pipelines.registry import row
from worker.pipelines.runner import run

NEWBORN = HeadSpec(slices=20, size=192, age="newborn")
PIXEL_MM = NEWBORN.field_mm / NEWBORN.size


@pytest.mark.parametrize("bleed", [None, *BLEEDS])
def test_a_newborn_is_scored_in_doubt_whatever_age_the_header_gives(bleed: Bleed | None, tmp_path: Path) -> None:
    spec = HeadSpec(slices=20, size=192, age="newborn", bleed=bleed)
    objects = head_study(spec, CtLabels(seed=4, age="060Y")).objects
    result = run(row("head_ct"), study_from(objects, tmp_path), served(head_card()), ThresholdEngine())
    assert result.outcome is not None, result.reasons
    assert "head_uncertain" in result.outcome.warnings


@pytest.mark.parametrize("age", ["toddler", "adult", "old"])
def test_other_ages_are_heads_without_doubt(age: Age) -> None:
    hu, _ = head_volume(HeadSpec(slices=24, size=128, age=age), seed=1)
    assert likeness_of(hu, 230 / 128).certain


def _middle() -> np.ndarray:
    return np.asarray(head_volume(NEWBORN, seed=1)[0][8])


def test_a_shell_of_bone_around_brain_is_an_infant() -> None:
    plane = _middle()
    assert is_infant_slice(plane, PIXEL_MM)
    boneless = np.where(plane > 100, np.float32(30), plane)
    assert not is_infant_slice(boneless, PIXEL_MM), "a ball of soft tissue"
    spine = plane.copy()
    spine[90:106, 90:106] = 400
    assert not is_infant_slice(spine, PIXEL_MM), "bone in the middle"
    lungs = plane.copy()
    lungs[80:110, 70:85] = -800
    assert not is_infant_slice(lungs, PIXEL_MM), "air in the middle"


@pytest.mark.parametrize("field_mm", [400.0, 200.0])
def test_a_trunk_of_any_size_is_refused(field_mm: float) -> None:
    assert not likeness_of(body_volume(16, 128, 400.0, 3), field_mm / 128).possible(forced=False)
