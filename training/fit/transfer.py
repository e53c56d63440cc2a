"""Where a network's first weights come from. Nothing is downloaded unless ``imagenet`` is asked for by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from firstread.errors import FirstreadError
from worker.packages.weights import settle

if TYPE_CHECKING:
    import keras

ENCODER_PREFIXES = (
    "conv_stem", "blocks_", "conv_head", "conv2d", "batch_normalization", "mixed",
    "stem_", "block", "top_conv", "top_bn", "conv1_", "conv2_", "conv3_", "conv4_", "conv5_", "conv_7b",
)  # fmt: skip
"""Layer names of pre-trained encoders; ``bn0`` and ``bn1`` are EfficientNet-Lite's outer norms."""


class WeightsError(FirstreadError):
    """The starting weights do not exist or do not fit the network."""


def load_start(model: keras.Model, weights: str, builder: str) -> None:
    """Fill a fresh network: ``none``, ``imagenet``, or a path.

    A path may be an npz with PyTorch names (EfficientNet-Lite), an npz by Keras layer name (InceptionV3), a package's
    ``weights.npz``, a ``.weights.h5``, the ``checkpoint.npz`` of a run of the same network, or (for ``keras_transfer``)
    the ``.h5`` file of the Keras application without its top.

    Raises
    ------
    WeightsError
        If the file is missing or is for another network.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        from training.transfer_imagenet import load_keras_imagenet

        load_keras_imagenet(model, builder)
        return
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"no weights file {path.name}; give --weights PATH, imagenet or none")
    try:
        if builder == "keras_transfer" and path.suffix == ".h5" and not path.name.endswith(".weights.h5"):
            from training.transfer_imagenet import copy_application

            copy_application(model, str(path))
        elif path.suffix == ".h5":
            model.load_weights(path)
        elif _has_torch_names(path):
            from worker.packages.networks.effnet_lite import load_imagenet

            load_imagenet(model, path)
        elif _has_variable_names(path):
            _load_encoder(model, path)
        elif _is_checkpoint(path):
            _load_checkpoint(model, path)
        else:
            from worker.packages.weights import load_by_layer

            load_by_layer(model, path)
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path.name} does not fit the network: {error}") from error


def set_encoder_trainable(model: keras.Model, trainable: bool) -> None:
    """Freeze or free the encoder's layers."""
    for layer in model.layers:
        if layer.name.startswith(ENCODER_PREFIXES) or layer.name in ("bn0", "bn1"):
            layer.trainable = trainable


def _has_variable_names(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    with np.load(path) as arrays:
        return any(name.endswith("/kernel") for name in arrays.files)


def _load_encoder(model: keras.Model, path: Path) -> None:
    """Fill the encoder from ``<layer>/<variable>`` arrays; the file's own classifier is left out.

    Raises
    ------
    KeyError
        If the file lacks a layer of the encoder.
    """
    with np.load(path) as arrays:
        for layer in model.layers:
            if layer.weights and layer.name.startswith(ENCODER_PREFIXES):
                layer.set_weights([arrays[f"{layer.name}/{v.name}"].astype(np.float32) for v in layer.weights])
    settle(model)


def _is_checkpoint(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    with np.load(path) as arrays:
        return {"identity", "step", "m0"} <= set(arrays.files)


def _load_checkpoint(model: keras.Model, path: Path) -> None:
    with np.load(path) as arrays:
        if f"m{len(model.variables)}" in arrays.files:
            raise ValueError("a checkpoint of a larger network")
        for i, variable in enumerate(model.variables):
            variable.assign(arrays[f"m{i}"])
    settle(model)


def _has_torch_names(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    with np.load(path) as arrays:
        return "_conv_stem.weight" in arrays.files
