"""ImageNet weights from Keras applications, for recipes that are told ``--weights imagenet``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker.packages.weights import settle

if TYPE_CHECKING:
    import keras

IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's red, green and blue, as shares of their range."""


def load_keras_imagenet(model: keras.Model, builder: str) -> None:
    """Copy an application's ImageNet weights, layer by layer in order of creation; Keras downloads them if need be.

    Raises
    ------
    WeightsError
        For a builder that Keras has no ImageNet weights for.
    """
    import keras

    if builder == "keras_transfer":
        copy_application(model)
        return
    if builder == "lesion_resnet50":
        from worker.packages.networks.resnet import load_imagenet

        load_imagenet(model)
        return
    if not builder.startswith("inception_v3"):
        from training.fit.transfer import WeightsError

        raise WeightsError(f"Keras has no ImageNet weights for {builder}; give --weights PATH")
    source = keras.applications.InceptionV3(include_top=False, weights="imagenet")
    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization):
        prefix = "conv2d" if kind is keras.layers.Conv2D else "batch_normalization"
        theirs = sorted((x for x in source.layers if isinstance(x, kind)), key=_number)
        ours = sorted((x for x in model.layers if isinstance(x, kind) and x.name.startswith(prefix)), key=_number)
        for target, layer in zip(ours, theirs, strict=True):
            target.set_weights(layer.get_weights())


def copy_application(model: keras.Model, weights: str = "imagenet") -> None:
    """Weights of the application that the model's name begins with, onto its layers in the same order.

    Parameters
    ----------
    weights : str
        ``imagenet``, or the path of the application's ``.h5`` file without its top.
    """
    import keras

    from worker.packages.networks.pneumonia import BASES

    base = next(name for name in BASES if model.name.startswith(name.lower()))
    source = getattr(keras.applications, base)(include_top=False, weights=weights)
    copy_layers(model, source, stem_gain() if base.startswith("EfficientNet") else None)


def copy_layers(model: keras.Model, source: keras.Model, gain: np.ndarray | None = None) -> None:
    """Weights of ``source`` onto the first layers of the model that have any, in the same order.

    Parameters
    ----------
    gain : ndarray (channels,), optional
        Factors of the input's channels that the weights were trained behind and the model's graph has not: they go into
        the kernel of the first convolution.

    Raises
    ------
    ValueError
        If a layer does not fit.
    """
    import keras

    theirs = [layer for layer in source.layers if layer.weights]
    ours = [layer for layer in model.layers if layer.weights][: len(theirs)]
    for target, layer in zip(ours, theirs, strict=True):
        values = layer.get_weights()
        if gain is not None and isinstance(layer, keras.layers.Conv2D):
            values[0] = values[0] * gain[None, None, :, None].astype(values[0].dtype)
            gain = None
        target.set_weights(values)
    settle(model)


def stem_gain() -> np.ndarray:
    """What EfficientNet's ImageNet weights expect after normalization: another division by the root of the deviation.

    Keras adds a layer for it only where it loads those weights itself (tensorflow#49930).
    """
    return np.asarray(1.0 / np.sqrt(IMAGENET_DEVIATION))


def _number(layer: keras.layers.Layer) -> int:
    tail = layer.name.rsplit("_", 1)[-1]
    return int(tail) if tail.isdigit() else 0
