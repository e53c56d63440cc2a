"""The device that networks run on: how much memory it has, and with which arithmetic.

Set once by the process that serves, before it loads the first package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import keras

CPU_BATCHES: Final = (1, 8)
"""Shapes of batches on a processor: what a batch of 32 needs of memory TensorFlow keeps for good, 220 MB, and 9 rows
would be filled up to it."""

GPU_BATCHES: Final = (1, 8, 32)
"""Those of a GPU below its largest."""

LARGEST_BATCH: Final = 256
MEMORY_SHARE: Final = 0.4
"""Of the memory of a GPU, what the images of one batch may take; the rest is for weights, workspaces and others."""

_BYTES: Final = 4


@dataclass
class Device:
    """Attributes
    ----------
    free_bytes : int or None
        Memory of the GPU that is free at the start; None for a processor.
    mixed_precision : bool
        Whether a GPU computes in float16, with weights in float32.
    """

    free_bytes: int | None = None
    mixed_precision: bool = False


DEVICE: Final = Device()


def batch_sizes(free_bytes: int | None, image_bytes: int) -> tuple[int, ...]:
    """Shapes of batches of a network, rising; the largest is a power of two by the memory of the device.

    Parameters
    ----------
    free_bytes : int or None
        Of the device; None for a processor.
    image_bytes : int
        What the network takes for one image.
    """
    if free_bytes is None:
        return CPU_BATCHES
    fitting = max(1, int(MEMORY_SHARE * free_bytes) // max(1, image_bytes))
    largest = min(LARGEST_BATCH, 1 << (fitting.bit_length() - 1))
    return (*(size for size in GPU_BATCHES if size < largest), largest)


def image_bytes(model: keras.Model) -> int:
    """What a network takes for one image at the most: the outputs of all of its layers, none of them freed."""
    outputs = [tensor for layer in model.layers for tensor in _listed(layer.output)]
    return sum(_BYTES * math.prod(side or 1 for side in tensor.shape[1:]) for tensor in outputs)


def _listed(output: object) -> list[keras.KerasTensor]:
    import keras

    return list(keras.tree.flatten(output))
