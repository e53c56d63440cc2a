"""EfficientNet-Lite0 (Tan and Le 2019, the "lite" variant without squeeze-excite) as a flat Keras 3 graph."""

from __future__ import annotations

from typing import Any

STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
"""Expansion, channels, kernel, stride of the first block, and number of blocks of each stage."""

DEPTH, TOP = 16, 1280
BN_MOMENTUM = 0.97


def encoder(x: Any, depth: int = DEPTH, top: int = TOP, beside: Any = None) -> dict[str, Any]:
    """Attach the encoder to a tensor (n, H, W, c).

    Parameters
    ----------
    depth : int
        Number of blocks; 15 leaves out the last, 320 channels wide, which holds a fifth of the weights.
    top : int
        Channels of ``head``; ImageNet's weights have 1,280.
    beside : tensor, optional
        Feature map (n, H/4, W/4, 24) of other channels of the picture, which is added to the last one at stride 4.

    Returns
    -------
    dict
        ``s2`` ... ``s32``: the last feature map at each stride (16, 24, 40, 112, 320 channels; 192 at ``s32`` with 15
        blocks); ``head``: the ``top``-channel map at stride 32 that ImageNet's classifier pools.
    """
    from keras import layers

    pyramid: dict[str, Any] = {}
    x = _conv_bn(x, 32, 3, 2, "conv_stem", "bn0")
    index = stride = 0
    for expansion, channels, kernel, first_stride, repeats in STAGES:
        stride += first_stride - 1
        if beside is not None and (stride, first_stride) == (2, 2):
            x = pyramid["s4"] = layers.Add(name="beside_s4")([x, beside])
        for repeat in range(repeats):
            if index < depth:
                step = first_stride if repeat == 0 else 1
                x = _block(x, f"blocks_{index}", expansion, channels, kernel, step)
                pyramid[f"s{2 << stride}"] = x
            index += 1
    pyramid["head"] = _conv_bn(x, top, 1, 1, "conv_head", "bn1")
    return pyramid


def _block(x: Any, prefix: str, expansion: int, channels: int, kernel: int, stride: int) -> Any:
    from keras import layers

    source, inside = x, x.shape[-1]
    if expansion != 1:
        x = _conv_bn(x, inside * expansion, 1, 1, f"{prefix}_expand_conv", f"{prefix}_bn0")
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{prefix}_depthwise_conv")(x)
    x = _norm(x, f"{prefix}_bn1")
    x = layers.ReLU(6.0, name=f"{prefix}_bn1_relu6")(x)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{prefix}_project_conv")(x)
    x = _norm(x, f"{prefix}_bn2")
    return layers.Add(name=f"{prefix}_add")([x, source]) if stride == 1 and inside == channels else x


def _conv_bn(x: Any, channels: int, kernel: int, stride: int, name: str, norm: str) -> Any:
    from keras import layers

    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6.0, name=f"{norm}_relu6")(_norm(x, norm))


def _norm(x: Any, name: str) -> Any:
    from keras import layers

    return layers.BatchNormalization(epsilon=1e-3, momentum=BN_MOMENTUM, name=name)(x)
