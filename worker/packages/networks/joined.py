"""Several networks as one: the same picture goes through each, and their outputs are averaged.

One flat graph, so that folding, class maps and the file of weights work as for a single network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from worker.packages.card import InputSpec

if TYPE_CHECKING:
    import keras


def joined(
    spec: InputSpec,
    classes: int,
    members: Sequence[Mapping[str, Any]],
    build: Callable[[Mapping[str, Any], InputSpec], keras.Model],
) -> keras.Model:
    """The mean of the members' logits, and of their masks' logits.

    Parameters
    ----------
    classes : int
        Number of labels of every member.
    members : sequence of mapping
        ``builder`` and options of each, as in a card, and ``trained``, which tells people where its weights come from.
        A member's layers get its prefix (:func:`prefix`).
    build : callable
        :func:`worker.packages.networks.build.build`, handed in by itself.

    Raises
    ------
    ValueError
        Without members.
    """
    import keras
    from keras import layers

    if not members:
        raise ValueError("no members to join")
    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    own = [{name: value for name, value in member.items() if name != "trained"} for member in members]
    built = [build({**member, "classes": classes}, spec) for member in own]
    parts = [_renamed(model, image, prefix(index)) for index, model in enumerate(built)]
    shared = [name for name in ("logits", "mask_logits") if all(name in part for part in parts)]
    outputs = {name: _mean([part[name] for part in parts], name) for name in shared}
    return keras.Model(image, outputs, name="joined")


def prefix(index: int) -> str:
    """What the layer names of a member begin with."""
    return f"m{index}_"


def parts_named(model: keras.Model, name: str) -> list[Any]:
    """The layer of that name, or of a joined network the members' layers of that name, in their order."""
    return [layer for layer in model.layers if re.fullmatch(rf"(m\d+_)?{re.escape(name)}", layer.name)]


def _renamed(model: keras.Model, image: Any, name_prefix: str) -> dict[str, Any]:
    """Outputs of a copy of the model on ``image``, its layers' names with a prefix."""
    import keras

    def clone(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "name": f"{name_prefix}{layer.name}"})

    outputs: dict[str, Any] = keras.models.clone_model(model, input_tensors=image, clone_function=clone).output
    return outputs


def _mean(values: list[Any], name: str) -> Any:
    from keras import layers

    return layers.Average(name=name)(values) if len(values) > 1 else layers.Identity(name=name)(values[0])
