"""Networks for skin lesions: one that outlines and names, and the published pair (U-Net, ResNet-50)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.packages.card import InputSpec
from worker.packages.networks.effnet_lite import BN_MOMENTUM, DEPTH, TOP, encoder
from worker.packages.networks.resnet import CAFFE_MEANS, RESNET50, resnet

if TYPE_CHECKING:
    import keras


def lesion_lite(
    spec: InputSpec,
    classes: int,
    decoder: tuple[int, ...] = (64, 48, 32),
    dropout: float = 0.3,
    context: int = 64,
    depth: int = DEPTH,
    top: int = TOP,
) -> keras.Model:
    """EfficientNet-Lite0 with the diagnosis at its end and a light decoder for the outline.

    The decoder starts at stride 16, where the size of a 4:3 picture still halves evenly, and takes up the deepest
    features through ``context`` channels that are the same at every place. Mask and diagnosis are learnt together.

    Parameters
    ----------
    spec : InputSpec
        Height and width must be multiples of 16.
    classes : int
        Number of diagnoses: ``logits`` (n, classes).
    decoder : tuple of int
        Channels at strides 16, 8 and 4 (and 2, where a fourth is given): ``mask_logits`` has the last one's size.
    depth, top : int
        As of :func:`worker.packages.networks.effnet_lite.encoder`.
    """
    import keras
    from keras import layers

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    features = encoder(image, depth, top)
    pooled = layers.GlobalAveragePooling2D(name="pool")(features["head"])
    logits = layers.Dense(classes, name="logits")(layers.Dropout(dropout, name="drop")(pooled))
    x = _conv(features["s16"], decoder[0], 1, "context_local")
    if context:
        everywhere = layers.Dense(decoder[0], name="context_dense")(
            layers.Dense(context, activation="relu", name="context_squeeze")(pooled)
        )
        x = layers.Add(name="context_add")([x, layers.Reshape((1, 1, decoder[0]), name="context_place")(everywhere)])
    x = _conv(x, decoder[0], 3, "context_conv")
    for channels, skip in zip(decoder[1:], ("s8", "s4", "s2"), strict=False):
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"up_{skip}")(_conv(x, channels, 1, f"to_{skip}"))
        x = layers.Add(name=f"join_{skip}")([x, _conv(features[skip], channels, 1, f"skip_{skip}")])
        x = _conv(x, channels, 3, f"conv_{skip}")
    mask = layers.Conv2D(1, 1, name="mask_conv")(x)
    mask = layers.Reshape((mask.shape[1], mask.shape[2]), name="mask_logits")(mask)
    return keras.Model(image, {"logits": logits, "mask_logits": mask}, name="lesion_lite")


def lesion_unet(
    spec: InputSpec, classes: int = 0, filters: tuple[int, ...] = (32, 64, 128, 256, 512), dropout: float = 0.3
) -> keras.Model:
    """The published U-Net: convolution, dropout, max pooling; then transposed convolution, concatenation, dropout.

    Parameters
    ----------
    spec : InputSpec
        Height and width must be multiples of two to the power of ``len(filters) - 1``.
    classes : int
        0 for an outline alone: ``mask_logits`` (n, H, W) at the input's own size.
    filters : tuple of int
        Channels of each level, the finest first.
    """
    import keras
    from keras import layers

    def level(x: Any, width: int, name: str) -> Any:
        x = layers.Conv2D(width, 3, padding="same", kernel_initializer="he_normal", name=f"{name}_a")(x)
        x = layers.Dropout(dropout, name=f"{name}_drop")(layers.ReLU(name=f"{name}_a_relu")(x))
        x = layers.Conv2D(width, 3, padding="same", kernel_initializer="he_normal", name=f"{name}_b")(x)
        return layers.ReLU(name=f"{name}_b_relu")(x)

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    x, skips = image, []
    for index, width in enumerate(filters[:-1]):
        skips.append(level(x, width, f"down{index}"))
        x = layers.MaxPooling2D(2, name=f"down{index}_pool")(skips[-1])
    x = level(x, filters[-1], "bottom")
    outputs = {}
    if classes:
        pooled = layers.GlobalAveragePooling2D(name="pool")(x)
        outputs["logits"] = layers.Dense(classes, name="logits")(pooled)
    for index, (width, skip) in reversed(list(enumerate(zip(filters[:-1], skips, strict=True)))):
        x = layers.Conv2DTranspose(width, 2, 2, padding="same", name=f"up{index}_transpose")(x)
        x = level(layers.Concatenate(name=f"up{index}_join")([x, skip]), width, f"up{index}")
    mask = layers.Conv2D(1, 1, name="mask_conv")(x)
    outputs["mask_logits"] = layers.Reshape((spec.height, spec.width), name="mask_logits")(mask)
    return keras.Model(image, outputs, name="lesion_unet")


def lesion_resnet50(
    spec: InputSpec, classes: int, dropout: float = 0.0, blocks: tuple[int, ...] = RESNET50, width: int = 64
) -> keras.Model:
    """The published classifier: ResNet-50 (He et al. 2016), average pooling, one dense layer.

    The network itself brings colours in [0, 1] to what Keras's ImageNet weights expect. Fewer ``blocks`` and less
    ``width`` make a smaller one of the same kind.
    """
    import keras
    from keras import layers, ops

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    bgr = layers.Rescaling(255.0, offset=[-mean for mean in CAFFE_MEANS], name="caffe")(ops.flip(image, axis=-1))
    pooled = layers.GlobalAveragePooling2D(name="pool")(resnet(bgr, tuple(blocks), width))
    logits = layers.Dense(classes, name="logits")(layers.Dropout(dropout, name="drop")(pooled))
    return keras.Model(image, {"logits": logits}, name="lesion_resnet50")


def _conv(x: Any, channels: int, kernel: int, name: str) -> Any:
    from keras import layers

    x = layers.Conv2D(channels, kernel, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=1e-3, momentum=BN_MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
