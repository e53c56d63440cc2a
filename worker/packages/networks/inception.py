"""InceptionV3 (Szegedy et al. 2016) as a flat graph with the layer names and order of Keras applications.

Layers are ``conv2d_1`` to ``conv2d_94`` and ``batch_normalization_1`` to ``_94``, whatever else the process has built,
so that weights can be stored and loaded by name.
"""

from __future__ import annotations

from itertools import count
from typing import Any


def inception_v3(x: Any) -> Any:
    """Attach InceptionV3 without its top to a tensor (n, H, W, c); gives (n, h, w, 2048) at stride 32."""
    from keras import layers

    net = _Layers()
    x = net.conv(x, 32, 3, 3, stride=2, padding="valid")
    x = net.conv(net.conv(x, 32, 3, 3, padding="valid"), 64, 3, 3)
    x = layers.MaxPooling2D(3, 2, name="max_pooling2d_1")(x)
    x = net.conv(net.conv(x, 80, 1, 1, padding="valid"), 192, 3, 3, padding="valid")
    x = layers.MaxPooling2D(3, 2, name="max_pooling2d_2")(x)
    for index, pool_channels in enumerate((32, 64, 64)):
        x = net.block_35(x, pool_channels, f"mixed{index}")
    x = net.reduce_17(x, "mixed3")
    for index, channels in enumerate((128, 160, 160, 192)):
        x = net.block_17(x, channels, f"mixed{4 + index}")
    x = net.reduce_8(x, "mixed8")
    for index in range(2):
        x = net.block_8(x, f"mixed{9 + index}")
    return x


class _Layers:
    """Convolutions and blocks, numbered in the order in which they are built."""

    def __init__(self) -> None:
        self.numbers = count(1)

    def conv(self, x: Any, channels: int, rows: int, columns: int, stride: int = 1, padding: str = "same") -> Any:
        from keras import layers

        number = next(self.numbers)
        x = layers.Conv2D(channels, (rows, columns), stride, padding, use_bias=False, name=f"conv2d_{number}")(x)
        x = layers.BatchNormalization(scale=False, epsilon=1e-3, name=f"batch_normalization_{number}")(x)
        return layers.ReLU(name=f"activation_{number}")(x)

    def pooled(self, x: Any, channels: int, name: str) -> Any:
        from keras import layers

        x = layers.AveragePooling2D(3, 1, padding="same", name=f"{name}_average")(x)
        return self.conv(x, channels, 1, 1)

    def block_35(self, x: Any, pool_channels: int, name: str) -> Any:
        one = self.conv(x, 64, 1, 1)
        five = self.conv(self.conv(x, 48, 1, 1), 64, 5, 5)
        three = self.conv(self.conv(self.conv(x, 64, 1, 1), 96, 3, 3), 96, 3, 3)
        return _join([one, five, three, self.pooled(x, pool_channels, name)], name)

    def reduce_17(self, x: Any, name: str) -> Any:
        three = self.conv(x, 384, 3, 3, stride=2, padding="valid")
        double = self.conv(self.conv(x, 64, 1, 1), 96, 3, 3)
        double = self.conv(double, 96, 3, 3, stride=2, padding="valid")
        return _join([three, double, _pool(x, name)], name)

    def block_17(self, x: Any, channels: int, name: str) -> Any:
        one = self.conv(x, 192, 1, 1)
        seven = self.conv(self.conv(self.conv(x, channels, 1, 1), channels, 1, 7), 192, 7, 1)
        double = self.conv(x, channels, 1, 1)
        for rows, columns, width in ((7, 1, channels), (1, 7, channels), (7, 1, channels), (1, 7, 192)):
            double = self.conv(double, width, rows, columns)
        return _join([one, seven, double, self.pooled(x, 192, name)], name)

    def reduce_8(self, x: Any, name: str) -> Any:
        three = self.conv(self.conv(x, 192, 1, 1), 320, 3, 3, stride=2, padding="valid")
        seven = self.conv(self.conv(self.conv(x, 192, 1, 1), 192, 1, 7), 192, 7, 1)
        seven = self.conv(seven, 192, 3, 3, stride=2, padding="valid")
        return _join([three, seven, _pool(x, name)], name)

    def block_8(self, x: Any, name: str) -> Any:
        one = self.conv(x, 320, 1, 1)
        three = self.conv(x, 384, 1, 1)
        three = _join([self.conv(three, 384, 1, 3), self.conv(three, 384, 3, 1)], f"{name}_three")
        double = self.conv(self.conv(x, 448, 1, 1), 384, 3, 3)
        double = _join([self.conv(double, 384, 1, 3), self.conv(double, 384, 3, 1)], f"{name}_double")
        return _join([one, three, double, self.pooled(x, 192, name)], name)


def _join(parts: list[Any], name: str) -> Any:
    from keras import layers

    return layers.Concatenate(name=name)(parts)


def _pool(x: Any, name: str) -> Any:
    from keras import layers

    return layers.MaxPooling2D(3, 2, name=f"{name}_max")(x)
