"""One network for the mask of a bleed and for the labels of its slice.

A light U-Net decoder (Ronneberger et al. 2015) on an encoder's pyramid. The slice's logits see the pooled deepest
features and the mean of the highest mask logits, so that slices with a label and no mask still teach the mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.packages.card import InputSpec
from worker.packages.networks.effnet_lite import BN_MOMENTUM, DEPTH, TOP, encoder

if TYPE_CHECKING:
    import keras


def effnet_lite_unet(
    spec: InputSpec,
    classes: int,
    decoder: tuple[int, ...] = (96, 64, 48, 32),
    dropout: float = 0.3,
    top_share: float = 0.003,
    depth: int = DEPTH,
    top: int = TOP,
) -> keras.Model:
    """U-Net on EfficientNet-Lite0; the mask has half the input's size (stride 2), or a quarter with three decoder
    stages.

    The encoder sees neighbouring slices in the brain's window. Wide windows of the slice (``spec.wide_windows``) go
    through two convolutions of their own, which begin by adding nothing: at stride 4 to the encoder, at stride 2 to
    what the decoder gets of it. So the encoder's first blocks may keep their ImageNet weights, and cost no gradients.

    Parameters
    ----------
    classes : int
        Number of slice labels.
    decoder : tuple of int
        Channels at stride 16, 8, 4 and 2.
    top_share : float
        Share of the mask's pixels whose logits make the peak term.
    depth, top : int
        As of :func:`worker.packages.networks.effnet_lite.encoder`.
    """
    import keras
    from keras import layers

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    wide = len(spec.wide_windows)
    maps = _wide_maps(image[..., spec.channels - wide :]) if wide else {}
    features = encoder(image[..., : spec.channels - wide] if wide else image, depth, top, maps.get("s4"))
    if wide:
        features["s2"] = layers.Add(name="beside_s2")([features["s2"], maps["s2"]])
    pooled = layers.GlobalAveragePooling2D(name="pool")(features["head"])
    x = features["s32"]
    for channels, skip in zip(decoder, ("s16", "s8", "s4", "s2"), strict=False):
        x = _up(x, features[skip], channels, f"up_{skip}")
    return _heads(keras, layers, image, pooled, x, classes, dropout, top_share)


def _wide_maps(x: Any) -> dict[str, Any]:
    """Maps of the wide windows in the shape of the encoder's at strides 2 and 4; zero before they are taught."""
    from keras import layers

    maps = {}
    for stride, channels in ((2, 16), (4, 24)):
        x = layers.Conv2D(channels, 3, 2, padding="same", activation="relu", name=f"wide_conv_{stride}")(x)
        maps[f"s{stride}"] = layers.Conv2D(channels, 1, kernel_initializer="zeros", name=f"wide_out_{stride}")(x)
    return maps


def tiny_unet(spec: InputSpec, classes: int, width: int = 8, top_share: float = 0.01) -> keras.Model:
    """The same outputs from a few thousand weights: for tests and for trying a recipe out."""
    import keras
    from keras import layers

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    a = _conv(image, width, 3, "enc_a", stride=2)
    b = _conv(a, 2 * width, 3, "enc_b", stride=2)
    c = _conv(b, 4 * width, 3, "enc_c", stride=2)
    x = _up(_up(c, b, 2 * width, "up_b"), a, width, "up_a")
    pooled = layers.GlobalAveragePooling2D(name="pool")(c)
    return _heads(keras, layers, image, pooled, x, classes, 0.1, top_share)


def _heads(
    keras: Any, layers: Any, image: Any, pooled: Any, x: Any, classes: int, dropout: float, top_share: float
) -> keras.Model:
    mask = layers.Conv2D(1, 1, name="mask_conv", bias_initializer=keras.initializers.Constant(-3.0))(x)
    height, width = mask.shape[1], mask.shape[2]
    mask = layers.Reshape((height, width), name="mask_logits")(mask)
    flat = layers.Reshape((height * width,), name="mask_flat")(mask)
    top = _top_values(flat, max(1, round(top_share * height * width)))
    peak = layers.GlobalAveragePooling1D(name="peak_mean")(layers.Reshape((-1, 1), name="peak_values")(top))
    joined = layers.Concatenate(name="evidence")([layers.Dropout(dropout, name="drop")(pooled), peak])
    logits = layers.Dense(classes, name="logits")(joined)
    outputs = {"logits": logits, "mask_logits": mask, "peak": peak}
    return keras.Model(image, outputs, name="segmenter")


def _top_values(flat: Any, k: int) -> Any:
    from keras import ops

    values, _ = ops.top_k(flat, k, sorted=False)
    return values


def _up(x: Any, skip: Any, channels: int, name: str) -> Any:
    from keras import layers

    x = _conv(x, channels, 1, f"{name}_reduce")
    x = layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_nearest")(x)
    side = _conv(skip, channels, 1, f"{name}_skip")
    return _conv(layers.Add(name=f"{name}_add")([x, side]), channels, 3, f"{name}_conv")


def _conv(x: Any, channels: int, kernel: int, name: str, stride: int = 1) -> Any:
    from keras import layers

    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=1e-3, momentum=BN_MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
