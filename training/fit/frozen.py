"""A frozen base: what pre-trained layers give is computed once for every picture, and only the rest is trained on it.

The network is cut where the first layer stands that learns. Pictures go through the part before the cut once and as
they are, so that a training takes minutes; what changes pictures at random has no place in it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.arrays import Arrays
from training.datasets.base import content_of
from training.files import written_whole
from training.fit.checkpoint import TrainingError
from training.fit.model import taught_part
from training.fit.run import Features, Run
from training.fit.structure import read_by
from training.fit.transfer import is_encoder
from training.progress import progress

if TYPE_CHECKING:
    import keras

BATCH = 32


@dataclass(frozen=True)
class Cut:
    """A network in two parts that share its layers: ``base`` gives what ``head`` takes, one tensor or several."""

    base: keras.Model
    head: keras.Model


def cut(model: keras.Model) -> Cut:
    """Cut a network before the first layers that learn, and before dropout.

    Raises
    ------
    TrainingError
        If nothing of it is a pre-trained encoder's.
    """
    import keras

    inside: set[str] = set()
    for layer in model.layers:
        still = (not layer.weights or is_encoder(layer.name)) and "Dropout" not in type(layer).__name__
        if still and all(name in inside for name in read_by(layer)):
            inside.add(layer.name)
    ends = [
        layer
        for layer in model.layers
        if layer.name in inside and any(node.operation.name not in inside for node in layer._outbound_nodes)
    ]
    if not ends or not any(is_encoder(layer.name) for layer in model.layers if layer.name in inside and layer.weights):
        raise TrainingError("a frozen base needs a network with a pre-trained encoder and a head that learns")
    tensors = [layer.output for layer in ends]
    between: Any = tensors[0] if len(tensors) == 1 else tensors
    return Cut(keras.Model(model.inputs, between, name="base"), keras.Model(between, model.output, name="head"))


def trained_part(run: Run, network: keras.Model) -> tuple[Run, keras.Model]:
    """The run, and the part of its network that learns: of a frozen base the head, on what the base gives.

    Outputs without a loss are left out.
    """
    if not run.recipe.frozen_base:
        return run, taught_part(network, run.recipe)
    parts = cut(network)
    for layer in parts.base.layers:
        layer.trainable = False
    return replace(run, features=features_of(parts.base, run)), taught_part(parts.head, run.recipe)


def features_of(base: keras.Model, run: Run) -> Features:
    """What the base gives for every row; read from the run's cache where an earlier run has computed the same.

    Raises
    ------
    TrainingError
        If the run has no trained weights to freeze, or reads shards.
    """
    if run.weights == "none":
        raise TrainingError("a frozen base needs trained weights: give --weights")
    if run.shards is not None:
        raise TrainingError("a frozen base is trained with --data, not on shards")
    path = None if run.cache is None else run.cache / f"features_{_fingerprint(base, run)}.npz"
    if path is not None and path.is_file():
        with np.load(path) as stored:
            return Features(tuple(stored[name] for name in sorted(stored.files)))
    tensors = _computed(base, run.arrays)
    if path is not None:
        with written_whole(path) as partial, partial.open("wb") as file:
            np.savez(file, **{f"t{i:02d}": tensor for i, tensor in enumerate(tensors)})  # type: ignore[arg-type]
    return Features(tensors)


def _computed(base: keras.Model, arrays: Arrays) -> tuple[np.ndarray, ...]:
    from keras import ops

    parts: list[list[np.ndarray]] = []
    with progress("features", len(arrays)) as advance:
        for start in range(0, len(arrays), BATCH):
            rows = np.arange(start, min(start + BATCH, len(arrays)))
            padded = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows))])
            out = base.predict_on_batch(arrays.inputs(padded))
            found = out if isinstance(out, list | tuple) else [out]
            parts.append([np.asarray(ops.convert_to_numpy(t)[: len(rows)], dtype=np.float16) for t in found])
            advance(len(rows))
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(len(parts[0])))


def _fingerprint(base: keras.Model, run: Run) -> str:
    """Changes with the pictures, the input, and the base's weights."""
    digest = hashlib.sha256()
    for value in base.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    items = [content_of(item) for item in run.arrays.items]
    digest.update(json.dumps([run.recipe.input.model_dump(mode="json"), items], sort_keys=True).encode())
    return digest.hexdigest()[:24]
