"""Where a network's first weights come from. Nothing is downloaded unless ``imagenet`` is asked for by name."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from firstread.errors import FirstreadError
from worker.packages.networks.joined import prefix as member_prefix
from worker.packages.networks.pneumonia import BASES
from worker.packages.weights import WeightsMismatchError, load_by_layer, settle

if TYPE_CHECKING:
    import keras

ENCODER_PREFIXES = (
    "conv_stem",
    "blocks_",
    "conv_head",
    "conv2d",
    "batch_normalization",
    "mixed",
    "stem_",
    "block",
    "top_conv",
    "top_bn",
    "conv1_",
    "conv2_",
    "conv3_",
    "conv4_",
    "conv5_",
    "conv_7b",
)
"""Layer names of pre-trained encoders; ``bn0`` and ``bn1`` are EfficientNet-Lite's outer norms."""
TORCH_ENCODER = ("_conv_stem", "_bn0", "_blocks.", "_conv_head", "_bn1")
"""How the names of its layers begin in an npz with PyTorch names."""
APPLICATIONS = {"keras_transfer": "", "inception_v3_classifier": "InceptionV3", "lesion_resnet50": "ResNet50"}
"""Builder -> its network in Keras's applications; of ``keras_transfer`` the model's name says which."""
MEMBER = re.compile(r"m(\d+)_")
"""How the names of a joined network's layers begin."""
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's red, green and blue, as shares of their range."""


class WeightsError(FirstreadError):
    """The starting weights do not exist or do not fit the network."""


def load_start(model: keras.Model, weights: str, builder: str) -> None:
    """Fill a fresh network: ``none``, ``imagenet``, or a path.

    A path may be an npz with PyTorch names (EfficientNet-Lite), an npz by Keras layer name (InceptionV3), a package's
    ``weights.npz`` (of a joined one, the first member that fits), a ``.weights.h5``, the ``checkpoint.npz`` of a run of
    the same network, or (for :data:`APPLICATIONS`) the ``.h5`` file of the Keras application without its top.

    Raises
    ------
    WeightsError
        If the file is missing or is for another network.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        load_keras_imagenet(model, builder)
        return
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f"no weights file {path.name}; give --weights PATH, imagenet or none")
    try:
        if builder in APPLICATIONS and path.suffix == ".h5" and not path.name.endswith(".weights.h5"):
            copy_application(model, builder, str(path))
        elif path.suffix == ".h5":
            model.load_weights(path)
        elif _has_torch_names(path):
            _require_filled(load_torch_encoder(model, path))
        elif _has_variable_names(path):
            _require_filled(_load_encoder(model, path))
        elif _is_checkpoint(path):
            _load_checkpoint(model, path)
        elif _is_joined(path) and not any(layer.name.startswith(member_prefix(0)) for layer in model.layers):
            _load_member(model, path)
        else:
            load_by_layer(model, path)
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path.name} does not fit the network: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{path.name} cannot be read, it may be cut off: {error}") from error


def _require_filled(layers: int) -> None:
    if not layers:
        raise ValueError("it is of an encoder, and the network has none of its layers")


def load_keras_imagenet(model: keras.Model, builder: str) -> None:
    """Copy an application's ImageNet weights, layer by layer in order of creation; Keras downloads them if need be.

    Raises
    ------
    WeightsError
        For a builder that Keras has no ImageNet weights for.
    """
    if builder not in APPLICATIONS:
        raise WeightsError(f"Keras has no ImageNet weights for {builder}; give --weights PATH")
    copy_application(model, builder)


def _copy_inception(model: keras.Model, source: keras.Model) -> None:
    """Weights of Keras's InceptionV3 onto ours, convolution by convolution in the order of their numbers."""
    import keras

    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization):
        prefix = "conv2d" if kind is keras.layers.Conv2D else "batch_normalization"
        theirs = sorted((x for x in source.layers if isinstance(x, kind)), key=_number)
        ours = sorted((x for x in model.layers if isinstance(x, kind) and x.name.startswith(prefix)), key=_number)
        for target, layer in zip(ours, theirs, strict=True):
            target.set_weights(layer.get_weights())


def copy_application(model: keras.Model, builder: str, weights: str = "imagenet") -> None:
    """Weights of the builder's application, or the one that the model's name begins with, onto its layers.

    Parameters
    ----------
    weights : str
        ``imagenet``, or the path of the application's ``.h5`` file without its top.
    """
    import keras

    base = APPLICATIONS[builder] or next(name for name in BASES if model.name.startswith(f"{name.lower()}_"))
    if base == "EfficientNetLite0":
        raise WeightsError(f"{base} is none of Keras's applications: give its npz")
    source = getattr(keras.applications, base)(include_top=False, weights=weights)
    if base == "InceptionV3":
        _copy_inception(model, source)
        return
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


def load_torch_encoder(model: keras.Model, npz_path: Path) -> int:
    """Fill the encoder's layers of ``model`` from an npz with PyTorch names.

    Kernels are transposed (OIHW to HWIO, depthwise (C, 1, k, k) to (k, k, C, 1)). A stem of one channel gets the sum
    over the colours, which is the same on grey input. Blocks that the network leaves out are passed over, and so is a
    layer of another shape (a narrower head).

    Returns
    -------
    int
        Number of layers that were filled.

    Raises
    ------
    KeyError
        If the file lacks a layer of the encoder.
    """
    filled = 0
    with np.load(npz_path) as arrays:
        for layer in model.layers:
            stem = _torch_name(layer.name)
            if not stem.startswith(TORCH_ENCODER) or not layer.weights:
                continue
            weight = arrays[f"{stem}.weight"].astype(np.float32)
            if weight.ndim == 1:
                rest = [arrays[f"{stem}.{part}"].astype(np.float32) for part in ("bias", "running_mean", "running_var")]
                values = [weight, *rest]
            else:
                kernel = weight.transpose(2, 3, 0, 1) if "depthwise" in stem else weight.transpose(2, 3, 1, 0)
                if stem == "_conv_stem" and layer.kernel.shape[2] == 1:
                    kernel = kernel.sum(axis=2, keepdims=True)
                values = [kernel]
            if all(value.shape == tuple(own.shape) for value, own in zip(values, layer.weights, strict=True)):
                layer.set_weights(values)
                filled += 1
    return filled


def set_encoder_trainable(model: keras.Model, trainable: bool) -> None:
    """Freeze or free the encoder's layers."""
    for layer in model.layers:
        if is_encoder(layer.name):
            layer.trainable = trainable


def is_encoder(layer_name: str) -> bool:
    """Whether a layer of that name belongs to a pre-trained encoder."""
    return layer_name.startswith(ENCODER_PREFIXES) or layer_name in ("bn0", "bn1", "normalization")


def _has_variable_names(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    with np.load(path) as arrays:
        return any(name.endswith("/kernel") for name in arrays.files)


def _load_encoder(model: keras.Model, path: Path) -> int:
    """Fill the encoder from ``<layer>/<variable>`` arrays, the file's own classifier left out; gives the layers filled.

    Raises
    ------
    KeyError
        If the file lacks a layer of the encoder.
    """
    encoder = [layer for layer in model.layers if layer.weights and layer.name.startswith(ENCODER_PREFIXES)]
    with np.load(path) as arrays:
        for layer in encoder:
            layer.set_weights([arrays[f"{layer.name}/{v.name}"].astype(np.float32) for v in layer.weights])
    settle(model)
    return len(encoder)


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


def _is_joined(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    with np.load(path) as arrays:
        return bool(arrays.files) and all(MEMBER.match(name) for name in arrays.files)


def _load_member(model: keras.Model, path: Path) -> None:
    """Weights of the first member of a joined network that fits.

    Raises
    ------
    WeightsMismatchError
        If none does.
    """
    with np.load(path) as arrays:
        members = 1 + max(int(found[1]) for name in arrays.files if (found := MEMBER.match(name)))
    for index in range(members):
        try:
            load_by_layer(model, path, member_prefix(index))
        except WeightsMismatchError:
            if index == members - 1:
                raise
        else:
            return


def _has_torch_names(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    with np.load(path) as arrays:
        return "_conv_stem.weight" in arrays.files


def _torch_name(layer_name: str) -> str:
    if layer_name.startswith("blocks_"):
        _, index, rest = layer_name.split("_", 2)
        return f"_blocks.{index}._{rest}"
    return f"_{layer_name}"


def _number(layer: keras.layers.Layer) -> int:
    tail = layer.name.rsplit("_", 1)[-1]
    return int(tail) if tail.isdigit() else 0
