"""ImageNet weights from Keras applications, for recipes that are told ``--weights imagenet``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def load_keras_imagenet(model: keras.Model, builder: str) -> None:
    """Copy an application's ImageNet weights, layer by layer in order of creation; Keras downloads them if need be.

    Raises
    ------
    WeightsError
        For a builder that Keras has no ImageNet weights for.
    """
    import keras

    if builder == "keras_transfer":
        _copy_application(model, keras)
        return
    if builder == "lesion_resnet50":
        from worker.packages.networks_resnet import load_imagenet

        load_imagenet(model)
        return
    if not builder.startswith("inception_v3"):
        from training.transfer import WeightsError

        raise WeightsError(f"Keras has no ImageNet weights for {builder}; give --weights PATH")
    source = keras.applications.InceptionV3(include_top=False, weights="imagenet")
    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization):
        prefix = "conv2d" if kind is keras.layers.Conv2D else "batch_normalization"
        theirs = sorted((x for x in source.layers if isinstance(x, kind)), key=_number)
        ours = sorted((x for x in model.layers if isinstance(x, kind) and x.name.startswith(prefix)), key=_number)
        for target, layer in zip(ours, theirs, strict=True):
            target.set_weights(layer.get_weights())


def _copy_application(model: keras.Model, keras: Any) -> None:
    """Weights of the application that the model's name begins with, onto its layers in the same order."""
    from worker.packages.networks_pneumonia import BASES

    base = next(name for name in BASES if model.name.startswith(name.lower()))
    source = getattr(keras.applications, base)(include_top=False, weights="imagenet")
    theirs = [layer for layer in source.layers if layer.weights]
    ours = [layer for layer in model.layers if layer.weights][: len(theirs)]
    for target, layer in zip(ours, theirs, strict=True):
        target.set_weights(layer.get_weights())


def _number(layer: keras.layers.Layer) -> int:
    tail = layer.name.rsplit("_", 1)[-1]
    return int(tail) if tail.isdigit() else 0
