"""Weights of a network as one npz of float16 arrays by layer name, deflated: a twelfth smaller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


class WeightsMismatchError(ValueError):
    """The file's arrays are not those of the network."""


def save_by_layer(model: keras.Model, path: Path, dtype: str = "float16") -> None:
    """Write every weight as ``<layer>/<index>`` in an npz; random state (dropout) is left out.

    Raises
    ------
    WeightsMismatchError
        If a weight does not fit into ``dtype``.
    """
    arrays: dict[str, np.ndarray] = {}
    for layer in model.layers:
        for index, value in enumerate(layer.get_weights() if layer.weights else ()):
            if np.issubdtype(value.dtype, np.floating):
                with np.errstate(over="ignore"):
                    arrays[f"{layer.name}/{index}"] = value.astype(dtype)
                if not np.isfinite(arrays[f"{layer.name}/{index}"]).all():
                    raise WeightsMismatchError(f"layer {layer.name} has weights that {dtype} cannot hold")
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)


def load_by_layer(model: keras.Model, path: Path, prefix: str = "") -> None:
    """Fill the network from :func:`save_by_layer`'s file; every weight must be there, in its shape, and none over.

    Parameters
    ----------
    prefix : str
        What the names of its layers begin with in the file, as those of a member of a joined network do; arrays of
        other names are left alone.

    Raises
    ------
    WeightsMismatchError
        Otherwise.
    """
    with np.load(path) as stored:
        left = {name for name in stored.files if name.startswith(prefix)}
        for layer in model.layers:
            if not layer.weights:
                continue
            values = []
            for index, (weight, present) in enumerate(zip(layer.weights, layer.get_weights(), strict=True)):
                if not np.issubdtype(present.dtype, np.floating):
                    values.append(present)
                    continue
                key = f"{prefix}{layer.name}/{index}"
                if key not in left or stored[key].shape != tuple(weight.shape):
                    raise WeightsMismatchError(f"{path.name} has no {key} of shape {tuple(weight.shape)}")
                left.discard(key)
                values.append(stored[key].astype(np.float32))
            layer.set_weights(values)
        if left:
            raise WeightsMismatchError(f"{path.name} has {len(left)} arrays that the network has not")
    settle(model)


def settle(model: keras.Model) -> None:
    """Let layers take up weights that were put into them from outside.

    Keras's Normalization computes with constants that it makes of its weights as it is built or adapted: new weights do
    nothing before it makes them again.
    """
    for layer in model.layers:
        finalize = getattr(layer, "finalize_state", None)
        if finalize is not None:
            finalize()
