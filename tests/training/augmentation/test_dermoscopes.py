"""What another dermoscope does to a picture and its outline, and the augmentation that draws it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstread.phantoms.lesion import LesionSpec, lesion_image
from tests.builders.skin import write_lesions
from training.augmentation import skin
from training.augmentation.dermoscopes import DermoscopeAugment
from training.augmentation.kinds import augment_from
from training.datasets.arrays import load_arrays
from training.dermoscopy.readers import Lesions
from training.fit.batches import groups_by, train_batch
from training.recipe import load_recipe
from worker.packages.card import InputSpec
from worker.packages.preprocessing.colours import light_of

ALL = DermoscopeAugment(rim=1, vignette=1, coarse=1, blur=1, sharpen=1, noise=1, cutout=1)
STRENGTHS = ("closer", "wider", "shift", "balance", "gamma", "gamma_spread", "exposure", "hue_deg", "saturation")
SHARES = ("rim", "vignette", "coarse", "blur", "sharpen", "noise", "cutout")
NONE = dict.fromkeys((*STRENGTHS, *SHARES), 0.0)


@pytest.fixture
def lesion() -> tuple[np.ndarray, np.ndarray]:
    rgb, mask = lesion_image(LesionSpec(height=72, width=96, hairs=0), seed=5)
    return np.asarray(rgb, dtype=np.float32) / np.float32(255), np.asarray(mask, dtype=np.float32)


def test_everything_at_once_keeps_shapes_and_range_and_is_the_same_for_the_same_seed(
    lesion: tuple[np.ndarray, np.ndarray],
) -> None:
    picture, mask = lesion
    small = mask[2::4, 2::4].copy()
    for seed in range(12):
        first, outline = ALL.apply(picture, small, np.random.default_rng(seed))
        again, outline_again = ALL.apply(picture, small, np.random.default_rng(seed))
        assert outline is not None and outline_again is not None
        assert first.shape == picture.shape and first.dtype == np.float32 and outline.shape == small.shape
        assert 0 <= first.min() <= first.max() <= 1 and 0 <= outline.min() <= outline.max() <= 1
        assert np.array_equal(first, again) and np.array_equal(outline, outline_again)


def test_an_unknown_mask_stays_unknown(lesion: tuple[np.ndarray, np.ndarray]) -> None:
    picture, _ = lesion
    unknown = np.full((18, 24), -1.0, dtype=np.float32)
    for seed in range(4):
        changed, mask = ALL.apply(picture, unknown, np.random.default_rng(seed))
        assert mask is not None and (mask == -1).all() and changed.shape == picture.shape
    assert ALL.apply(picture, None, np.random.default_rng(0))[1] is None


def test_with_everything_off_only_the_place_changes(lesion: tuple[np.ndarray, np.ndarray]) -> None:
    picture, mask = lesion
    augment = augment_from({"kind": "dermoscope", **NONE}, InputSpec(kind="rgb", height=64, width=64))
    changed, outline = augment.apply(picture, mask, np.random.default_rng(1))
    assert outline is not None
    inside, inside_before = changed[outline > 0.5].mean(axis=0), picture[mask > 0.5].mean(axis=0)
    assert inside == pytest.approx(inside_before, abs=0.02)
    assert augment.mix(picture[None], np.random.default_rng(0)) is not None


def test_the_outline_goes_with_the_lesion(lesion: tuple[np.ndarray, np.ndarray]) -> None:
    picture, mask = lesion
    dark_before = picture.mean(axis=-1)[mask > 0.5].mean()
    for change, factor in ((skin.surround, 0.6), (skin.enlarge, 1.5)):
        changed, outline = change(picture, mask, factor)
        assert outline.sum() == pytest.approx(mask.sum() * factor**2, rel=0.08)
        light = changed.mean(axis=-1)
        assert light[outline > 0.5].mean() == pytest.approx(dark_before, abs=0.02)
        assert light[outline < 0.5].mean() > dark_before + 0.1


def test_what_lies_around_a_smaller_picture_is_skin_without_lesion(lesion: tuple[np.ndarray, np.ndarray]) -> None:
    picture, mask = lesion
    bare = skin.plain_skin(picture, mask)
    assert bare is not None
    around = picture[mask < 0.5].mean(axis=0)
    assert bare[mask > 0.5].mean(axis=0) == pytest.approx(around, abs=0.06)
    assert skin.plain_skin(picture, np.ones_like(mask)) is None
    changed, _ = skin.surround(picture, np.ones_like(mask), 0.5)
    assert changed.shape == picture.shape


def test_hue_and_saturation_leave_grey_and_luminance_alone(lesion: tuple[np.ndarray, np.ndarray]) -> None:
    picture = lesion[0] * np.float32(0.6) + np.float32(0.2)
    turned = skin.turn_hue(picture, 12.0, 0.7)
    assert (turned @ skin.YIQ[0]) == pytest.approx(picture @ skin.YIQ[0], abs=0.01)
    assert np.ptp(turned, axis=-1).mean() < 0.85 * np.ptp(picture, axis=-1).mean()
    grey = np.full((8, 8, 3), 0.4, dtype=np.float32)
    assert skin.turn_hue(grey, 40.0, 2.0) == pytest.approx(grey, abs=0.01)


def test_tone_curves_bend_the_middle_and_keep_the_ends() -> None:
    ramp = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None, :, None], 3, axis=2)
    assert skin.bend(ramp, 0.5) == pytest.approx(ramp**0.5, abs=0.02)
    assert skin.bend(ramp, (1.0, 2.0, 1.0))[0, 32] == pytest.approx((ramp[0, 32] ** np.asarray([1, 2, 1])), abs=0.01)


def test_a_rim_is_dark_outside_its_circle_alone(lesion: tuple[np.ndarray, np.ndarray]) -> None:
    picture, _ = lesion
    inside = skin.inside_rim(picture.shape, 0.45, (0.0, 0.0), 0.0)
    rimmed = skin.put_rim(picture, inside, 0.03)
    assert rimmed[0, 0] == pytest.approx(0.03) and np.array_equal(rimmed[36, 48], picture[36, 48])
    assert inside.mean() == pytest.approx(0.77, abs=0.03)
    fallen = skin.vignette(picture, 0.6)
    assert fallen[0, 0].mean() < 0.5 * picture[0, 0].mean() and fallen[36, 48] == pytest.approx(
        picture[36, 48], abs=0.01
    )


@pytest.mark.parametrize("colours", [None, {"norm": 6, "reference": (0.77, 0.6, 0.63)}])
def test_a_recipe_that_draws_it_feeds_the_same_batch_again(colours: object, tmp_path: Path) -> None:
    recipe = load_recipe("lesion_short_varied")
    small = recipe.input.model_dump() | {"height": 48, "width": 64, "colours": colours}
    spec = InputSpec.model_validate(small)
    arrays = load_arrays([Lesions(write_lesions(tmp_path / "ham", n=28))], spec, recipe.labels, (12, 16), workers=1)
    groups = groups_by(arrays, np.arange(len(arrays)), recipe.shares, patients_first=False)
    augment = augment_from(recipe.augment, spec)
    first, again = (train_batch(arrays, groups, augment, 8, 1, 0, None, recipe.mixup) for _ in range(2))
    assert first[0].shape == (8, 48, 64, 3) and np.array_equal(first[0], again[0])
    assert 0 <= first[1]["mask_logits"].min() < first[1]["mask_logits"].max() <= 1
    plain = arrays.stacked(np.arange(len(arrays)))
    lights = np.asarray([light_of(picture, 6.0) for picture in plain])
    spread = (lights / lights.mean(axis=1, keepdims=True)).std(axis=0).max()
    assert (spread < 0.01) == (colours is not None)
