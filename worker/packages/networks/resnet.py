"""ResNet (He et al. 2016, arXiv 1512.03385) as a flat Keras 3 graph, with the layer names of ``keras.applications``."""

from __future__ import annotations

from typing import Any

RESNET50 = (3, 4, 6, 3)
EPSILON = 1.001e-5
CAFFE_MEANS = (103.939, 116.779, 123.68)
"""Blue, green and red means that are taken off the input of the ImageNet weights of Keras."""


def resnet(x: Any, blocks: tuple[int, ...] = RESNET50, width: int = 64) -> Any:
    """Attach the trunk to a tensor (n, H, W, 3), up to the last feature map (stride 32 with four stages).

    Parameters
    ----------
    blocks : tuple of int
        Bottleneck blocks of each stage; (3, 4, 6, 3) with ``width`` 64 is ResNet-50.
    """
    from keras import layers

    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = layers.Conv2D(width, 7, 2, name="conv1_conv")(x)
    x = layers.ReLU(name="conv1_relu")(_norm(x, "conv1_bn"))
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(layers.ZeroPadding2D(1, name="pool1_pad")(x))
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and not block else 1
            x = _bottleneck(x, width << stage, stride, not block, f"conv{stage + 2}_block{block + 1}")
    return x


def _bottleneck(x: Any, filters: int, stride: int, project: bool, name: str) -> Any:
    from keras import layers

    shortcut = x
    if project:
        shortcut = layers.Conv2D(4 * filters, 1, stride, name=f"{name}_0_conv")(x)
        shortcut = _norm(shortcut, f"{name}_0_bn")
    x = layers.Conv2D(filters, 1, stride, name=f"{name}_1_conv")(x)
    x = layers.ReLU(name=f"{name}_1_relu")(_norm(x, f"{name}_1_bn"))
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_2_conv")(x)
    x = layers.ReLU(name=f"{name}_2_relu")(_norm(x, f"{name}_2_bn"))
    x = _norm(layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x), f"{name}_3_bn")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)


def _norm(x: Any, name: str) -> Any:
    from keras import layers

    return layers.BatchNormalization(epsilon=EPSILON, name=name)(x)
