"""Weights of a network as one npz of float16 arrays by layer name, deflated: a twelfth smaller.

An array with a value beyond float16's 65,504, as a moving variance may have, stays float32.

Keras names a layer without a name after its class and a number that counts on in the whole process. In the file such
layers are numbered within the network, as a fresh process would number them.
"""

from __future__ import annotations

import os
import re
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
        If a weight is not finite.
    """
    arrays: dict[str, np.ndarray] = {}
    names = stored_names(model)
    for layer in model.layers:
        for index, value in enumerate(layer.get_weights() if layer.weights else ()):
            if np.issubdtype(value.dtype, np.floating):
                if not np.isfinite(value).all():
                    raise WeightsMismatchError(f"layer {names[layer.name]} has weights that are not finite")
                arrays[f"{names[layer.name]}/{index}"] = _narrowed(value, dtype)
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)


def _narrowed(value: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = value.astype(dtype)
    return narrow if np.isfinite(narrow).all() else value.astype(np.float32)


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
        names = stored_names(model)
        for layer in model.layers:
            if not layer.weights:
                continue
            values = []
            for index, (weight, present) in enumerate(zip(layer.weights, layer.get_weights(), strict=True)):
                if not np.issubdtype(present.dtype, np.floating):
                    values.append(present)
                    continue
                key = f"{prefix}{names[layer.name]}/{index}"
                if key not in left or stored[key].shape != tuple(weight.shape):
                    raise WeightsMismatchError(f"{path.name} has no {key} of shape {tuple(weight.shape)}")
                left.discard(key)
                values.append(stored[key].astype(np.float32))
            layer.set_weights(values)
        if left:
            raise WeightsMismatchError(f"{path.name} has {len(left)} arrays that the network has not")
    settle(model)


def stored_names(model: keras.Model) -> dict[str, str]:
    """Name in the file of each layer of the network by its name in this process; unnamed layers count from 0."""
    unnamed: dict[str, list[tuple[int, str]]] = {}
    names = {}
    for layer in model.layers:
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        match = re.fullmatch(rf"((?:m\d+_)*{re.escape(kind)})(?:_(\d+))?", layer.name)
        if match is None:
            names[layer.name] = layer.name
        else:
            unnamed.setdefault(match[1], []).append((int(match[2] or 0), layer.name))
    for stem, layers in unnamed.items():
        for index, (_, name) in enumerate(sorted(layers)):
            names[name] = f"{stem}_{index}" if index else stem
    return names


def settle(model: keras.Model) -> None:
    """Let layers take up weights that were put into them from outside.

    Keras's Normalization computes with constants that it makes of its weights as it is built or adapted: new weights do
    nothing before it makes them again.
    """
    for layer in model.layers:
        finalize = getattr(layer, "finalize_state", None)
        if finalize is not None:
            finalize()
