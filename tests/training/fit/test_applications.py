"""``--weights FILE.h5`` of Keras applications: the base of a recipe then acts as the application does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.fit.transfer import WeightsError, load_start, stem_gain
from worker.packages.card import InputSpec
from worker.packages.networks import build
from worker.packages.networks.resnet import CAFFE_MEANS

SIDE = 75


def _ranged(x: np.ndarray, base: str) -> np.ndarray:
    """Colours in [0, 1] as Keras's own preprocessing of a base gives them."""
    if base == "ResNet50":
        return np.asarray(x[..., ::-1] * 255 - np.asarray(CAFFE_MEANS), dtype=np.float32)
    if base.startswith("EfficientNet"):
        # the file's weights expect a division that Keras adds where it loads them itself
        return np.asarray(x * 255 * stem_gain(), dtype=np.float32)
    return np.asarray(x * 2 - 1, dtype=np.float32)


def _written(base: str, path: Path) -> Any:
    """An application whose norms are not as they start, and its file."""
    import keras

    # of the size it is asked at: without one EfficientNet pads odd maps otherwise
    source = getattr(keras.applications, base)(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            moved = [value + rng.uniform(0, 0.1, value.shape).astype(value.dtype) for value in layer.get_weights()]
            layer.set_weights(moved)
    source.save(path)
    return source


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("builder", "base", "channels"),
    [
        ("keras_transfer", "ResNet50", 1),
        ("keras_transfer", "InceptionResNetV2", 1),
        ("keras_transfer", "EfficientNetB7", 1),
        ("keras_transfer", "InceptionV3", 1),
        ("inception_v3_classifier", "InceptionV3", 3),
        ("lesion_resnet50", "ResNet50", 3),
    ],
)
def test_a_base_acts_as_its_application_does(builder: str, base: str, channels: int, tmp_path: Path) -> None:
    import keras

    source = _written(base, tmp_path / f"{base}_notop.h5")
    own = {"base": base, "head": "plain"} if builder == "keras_transfer" else {}
    spec = InputSpec(kind="grey" if channels == 1 else "rgb", height=SIDE, width=SIDE)
    model = build.build({"builder": builder, "classes": 4, **own}, spec)
    load_start(model, str(tmp_path / f"{base}_notop.h5"), builder)
    x = np.random.default_rng(1).random((2, SIDE, SIDE, channels), dtype=np.float32)
    features = keras.Model(model.inputs, model.get_layer("pool").input)(x, training=False)
    colours = np.repeat(x, 3, axis=-1) if channels == 1 else x
    seen = colours if builder == "inception_v3_classifier" else _ranged(colours, base)
    expected = np.asarray(source(seen, training=False))
    np.testing.assert_allclose(np.asarray(features), expected, rtol=2e-3, atol=2e-3 * float(np.abs(expected).max()))


def test_a_base_that_keras_has_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lite.h5").write_bytes(b"x")
    spec = InputSpec(kind="grey", height=32, width=32)
    architecture = {"builder": "keras_transfer", "classes": 4, "base": "EfficientNetLite0", "head": "plain"}
    model = build.build(architecture, spec)
    with pytest.raises(WeightsError, match="none of Keras's applications"):
        load_start(model, str(tmp_path / "lite.h5"), "keras_transfer")
