"""Bleeds drawn into slices of phantoms: where they lie, what stays, and what the labels say."""

from __future__ import annotations

import numpy as np
import pytest

from training.augmentation import bleeds
from training.augmentation.bleeds import FLUID_LABEL, Skull, draw_bleed, skull_of
from training.fit.batches import mixed

SIZE = 96


def head(size: int = SIZE, open_skull: bool = False) -> np.ndarray:
    """Three equal slices: a ring of bone with brain and a ventricle in it, on air."""
    v, u = np.mgrid[:size, :size].astype(np.float32)
    far = np.hypot(v - size / 2, u - size / 2) / size
    plane = np.where(far < 0.44, 1.0, 0.0)
    plane[far < 0.38] = 32 / 80
    plane[far < 0.08] = 8 / 80
    if open_skull:
        plane[: size // 2, size // 3 : 2 * size // 3] *= (far < 0.38)[: size // 2, size // 3 : 2 * size // 3]
    grain = np.random.default_rng(0).normal(0, 0.01, plane.shape) * (plane > 0) * (plane < 1)
    return np.repeat((plane + grain)[..., None], 3, axis=-1).astype(np.float32)


@pytest.mark.parametrize("kind", bleeds.KINDS)
def test_blood_lies_inside_the_skull_and_is_denser_than_what_it_replaces(
    kind: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bleeds, "KINDS", (kind,))
    monkeypatch.setattr(bleeds, "CHANCES", (1.0,))
    image, rng, done = head(), np.random.default_rng(1), 0
    skull = skull_of(image[..., 1])
    assert isinstance(skull, Skull)
    for _ in range(20):
        drawn = draw_bleed(image, np.zeros((SIZE // 2, SIZE // 2), np.float32), rng)
        if drawn is None:
            continue
        done += 1
        bled, mask, label = drawn
        assert np.array_equal(bled[~skull.inside], image[~skull.inside]), "bone and air stay"
        blood = np.kron(mask >= 0.5, np.ones((2, 2))).astype(bool) & skull.inside
        assert (bled[..., 1] - image[..., 1])[blood].mean() > 0.05
        assert label in ("intraparenchymal", "epidural", "subdural", FLUID_LABEL)
        if label in ("epidural", "subdural"):
            assert skull.depth[blood].min() < 3
        if label == FLUID_LABEL:
            assert image[..., 1][blood].mean() < 25 / 80
    assert done > 3


def test_no_bleed_where_bone_encloses_nothing() -> None:
    rng = np.random.default_rng(2)
    for image in (np.zeros((SIZE, SIZE, 3), np.float32), head(open_skull=True)):
        assert draw_bleed(image, np.zeros((48, 48), np.float32), rng) is None


def test_drawing_is_a_function_of_the_generator() -> None:
    first, again = (draw_bleed(head(), np.zeros((48, 48), np.float32), np.random.default_rng(5)) for _ in range(2))
    assert first is not None and again is not None
    np.testing.assert_array_equal(first[0], again[0])


def test_mixed_pictures_share_their_targets_and_keep_what_is_unknown() -> None:
    images = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
    labels = np.eye(4, dtype=np.float32)
    labels[3] = -1
    x, targets = mixed(images, {"logits": labels}, 0.4, np.random.default_rng(0))
    known = targets["logits"].min(axis=1) >= 0
    np.testing.assert_allclose(targets["logits"][known].sum(axis=1), 1.0, rtol=1e-6)
    assert (targets["logits"][known].max(axis=1) >= 0.5).all()
    np.testing.assert_allclose(x[known, 0, 0, 0], targets["logits"][known] @ np.arange(4), rtol=1e-5)
    assert set(np.flatnonzero(~known)) >= {3}
