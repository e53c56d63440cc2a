"""TensorFlow as the runtime of a package: the reference in service; any Keras backend where training predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.packages.card import Card, PackageError
from worker.packages.networks.joined import parts_named
from worker.packages.probabilities import sigmoid
from worker.packages.runtimes.base import Runtime, Sloped
from worker.packages.runtimes.device import CPU_BATCHES, DEVICE, batch_sizes, image_bytes

if TYPE_CHECKING:
    import keras

POOL = "pool"
"""Name of the layer that pools the last feature maps."""
CLASS_LAYER = "maps"
"""Name of the convolution that gives class logits a pixel, in networks that pool those."""
Slopes = Callable[[Any, Any], tuple[Any, Any, Any, Any]]


class Package(Runtime):
    """A Keras network with its card, ready to score.

    Parameters
    ----------
    card : Card
    model : keras.Model
        Flat functional model whose output is a dict with ``logits`` and perhaps ``mask_logits``.
    """

    def __init__(self, card: Card, model: keras.Model) -> None:
        super().__init__(card)
        self.model = model
        self.batch_sizes = (
            CPU_BATCHES if DEVICE.free_bytes is None else batch_sizes(DEVICE.free_bytes, image_bytes(model))
        )
        self._calls: dict[int, Callable[[np.ndarray], Mapping[str, Any]]] = {}
        self._slopes: Slopes | None = None

    def warm_up(self) -> None:
        """Trace and run every batch shape once, so that the first study does not pay for it."""
        shape = (self.card.input.height, self.card.input.width, self.card.input.channels)
        for size in self.batch_sizes:
            self._run(np.zeros((size, *shape), dtype=np.float32))
        if self.card.labels and parts_named(self.model, POOL):
            self.gradients(np.zeros((1, *shape), dtype=np.float32), self.card.labels[0])

    def _sloped(self, x: np.ndarray, column: int) -> Sloped:
        import keras

        if keras.backend.backend() != "tensorflow":
            raise PackageError("heat maps need the TensorFlow backend")
        found = self._traced_slopes()(np.ascontiguousarray(x, dtype=np.float32), np.int32(column))
        maps, slopes, features, below = (np.asarray(value) for value in found)
        return maps, slopes, features, below

    def _traced_slopes(self) -> Slopes:
        """One ``tf.function`` for any number of rows and every finding: eager Grad-CAM takes several times as long.

        The members of a joined network pool maps of one size, which stand side by side as further channels.
        """
        import keras
        import tensorflow as tf

        if self._slopes is None:
            spec = self.card.input
            pools, classed = parts_named(self.model, POOL), parts_named(self.model, CLASS_LAYER)
            if not pools:
                raise PackageError(f"{self.key} pools no feature maps, so that there is no heat map of it")
            pooled = [layer.input for layer in pools]
            activations = [layer.input for layer in classed] or pooled
            network = keras.Model(self.model.inputs, [pooled, activations, self.model.output["logits"]])

            def traced(images: Any, column: Any) -> tuple[Any, Any, Any, Any]:
                with tf.GradientTape() as tape:
                    tape.watch(images)
                    maps, features, logits = network(images, training=False)
                    score = tf.reduce_sum(tf.gather(logits, column, axis=1))
                slopes, below = tape.gradient(score, [maps, features])
                beside = (tf.concat(parts, axis=-1) for parts in (maps, slopes, features, below))
                return tuple(beside)

            pixels = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.float32)
            self._slopes = tf.function(traced, input_signature=[pixels, tf.TensorSpec((), tf.int32)])
        return self._slopes

    def _parts(self, x: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        start = 0
        while start < len(x):
            left = len(x) - start
            size = next((s for s in self.batch_sizes if s >= left), self.batch_sizes[-1])
            rows = np.asarray(x[start : start + size], dtype=np.float32)
            count = len(rows)
            if count < size:
                rows = np.concatenate([rows, np.repeat(rows[-1:], size - count, axis=0)])
            yield {name: value[:count] for name, value in self._run(rows).items()}
            start += count

    def _run(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        import keras
        from keras import ops

        if keras.backend.backend() == "tensorflow":
            raw = self._compiled(len(rows))(np.ascontiguousarray(rows))
        else:
            raw = self.model.predict_on_batch(rows)
        outputs = {}
        if "logits" in raw:
            outputs["logits"] = np.asarray(ops.convert_to_numpy(raw["logits"]), dtype=np.float32)
        if "mask_logits" in raw and self.card.parameters.get("outlines", True):
            outputs["mask"] = sigmoid(ops.convert_to_numpy(raw["mask_logits"]))
        return outputs

    def _compiled(self, size: int) -> Callable[[np.ndarray], Mapping[str, Any]]:
        """One ``tf.function`` a batch size, with a fixed signature."""
        import keras
        import tensorflow as tf

        if size not in self._calls:
            spec = self.card.input
            signature = tf.TensorSpec((size, spec.height, spec.width, spec.channels), tf.float32)
            served = {name: self.model.output[name] for name in ("logits", "mask_logits") if name in self.model.output}
            network = keras.Model(self.model.inputs, served)
            self._calls[size] = tf.function(lambda rows: network(rows, training=False), input_signature=[signature])
        return self._calls[size]
