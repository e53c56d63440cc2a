"""Trained networks joined into one: the folds of a cross-validation, or packages that were trained apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstread.errors import FirstreadError
from training.package.order import Order
from training.recipe import Recipe
from worker.packages.card import Card, InputSpec
from worker.packages.networks import build
from worker.packages.networks.joined import prefix
from worker.packages.package import WEIGHTS, read_card
from worker.packages.weights import load_by_layer

if TYPE_CHECKING:
    import keras


COMMON = ("classes", "softmax_groups")
"""What the joined architecture says for all members."""


class JoiningError(FirstreadError):
    """The networks cannot be joined: other labels, or another input."""


def with_members(recipe: Recipe, members: Sequence[dict[str, Any]]) -> Recipe:
    """The recipe with an architecture that joins ``members``."""
    common = {name: value for name, value in recipe.architecture.items() if name in COMMON}
    joined: dict[str, Any] = {"builder": "joined", **common, "members": [dict(member) for member in members]}
    return recipe.model_copy(update={"architecture": joined})


def join(recipe: Recipe, models: Sequence[keras.Model]) -> keras.Model:
    """The network of a recipe whose architecture is ``joined``, with the members' weights.

    Raises
    ------
    JoiningError
        If a member lacks a layer of the joined network.
    """
    joined = build.build(recipe.architecture, recipe.input)
    for index, model in enumerate(models):
        start = prefix(index)
        for layer in joined.layers:
            if not layer.name.startswith(start) or not layer.weights:
                continue
            try:
                layer.set_weights(model.get_layer(layer.name.removeprefix(start)).get_weights())
            except ValueError as error:
                raise JoiningError(f"member {index} does not fit: {error}") from error
    return joined


def join_packages(order: Order) -> tuple[Order, keras.Model]:
    """The packages of ``order.join`` as one network, and the order with its architecture.

    Raises
    ------
    JoiningError
        If a package has other labels or another input than the recipe.
    """
    recipe, cards = order.recipe, [read_card(directory) for directory in order.join]
    for card in cards:
        if tuple(card.labels) != recipe.labels or _shape(card.input) != _shape(recipe.input):
            raise JoiningError(f"{card.name}/{card.version} has other labels or another input than {recipe.name}")
    recipe = with_members(recipe, [own_part(card.architecture, _origin(card, recipe)) for card in cards])
    models = [_loaded(directory) for directory in order.join]
    return dataclasses.replace(order, recipe=recipe), join(recipe, models)


def _shape(spec: InputSpec) -> tuple[Any, ...]:
    """What the network itself sees of an input spec; the crop before it may be another than a member was trained on."""
    return spec.kind, spec.height, spec.width, spec.channels, spec.scale, spec.colours


def _origin(card: Card, recipe: Recipe) -> str:
    crop = "" if card.input.crop == recipe.input.crop else f", with crop {card.input.crop}"
    return f"as {card.name}/{card.version}{crop}"


def own_part(architecture: dict[str, Any], trained: str) -> dict[str, Any]:
    """A member's own architecture, without what the joined one says for all, and where its weights come from."""
    return {name: value for name, value in architecture.items() if name not in COMMON} | {"trained": trained}


def _loaded(directory: Path) -> keras.Model:
    card = read_card(directory)
    model = build.build(card.architecture, card.input)
    load_by_layer(model, directory / WEIGHTS)
    return model
