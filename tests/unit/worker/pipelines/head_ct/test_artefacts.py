"""Streaks and doubled contours are seen, and nothing of an undisturbed head is taken for them."""

from __future__ import annotations

import numpy as np
import pytest

from firstread.phantoms.head import HeadSpec, head_volume
from training.head_ct.disturbed import with_movement, with_streaks
from training.head_ct.vessels import PlainHead
from worker.pipelines.head_ct.artefacts import artefacts_of
from worker.pipelines.head_ct.cavity import cavities_of
from worker.pipelines.head_ct.checks import cautions_of

SPEC = HeadSpec(slices=20, size=192, bleed="subdural", step_mm=8.0)
PIXEL_MM = SPEC.field_mm / SPEC.size


@pytest.fixture(scope="module")
def head() -> PlainHead:
    hu, _ = head_volume(SPEC, seed=2)
    return PlainHead(hu, PIXEL_MM, SPEC.step_mm, cavities_of(hu, PIXEL_MM))


def _suspected(hu: np.ndarray) -> bool:
    return "artefact_suspected" in cautions_of(hu, PIXEL_MM, SPEC.step_mm)


def test_a_bleeding_head_at_rest_is_undisturbed(head: PlainHead) -> None:
    assert not _suspected(head.hu)


@pytest.mark.parametrize("height_hu", [100.0, 400.0])
def test_streaks_are_seen_also_where_they_hide_the_cavity(head: PlainHead, height_hu: float) -> None:
    hu = with_streaks(head, height_hu)
    found = artefacts_of(cavities_of(hu, PIXEL_MM))
    assert found.dark_share > 0.015 and found.edge_mm < 1.6 and _suspected(hu)


def test_streaks_on_one_slab_alone_are_not_enough(head: PlainHead) -> None:
    assert not _suspected(with_streaks(head, 200.0, slabs=1))


def test_doubled_contours_are_seen(head: PlainHead) -> None:
    found = artefacts_of(cavities_of(with_movement(head, 5.0), PIXEL_MM))
    assert found.edge_mm > 1.6 and found.dark_share < 0.015
