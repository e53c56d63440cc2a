"""One network that learnt the labels of several packages: each package gets the network with its own labels' columns.

The binary and the four-class model of a film share an encoder while they are trained, so that adults whose opacity
has no known germ teach both. What is shipped are packages that know nothing of each other.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.chest.package import package_run
from training.datasets.arrays import Arrays
from training.package.order import Order
from training.recipe import PackagePart, Recipe
from worker.packages.networks import build

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


def package_films(order: Order, arrays: Arrays, model: keras.Model) -> Path:
    """The packages of a recipe, each with its report in a folder of its name; one package where it names none."""
    recipe = order.recipe
    if not recipe.packages:
        return package_run(order, arrays, model)
    for name, part in recipe.packages.items():
        index = [recipe.labels.index(label) for label in part.labels]
        own = recipe_of(recipe, name, part)
        narrowed = dataclasses.replace(arrays, label_names=part.labels, labels=arrays.labels[:, index])
        external = tuple(run / name for run in order.external)
        there = dataclasses.replace(order, recipe=own, out=order.out / name, external=external)
        log.info("package: %s", package_run(there, narrowed, with_columns(model, own, index)))
    return order.out


def recipe_of(recipe: Recipe, name: str, part: PackagePart) -> Recipe:
    """The recipe as that of one of its packages."""
    architecture = {**recipe.architecture, "classes": len(part.labels)}
    architecture.pop("softmax_groups", None)
    if len(part.labels) > 1:
        architecture["softmax_groups"] = [list(range(len(part.labels)))]
    return recipe.model_copy(
        update={
            "name": name,
            "task": part.task,
            "labels": part.labels,
            "architecture": architecture,
            "card": {**recipe.card, "name": name, **part.card},
            "packages": {},
        }
    )


def with_columns(model: keras.Model, recipe: Recipe, columns: Sequence[int]) -> keras.Model:
    """The network of ``recipe`` with the model's weights, and of its last layers the columns of some labels."""
    narrow = build.build(recipe.architecture, recipe.input)
    for layer in narrow.layers:
        if layer.weights:
            theirs: list[Any] = model.get_layer(layer.name).get_weights()
            wide = [value.shape[-1] != mine.shape[-1] for value, mine in zip(theirs, layer.weights, strict=True)]
            layer.set_weights(
                [
                    value[..., list(columns)] if of_labels else value
                    for value, of_labels in zip(theirs, wide, strict=True)
                ]
            )
    return narrow
