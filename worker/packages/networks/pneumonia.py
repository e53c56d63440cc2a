"""Networks for chest films: a small CNN of separable blocks, and classifiers that carry their own class maps.

Every network is one flat graph. ``maps`` holds the class logits before pooling, so that the mean over the map is the
class's logit: the class activation map of Zhou et al. 2016 (arXiv 1512.04150) comes with the forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.packages.card import InputSpec
from worker.packages.networks import effnet_lite as lite
from worker.packages.networks.inception import inception_v3
from worker.packages.networks.resnet import CAFFE_MEANS

if TYPE_CHECKING:
    import keras


def effnet_lite_chest(
    spec: InputSpec, classes: int, dropout: float = 0.2, stride: int = 32, depth: int = lite.DEPTH, top: int = lite.TOP
) -> keras.Model:
    """EfficientNet-Lite0 with one dense layer on the feature map and average pooling behind it.

    Parameters
    ----------
    stride : int
        32 for the whole encoder (3.4 million weights), 16 for the part up to the 112-channel map (0.6 million).
    depth, top : int
        As of :func:`worker.packages.networks.effnet_lite.encoder`.

    Returns
    -------
    keras.Model
        ``logits`` (n, classes) and ``maps`` (n, H/stride, W/stride, classes).
    """
    import keras
    from keras import layers

    inputs = keras.Input((spec.height, spec.width, spec.channels), name="image")
    pyramid = lite.encoder(inputs, depth, top)
    x = pyramid["head"] if stride == 32 else pyramid[f"s{stride}"]
    return _mapped(inputs, layers.SpatialDropout2D(dropout, name="dropout")(x), classes, f"effnet_lite_chest_s{stride}")


def pneumonia_cnn(
    spec: InputSpec,
    classes: int,
    filters: tuple[int, ...] = (24, 32, 64, 128, 192),
    dense: tuple[int, ...] = (128, 64),
    dropout: tuple[float, ...] = (0.4, 0.3),
) -> keras.Model:
    """Blocks of two convolutions, batch normalization and max pooling, then dense blocks.

    The first block has full convolutions, the others separable ones; each dense block is a dense layer with batch
    normalization, ReLU and dropout.

    Returns
    -------
    keras.Model
        ``logits`` (n, classes).
    """
    import keras
    from keras import layers

    inputs = keras.Input((spec.height, spec.width, spec.channels), name="image")
    x: Any = inputs
    for index, width in enumerate(filters):
        kind = layers.Conv2D if index == 0 else layers.SeparableConv2D
        for part in ("a", "b"):
            x = kind(width, 3, padding="same", use_bias=False, name=f"block{index}{part}_conv")(x)
            x = layers.BatchNormalization(momentum=0.97, name=f"block{index}{part}_bn")(x)
            x = layers.ReLU(name=f"block{index}{part}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"block{index}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    for index, (width, rate) in enumerate(zip(dense, dropout, strict=True)):
        x = layers.Dense(width, use_bias=False, name=f"dense{index}")(x)
        x = layers.BatchNormalization(momentum=0.97, name=f"dense{index}_bn")(x)
        x = layers.ReLU(name=f"dense{index}_relu")(x)
        x = layers.Dropout(rate, name=f"dense{index}_dropout")(x)
    return keras.Model(inputs, {"logits": layers.Dense(classes, name="logits")(x)}, name="pneumonia_cnn")


def _mapped(inputs: Any, x: Any, classes: int, name: str) -> keras.Model:
    import keras
    from keras import layers

    maps = layers.Conv2D(classes, 1, name="maps")(x)
    logits = layers.GlobalAveragePooling2D(name="pool")(maps)
    return keras.Model(inputs, {"logits": logits, "maps": maps}, name=name)


def pneumonia_blocks(
    spec: InputSpec,
    classes: int,
    filters: tuple[int, ...] = (16, 32, 64, 128, 256),
    block_dropout: tuple[float, ...] = (0.0, 0.0, 0.0, 0.2, 0.2),
    dense: tuple[int, ...] = (512, 128, 64),
    dense_dropout: tuple[float, ...] = (0.7, 0.5, 0.3),
    norms: bool = True,
    drops: bool = True,
) -> keras.Model:
    """The published CNN of convolution and dense blocks, flattened between them.

    A convolution block is two separable convolutions (the first block's are full ones, without a norm) with ReLU, batch
    normalization, max pooling, and dropout in the last ones; a dense block is a dense layer with ReLU, batch
    normalization and dropout.

    Parameters
    ----------
    norms, drops : bool
        Whether there is batch normalization, and dropout.

    Returns
    -------
    keras.Model
        ``logits`` (n, classes).
    """
    import keras
    from keras import layers

    inputs = keras.Input((spec.height, spec.width, spec.channels), name="image")
    x: Any = inputs
    for index, (width, rate) in enumerate(zip(filters, block_dropout, strict=True)):
        kind = layers.SeparableConv2D if index else layers.Conv2D
        for part in ("a", "b"):
            x = kind(width, 3, padding="same", activation="relu", name=f"conv{index}{part}")(x)
        if norms and index:
            x = layers.BatchNormalization(name=f"conv{index}_norm")(x)
        x = layers.MaxPooling2D(2, name=f"conv{index}_pool")(x)
        if drops and rate:
            x = layers.Dropout(rate, name=f"conv{index}_dropout")(x)
    x = layers.Flatten(name="pool")(x)
    for index, (width, rate) in enumerate(zip(dense, dense_dropout, strict=True)):
        x = layers.Dense(width, activation="relu", name=f"dense{index}")(x)
        if norms:
            x = layers.BatchNormalization(name=f"dense{index}_norm")(x)
        if drops:
            x = layers.Dropout(rate, name=f"dense{index}_dropout")(x)
    return keras.Model(inputs, {"logits": layers.Dense(classes, name="logits")(x)}, name="pneumonia_blocks")


BASES: dict[str, str] = {
    "ResNet50": "caffe",
    "InceptionResNetV2": "minus_one_one",
    "EfficientNetB7": "zero_255",
    "InceptionV3": "minus_one_one",
    "EfficientNetLite0": "lite",
}
"""Bases that a recipe may name, and the range that their weights were trained on.

Keras applications but for the last, and InceptionV3 with the layer names of :mod:`worker.packages.networks.inception`.
"""


def keras_transfer(
    spec: InputSpec,
    classes: int,
    base: str = "EfficientNetB7",
    head: str = "authors",
    dense: tuple[int, ...] = (1024, 512, 256),
    dropout: float = 0.3,
) -> keras.Model:
    """A well-known base under a dense head, as one flat graph; the film becomes three equal channels.

    Parameters
    ----------
    base : str
        One of :data:`BASES`, with fresh weights; ``--weights`` fills them.
    head : str
        ``authors``: global average pooling, batch normalization, dropout, then dense layers each with batch
        normalization. ``plain``: pooling and dropout alone. ``norm_only`` and ``dropout_only``: the dense layers with
        one of the two.

    Raises
    ------
    ValueError
        For a base or a head that is not known.
    """
    import keras
    from keras import layers

    if base not in BASES or head not in ("authors", "plain", "norm_only", "dropout_only"):
        raise ValueError(f"no base {base} with head {head}")
    image = keras.Input((spec.height, spec.width, spec.channels), name="image")
    x: Any = image if spec.channels == 3 else layers.Concatenate(name="grey_to_rgb")([image] * 3)
    x = _ranged(x, BASES[base])
    x = layers.GlobalAveragePooling2D(name="pool")(_based(x, base))
    x = _dense_head(x, dense if head != "plain" else (), head, dropout)
    start = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(classes, kernel_initializer=start, name="logits")(x)
    return keras.Model(image, {"logits": logits}, name=f"{base.lower()}_{head}")


def _based(x: Any, base: str) -> Any:
    """The last feature map of a base."""
    import keras

    if base == "InceptionV3":
        return inception_v3(x)
    if base == "EfficientNetLite0":
        return lite.encoder(x)["head"]
    return getattr(keras.applications, base)(include_top=False, weights=None, input_tensor=x).output


def _ranged(x: Any, kind: str) -> Any:
    """From [0, 1] to the range of the base's weights."""
    from keras import layers

    if kind == "minus_one_one":
        return layers.Rescaling(2.0, offset=-1.0, name="to_base")(x)
    if kind == "caffe":
        return layers.Rescaling(255.0, offset=[-mean for mean in CAFFE_MEANS], name="to_base")(x)
    if kind == "lite":
        return layers.Rescaling(255.0 / 128.0, offset=-127.0 / 128.0, name="to_base")(x)
    return layers.Rescaling(255.0, name="to_base")(x)


def _dense_head(x: Any, dense: tuple[int, ...], head: str, dropout: float) -> Any:
    from keras import layers

    norms, drops = head in ("authors", "norm_only"), head in ("authors", "plain", "dropout_only")
    if norms:
        x = layers.BatchNormalization(name="pool_norm")(x)
    if drops:
        x = layers.Dropout(dropout, name="pool_dropout")(x)
    for index, width in enumerate(dense):
        x = layers.Dense(width, activation="relu", name=f"dense{index}")(x)
        if norms:
            x = layers.BatchNormalization(name=f"dense{index}_norm")(x)
        elif drops:
            x = layers.Dropout(dropout, name=f"dense{index}_dropout")(x)
    return x
