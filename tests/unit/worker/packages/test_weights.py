"""Names of layers in the file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.packages.networks.joined import prefix
from worker.packages.weights import WeightsMismatchError, load_by_layer, save_by_layer, stored_names

keras: Any = pytest.importorskip("keras")


def _network(seed: int) -> Any:
    """Layers of one class with and without names, as Keras's applications have them."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 1), name="image")
    left = keras.layers.Conv2D(2, 3, padding="same")(image)
    right = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 1)(image))
    x = keras.layers.Conv2D(3, 3, name="last_conv")(keras.layers.Add()([left, right]))
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def test_a_network_built_later_in_the_process_takes_the_weights(tmp_path: Path) -> None:
    first, second = _network(1), _network(2)
    assert {layer.name for layer in first.layers} != {layer.name for layer in second.layers}, "Keras counts on"
    save_by_layer(second, tmp_path / "weights.npz", "float32")
    load_by_layer(first, tmp_path / "weights.npz")
    picture = np.random.default_rng(0).random((1, 8, 8, 1), dtype=np.float32)
    np.testing.assert_array_equal(first(picture), second(picture))


def test_unnamed_layers_count_from_0_in_the_order_of_creation(tmp_path: Path) -> None:
    names = stored_names(_network(1))
    assert sorted(names.values()) == [
        *("add", "batch_normalization", "conv2d", "conv2d_1", "dense", "flatten", "image", "last_conv"),
    ]
    by_number = sorted((name for name in names if name.startswith("conv2d")), key=lambda name: (len(name), name))
    assert [names[name] for name in by_number] == ["conv2d", "conv2d_1"]
    save_by_layer(_network(1), tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz") as stored:
        assert "conv2d_1/0" in stored.files and "last_conv/1" in stored.files


def test_each_member_of_a_joined_network_counts_for_itself() -> None:
    image = keras.Input((4,), name="image")
    names = [f"{prefix(0)}dense_7", f"{prefix(0)}dense_9", f"{prefix(1)}dense_12"]
    joined = keras.Model(image, keras.layers.Add(name="sum")([keras.layers.Dense(1, name=n)(image) for n in names]))
    stored = stored_names(joined)
    assert [stored[name] for name in names] == ["m0_dense", "m0_dense_1", "m1_dense"]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    image = keras.Input((4,), name="image")
    save_by_layer(keras.Model(image, keras.layers.Dense(1)(image)), tmp_path / "weights.npz")
    with pytest.raises(WeightsMismatchError, match="dense/0 of shape"):
        load_by_layer(keras.Model(image, keras.layers.Dense(2)(image)), tmp_path / "weights.npz")


def test_a_value_beyond_float16_keeps_its_array_whole(tmp_path: Path) -> None:
    image = keras.Input((4,), name="image")
    model = keras.Model(image, keras.layers.BatchNormalization(name="norm")(image))
    variance = np.array([91895.31, 0.1, 1, 2], np.float32)
    model.get_layer("norm").set_weights([*model.get_layer("norm").get_weights()[:3], variance])
    save_by_layer(model, tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz") as stored:
        assert {name: stored[name].dtype.name for name in stored.files} == {
            **dict.fromkeys(("norm/0", "norm/1", "norm/2"), "float16"),
            "norm/3": "float32",
        }
    model.get_layer("norm").set_weights([np.zeros(4)] * 4)
    load_by_layer(model, tmp_path / "weights.npz")
    np.testing.assert_array_equal(model.get_layer("norm").get_weights()[3], variance)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    image = keras.Input((4,), name="image")
    model = keras.Model(image, keras.layers.Dense(1)(image))
    model.layers[1].set_weights([np.full((4, 1), np.inf), np.zeros(1)])
    with pytest.raises(WeightsMismatchError, match="dense has weights that are not finite"):
        save_by_layer(model, tmp_path / "weights.npz")
    assert not (tmp_path / "weights.npz").exists()
