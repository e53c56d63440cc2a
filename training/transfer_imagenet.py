"""ImageNet weights from Keras applications, for recipes that are told ``--weights imagenet``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def load_keras_imagenet(model: keras.Model, builder: str) -> None:
    """Copy InceptionV3's ImageNet weights, layer by layer in order of creation; Keras downloads them if need be.

    Raises
    ------
    ValueError
        For a builder that Keras has no ImageNet weights for.
    """
    import keras

    if not builder.startswith("inception_v3"):
        raise ValueError(f"Keras has no ImageNet weights for {builder}; give --weights PATH")
    source = keras.applications.InceptionV3(include_top=False, weights="imagenet")
    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization):
        prefix = "conv2d" if kind is keras.layers.Conv2D else "batch_normalization"
        theirs = sorted((x for x in source.layers if isinstance(x, kind)), key=_number)
        ours = sorted((x for x in model.layers if isinstance(x, kind) and x.name.startswith(prefix)), key=_number)
        for target, layer in zip(ours, theirs, strict=True):
            target.set_weights(layer.get_weights())


def _number(layer: keras.layers.Layer) -> int:
    tail = layer.name.rsplit("_", 1)[-1]
    return int(tail) if tail.isdigit() else 0
