"""A small head that guesses a film's hospital, behind a gradient that is turned round (Ganin et al. 2016, JMLR 17:59).

The head learns to guess, the encoder learns to give nothing away. It guesses within one kind of film and one age group:
what tells COVID-19 from normal, or an adult from a child, the encoder may keep, although the hospitals differ too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.base import UNKNOWN, Item
from training.recipe import Adversary, RecipeError

if TYPE_CHECKING:
    import keras

OUTPUT = "source"
"""Name of the head's output, of its loss and of its targets."""


def source_targets(items: Sequence[Item], hospitals: Sequence[str]) -> np.ndarray:
    """Float32 (n, hospitals): 1 for the film's own, 0 for others that have such films to train on, else unknown.

    Such films are of its kind and age group. A film of a hospital that is not among them, or of a kind that one
    hospital alone has, is unknown throughout.
    """
    groups = [(item.attributes.get("kind", ""), item.attributes.get("age_group", "")) for item in items]
    names = [item.attributes.get("hospital", "") for item in items]
    seen = {
        (*group, name)
        for group, name, item in zip(groups, names, items, strict=True)
        if item.usable and item.split in ("train", "")
    }
    targets = np.full((len(items), len(hospitals)), UNKNOWN, dtype=np.float32)
    for row, (group, hospital) in enumerate(zip(groups, names, strict=True)):
        possible = [column for column, name in enumerate(hospitals) if (*group, name) in seen]
        if hospital in hospitals and len(possible) > 1 and hospitals.index(hospital) in possible:
            targets[row, possible] = 0.0
            targets[row, hospitals.index(hospital)] = 1.0
    return targets


def with_adversary(model: keras.Model, adversary: Adversary) -> keras.Model:
    """The network with the head's output beside its own.

    Raises
    ------
    RecipeError
        If the network lacks the layer that the head guesses from.
    """
    import keras
    from keras import layers, ops

    try:
        x = model.get_layer(adversary.layer).output
    except ValueError as error:
        raise RecipeError(f"the adversary's layer {adversary.layer} is none of the network's") from error
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="source_pool")(x)
    x = ops.stop_gradient(x * (1.0 + adversary.strength)) - x * adversary.strength
    x = layers.Dense(adversary.width, activation="relu", name="source_dense")(x)
    guess = layers.Dense(len(adversary.hospitals), name=OUTPUT)(x)
    return keras.Model(model.inputs, {**model.output, OUTPUT: guess}, name=model.name)


def without_adversary(model: keras.Model) -> keras.Model:
    """The network as it is served: the same layers, without the head."""
    import keras

    outputs: dict[str, Any] = {name: output for name, output in model.output.items() if name != OUTPUT}
    return keras.Model(model.inputs, outputs, name=model.name)
