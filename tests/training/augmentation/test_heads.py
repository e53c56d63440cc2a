"""Heads as other scanners and other heads show them: what may change, and what must stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firstread.phantoms.head import HeadSpec, head_volume
from tests.builders.toy_runs import recipe_of
from training.augmentation.bleeds import skull_of
from training.augmentation.carve import Donors
from training.augmentation.dense import CHANCES, KINDS, draw_dense, frame_of
from training.augmentation.heads import HeadAugment
from training.augmentation.hounsfield import Windows
from training.augmentation.kinds import augment_from
from training.augmentation.planes import Augment
from training.augmentation.scanners import as_scanned
from training.augmentation.thickness import restack
from training.datasets.arrays import Arrays, open_arrays
from training.fit.batches import Added, groups_by, train_batch
from worker.packages.card import InputSpec
from worker.packages.preprocessing import compose

SPEC = InputSpec(
    kind="hu",
    height=128,
    width=128,
    windows=((0, 80),),
    wide_windows=((-20, 180), (-100, 900)),
    neighbours=1,
    crop="head",
)
WINDOWS = Windows.of(SPEC)
UNBENT = Augment(flip=False, rotate_deg=0, zoom=0, shift=0, gain=0, offset=0, blur_sigma=0, noise=0, wide=2)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    hu = head_volume(HeadSpec(slices=6, size=256, step_mm=20.0))[0].astype(np.float32)
    return np.asarray(np.clip(compose.stack(compose.planes(hu, SPEC), SPEC)[2], 0, 1))


@pytest.fixture(scope="module")
def wide_arrays(toy_data: Path) -> Arrays:
    recipe = recipe_of(toy_data)
    spec = recipe.input.model_copy(update={"wide_windows": SPEC.wide_windows})
    datasets = {"ct_ich_two_windows": "ct_ich_two_windows", **recipe.datasets}
    return open_arrays(recipe.model_copy(update={"input": spec, "datasets": datasets}), toy_data, None)


def test_planes_become_hounsfield_units_and_planes_again(image: np.ndarray) -> None:
    narrow, wide = WINDOWS.split(image)
    hu = WINDOWS.hu(narrow, wide)
    assert hu.shape == narrow.shape and hu[..., 1].max() > 600 and hu[..., 1].min() == -100
    tissue = (narrow > 0.05) & (narrow < 0.95)
    assert hu[tissue] == pytest.approx(narrow[tissue] * 80, abs=1e-3)
    np.testing.assert_allclose(WINDOWS.changed(image, hu, hu), image, atol=0.005)
    later = WINDOWS.changed(image, hu, hu + 10)
    inside = tissue[..., 1] & (image[..., 4] > 0.11) & (image[..., 4] < 0.17)
    assert (later - image)[inside].mean(axis=0) == pytest.approx([0.125, 0.125, 0.125, 0.05, 0.01], abs=0.01)
    assert not WINDOWS.known(0 * wide)
    clipped = np.concatenate([narrow, 0 * wide], axis=-1)
    assert (WINDOWS.changed(clipped, hu, hu + 10)[..., 3:] == 0).all()


def test_a_bleed_that_is_put_into_the_brain_window_is_in_the_wide_ones_too(image: np.ndarray) -> None:
    narrow = WINDOWS.split(image)[0].copy()
    narrow[60:66, 60:66] = 60 / 80
    joined = WINDOWS.rejoined(narrow, image)
    assert joined[62, 62, 3] == pytest.approx(80 / 200) and joined[62, 62, 4] == pytest.approx(160 / 1000)
    np.testing.assert_array_equal(joined[:60], image[:60])
    clipped = np.concatenate([image[..., :3], 0 * image[..., 3:]], axis=-1)
    assert (WINDOWS.rejoined(narrow, clipped)[..., 3:] == 0).all()


def test_the_midline_is_found_where_the_head_leans(image: np.ndarray) -> None:
    skull = skull_of(np.ascontiguousarray(image[..., 1]))
    assert skull is not None
    frame = frame_of(skull)
    assert abs(frame.along[0]) < 0.3 and frame.along[1] > 0.9
    x, y = frame.at(0.0, 0.0)
    assert (x, y) == pytest.approx(frame.centre)
    assert frame.at(0.5, 0.0)[1] > y and frame.at(0.0, 0.5)[0] > x


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[kind.__name__ for kind in KINDS])
def test_dense_things_brighten_tissue_and_leave_bone_air_and_blood(
    kind: int, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.augmentation.dense.CHANCES", np.eye(len(CHANCES))[kind])
    mask = np.zeros((64, 64), np.float32)
    mask[20:40, 20:40] = 1.0
    changed = 0
    for seed in range(6):
        drawn = draw_dense(image, mask, WINDOWS, np.random.default_rng(seed))
        assert (drawn >= image - 1e-6).all() and drawn.max() <= 1
        outside = (image[..., 1] <= 0.004) | (image[..., 1] >= 0.996)
        np.testing.assert_array_equal(drawn[..., 1][outside], image[..., 1][outside])
        np.testing.assert_array_equal(drawn[42:78, 42:78], image[42:78, 42:78])
        changed += int((drawn[..., 1] > image[..., 1] + 0.05).sum())
    assert changed > 5


def test_another_scanner_keeps_a_clipped_series_clipped_and_the_head_where_it_is(image: np.ndarray) -> None:
    clipped = np.concatenate([image[..., :3], 0 * image[..., 3:]], axis=-1)
    differ = 0
    for seed in range(20):
        scanned = as_scanned(image, WINDOWS, np.random.default_rng(seed))
        assert scanned.shape == image.shape and scanned.dtype == np.float32
        assert 0 <= scanned.min() <= scanned.max() <= 1
        differ += int(not np.array_equal(scanned, image))
        assert abs(float(np.median(scanned[50:78, 50:78, 1])) - float(np.median(image[50:78, 50:78, 1]))) < 0.12
        assert (as_scanned(clipped, WINDOWS, np.random.default_rng(seed))[..., 3:] == 0).all()
    assert differ >= 18


def test_wide_windows_are_dropped_and_never_toned(image: np.ndarray) -> None:
    toned = replace(UNBENT, gain=0.2, offset=0.1, noise=0.1)
    out, _ = toned.apply(image, None, np.random.default_rng(3))
    np.testing.assert_array_equal(out[..., 3:], image[..., 3:])
    assert not np.array_equal(out[..., :3], image[..., :3])
    dropped, _ = replace(UNBENT, drop_wide=1.0).apply(image, None, np.random.default_rng(0))
    assert (dropped[..., 3:] == 0).all()
    np.testing.assert_array_equal(dropped[..., :3], image[..., :3])
    alone, _ = replace(UNBENT, drop_neighbours=1.0).apply(image, None, np.random.default_rng(0))
    np.testing.assert_array_equal(alone[..., 0], image[..., 1])
    np.testing.assert_array_equal(alone[..., 3:], image[..., 3:])


def test_a_recipe_names_the_augmentation_of_heads() -> None:
    made = augment_from({"kind": "head", "dense": 0.2, "scanner": 0.3, "drop_wide": 0.4}, SPEC)
    assert isinstance(made, HeadAugment)
    assert (made.dense, made.scanner, made.bending.drop_wide, made.bending.wide) == (0.2, 0.3, 0.4, 2)


def test_thicker_slices_have_the_label_of_both_and_thinner_ones_keep_their_own(wide_arrays: Arrays) -> None:
    items = wide_arrays.items
    beside = next(
        i
        for i, item in enumerate(items)
        if item.dataset == "ct_ich_two_windows" and item.labels["any"] == 0 and wide_arrays.labels[i + 1, 0] == 1
    )
    found = set()
    for seed in range(30):
        image, mask, labels = restack(wide_arrays, beside, np.random.default_rng(seed))
        assert image.shape == (32, 32, 5) and mask is not None
        if labels[0] == 1:
            assert 0 < mask.max() <= 0.51, "half of the slice's thickness bleeds"
        else:
            assert mask.max() == 0
        found.add(float(labels[0]))
    assert found == {0.0, 1.0}
    doubtful = next(i for i, item in enumerate(items) if item.dataset == "phe_sich" and not item.usable)
    image, mask, labels = restack(wide_arrays, doubtful, np.random.default_rng(0))
    assert mask is not None and mask.max() == -1 and labels[0] != 0
    assert (image[..., 3:] == 0).all(), "a clipped series stays one"


def test_batches_with_everything_in_them_depend_on_seed_and_step_alone(wide_arrays: Arrays) -> None:
    rows = np.arange(len(wide_arrays))
    groups = groups_by(wide_arrays, rows, {"*:any=1": 0.5, "*:any=0": 0.5}, True)
    options = {"kind": "head", "dense": 0.5, "scanner": 0.5, "drop_wide": 0.3}
    augment = augment_from(options, wide_arrays.spec)
    added = Added(0.4, 0.4, Donors.among(wide_arrays, rows), 0.5)
    first, again, other = (train_batch(wide_arrays, groups, augment, 8, 1, step, added) for step in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0].shape == (8, 32, 32, 5) and np.isfinite(first[0]).all()
    assert not np.array_equal(first[0], other[0])
    for name, values in first[1].items():
        np.testing.assert_array_equal(values, again[1][name])
