"""A frozen base: cut where the first layer learns, computed once, and unchanged by the training of its head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.recipe_networks import ROWS, drawn_arrays, shrunk
from training.fit import frozen
from training.fit.checkpoint import TrainingError
from training.fit.frozen import _fingerprint, cut, features_of
from training.fit.loop import train
from training.fit.model import build_model, predict
from training.fit.run import Run
from training.fit.transfer import is_encoder
from training.recipe import load_recipe
from worker.packages.weights import save_by_layer


def _weights(model: Any, encoder: bool) -> list[np.ndarray]:
    layers = [layer for layer in model.layers if is_encoder(layer.name) == encoder]
    return [np.asarray(value) for layer in layers for value in layer.get_weights()]


def test_a_classifier_is_cut_behind_its_pooling() -> None:
    import keras
    from keras import layers

    image = keras.Input((8, 8, 1), name="image")
    x = layers.BatchNormalization(name="bn0")(layers.Conv2D(3, 3, name="conv_stem")(image))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(image, {"logits": layers.Dense(2, name="logits")(x)})
    parts = cut(model)
    assert parts.base.output_shape == (None, 3)
    assert [layer.name for layer in parts.head.layers if layer.weights] == ["logits"]
    x = np.random.default_rng(0).random((2, 8, 8, 1), dtype=np.float32)
    np.testing.assert_allclose(parts.head(parts.base(x))["logits"], model(x)["logits"], atol=1e-6)
    plain = keras.Model(image, {"logits": layers.Dense(2)(layers.Flatten()(layers.Conv2D(2, 3, name="own")(image)))})
    with pytest.raises(TrainingError, match="pre-trained encoder"):
        cut(plain)


def test_only_the_head_learns_and_the_base_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = shrunk(load_recipe("lesion_lite"), whole=False).model_copy(update={"frozen_base": True})
    arrays, rows = drawn_arrays(recipe), np.arange(ROWS)
    start = build_model(recipe, "none")
    save_by_layer(start, tmp_path / "start.npz", "float32")
    weights = str(tmp_path / "start.npz")
    run = Run(recipe, arrays, rows, tmp_path / "run", 2, rows[:4], weights, cache=tmp_path / "cache")
    model = train(run)
    assert len(cut(model).base.outputs) > 1, "the decoder takes maps of several sizes"
    assert not any(is_encoder(v.path.split("/")[0]) for v in model.trainable_variables), "so says its structure.txt"
    for before, after in zip(_weights(start, True), _weights(model, True), strict=True):
        np.testing.assert_array_equal(before, after)
    assert any((a != b).any() for a, b in zip(_weights(start, False), _weights(model, False), strict=True))
    assert np.isfinite(predict(model, arrays, rows)["logits"]).all()
    (kept,) = (tmp_path / "cache").glob("features_*.npz")
    monkeypatch.setattr(frozen, "_computed", None)
    features_of(cut(start).base, run)
    assert list((tmp_path / "cache").iterdir()) == [kept]
    with pytest.raises(TrainingError, match="give --weights"):
        features_of(cut(start).base, Run(recipe, arrays, rows, tmp_path / "other", 2))


def test_features_of_pictures_that_were_changed_are_computed_anew(tmp_path: Path) -> None:
    recipe = shrunk(load_recipe("lesion_lite"), whole=False).model_copy(update={"frozen_base": True})
    base, arrays = build_model(recipe, "none"), drawn_arrays(recipe)

    def fingerprint() -> str:
        return _fingerprint(base, Run(recipe, arrays, np.arange(ROWS), tmp_path, 2))

    (tmp_path / "a.png").write_bytes(b"a")
    arrays.items[0] = replace(arrays.items[0], path=tmp_path / "a.png")
    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "a.png").write_bytes(b"ab")
    second = fingerprint()
    arrays.items[0] = replace(arrays.items[0], attributes={"hu_high": "80"})
    assert len({first, second, fingerprint()}) == 3
