"""A loaded network ready to score: TensorFlow in service, any Keras backend where training predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.packages.card import Card, PackageError
from worker.packages.networks.joined import parts_named
from worker.packages.probabilities import label_probabilities, sigmoid
from worker.packages.runtimes.class_maps import grad_cam, grad_cam_plus

if TYPE_CHECKING:
    import keras

BATCH_SIZES = (1, 8, 32)
POOL = "pool"
"""Name of the layer that pools the last feature maps."""
CLASS_LAYER = "maps"
"""Name of the convolution that gives class logits a pixel, in networks that pool those."""
Slopes = Callable[[Any, Any], tuple[Any, Any, Any, Any]]


class Package:
    """A network with its card, ready to score.

    Parameters
    ----------
    card : Card
    model : keras.Model
        Flat functional model whose output is a dict with ``logits`` and perhaps ``mask_logits``.
    """

    def __init__(self, card: Card, model: keras.Model) -> None:
        self.card = card
        self.model = model
        self._calls: dict[int, Callable[[np.ndarray], Mapping[str, Any]]] = {}
        self._slopes: Slopes | None = None

    @property
    def key(self) -> str:
        """``name/version``."""
        return f"{self.card.name}/{self.card.version}"

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Score composed input.

        Parameters
        ----------
        x : ndarray of float32, shape (n, H, W, C)

        Returns
        -------
        dict
            ``p`` and ``p_raw`` (n, labels) float32, calibrated and raw; ``mask`` (n, h, w) float32 probabilities where
            the network has one, unless ``parameters["outlines"]`` says that it never learnt to draw. With
            ``parameters["flip"]`` the mirrored picture is scored too and averaged.
        """
        outputs = self._outputs(x)
        if self.card.parameters.get("flip"):
            mirrored = self._outputs(x[:, :, ::-1])
            if "logits" in outputs:
                outputs["logits"] = 0.5 * (outputs["logits"] + mirrored["logits"])
            if "mask" in outputs:
                outputs["mask"] = 0.5 * (outputs["mask"] + mirrored["mask"][:, :, ::-1])
        p_raw, p = label_probabilities(outputs.pop("logits", np.zeros((len(x), 0), dtype=np.float32)), self.card)
        return {"p": p, "p_raw": p_raw, **outputs}

    def warm_up(self) -> None:
        """Trace and run every batch shape once, so that the first study does not pay for it."""
        shape = (self.card.input.height, self.card.input.width, self.card.input.channels)
        for size in BATCH_SIZES:
            self._run(np.zeros((size, *shape), dtype=np.float32))
        if self.card.labels and parts_named(self.model, POOL):
            self.gradients(np.zeros((1, *shape), dtype=np.float32), self.card.labels[0])

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        """Grad-CAM (Selvaraju et al. 2017) of a finding on the map that the pooling layer reads.

        Returns
        -------
        ndarray of float32, shape (n, h, w)
            In [0, 1], each picture scaled to its own maximum; all zero where nothing speaks for the finding.

        Raises
        ------
        PackageError
            If the card has no such finding, or Keras runs on a backend that does not serve.
        """
        return grad_cam(*self.slopes(x, finding))

    def class_maps(self, x: np.ndarray, finding: str) -> np.ndarray:
        """Grad-CAM of a finding, and Grad-CAM++ as a second opinion, from one pass.

        Grad-CAM++ wants activations: where the pooling layer reads class logits (then Grad-CAM is the plain CAM of Zhou
        et al. 2016), it is made on the features below them.

        Returns
        -------
        ndarray of float32, shape (2, n, h, w)
            Each as :meth:`gradients`.

        Raises
        ------
        PackageError
            As :meth:`gradients`.
        """
        maps, slopes, features, below = self._sloped(x, finding)
        return np.stack([grad_cam(maps, slopes), grad_cam_plus(features, below)])

    def slopes(self, x: np.ndarray, finding: str) -> tuple[np.ndarray, np.ndarray]:
        """The feature maps that the pooling layer reads, and the slope of a finding's logit along each of them.

        Returns
        -------
        maps, slopes : ndarray of float32, shape (n, h, w, channels)

        Raises
        ------
        PackageError
            As :meth:`gradients`.
        """
        return self._sloped(x, finding)[:2]

    def _sloped(self, x: np.ndarray, finding: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """:meth:`slopes`, and the same of the features below a :data:`CLASS_LAYER` where there is one."""
        import keras

        if finding not in self.card.labels:
            raise PackageError(f"{self.key} has no finding {finding}")
        if keras.backend.backend() != "tensorflow":
            raise PackageError("heat maps need the TensorFlow backend")
        column = np.int32(self.card.labels.index(finding))
        maps, slopes, features, below = self._traced_slopes()(np.ascontiguousarray(x, dtype=np.float32), column)
        return np.asarray(maps), np.asarray(slopes), np.asarray(features), np.asarray(below)

    def _traced_slopes(self) -> Slopes:
        """One ``tf.function`` for any number of rows and every finding: eager Grad-CAM takes several times as long.

        The members of a joined network pool maps of one size, which stand side by side as further channels.
        """
        import keras
        import tensorflow as tf

        if self._slopes is None:
            spec = self.card.input
            pools, classed = parts_named(self.model, POOL), parts_named(self.model, CLASS_LAYER)
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

    def _outputs(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Logits and mask of any number of rows, run in the fixed batch shapes."""
        if x.ndim != 4 or not len(x):
            raise PackageError(f"{self.key}: expected input (n, H, W, C) with n > 0, got {x.shape}")
        parts: list[dict[str, np.ndarray]] = []
        start = 0
        while start < len(x):
            left = len(x) - start
            size = next((s for s in BATCH_SIZES if s >= left), BATCH_SIZES[-1])
            rows = np.asarray(x[start : start + size], dtype=np.float32)
            count = len(rows)
            if count < size:
                rows = np.concatenate([rows, np.repeat(rows[-1:], size - count, axis=0)])
            parts.append({name: value[:count] for name, value in self._run(rows).items()})
            start += count
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

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
