"""A whole training as one call: arrays, folds, evaluation of the folds, the final model, its package."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets import open_dataset
from training.datasets.arrays import Arrays, load_arrays, mute_bad_slices
from training.datasets.base import DataSet, Item, gathered, label_matrix
from training.fit.crossval import cross_validate, train_final, train_fold, with_named_folds
from training.fit.loop import build_model
from training.fit.structure import save_structure
from training.fit.teacher import RECIPE_COPY
from training.package.joining import join, join_packages, own_part, with_members
from training.recipe import Recipe, RecipeError
from training.shards.prepared import mask_size

log = logging.getLogger(__name__)

PACKAGERS: dict[str, str] = {
    "bleed": "training.head_ct.package:finish",
    "pneumonia": "training.chest.package:finish",
    "pneumonia4": "training.chest.package:finish",
    "lesion": "training.dermoscopy.package:finish",
    "lesion_mask": "training.dermoscopy.package:finish",
    "lesion_class": "training.dermoscopy.package:finish",
}
"""Task -> what evaluates a run's folds and writes its package. A function ``check`` beside it is asked before training
whether the data will do for that."""


@dataclass(frozen=True)
class Order:
    """What ``firstread train`` was asked for."""

    recipe: Recipe
    data: Path
    out: Path
    weights: str = "none"
    start: Path | None = None
    """An earlier run on the same folds, whose weights and masks each part begins with."""
    baseline: Path | None = None
    """Another recipe's run on the same folds, whose figures stand beside."""
    cache: Path | None = None
    folds: tuple[str, ...] | None = None
    final: bool = True
    threads: int = 0
    mixed_precision: bool = False
    distribute: bool = False
    wandb: bool = False
    shards: Path | None = None
    version: str = "1.0.0"
    join: tuple[Path, ...] = ()
    """Packages whose networks become the recipe's network, instead of training one."""


def open_arrays(recipe: Recipe, data: Path, cache: Path | None) -> Arrays:
    """The recipe's data sets below ``data``, decoded; masks at the size of the network's output."""
    arrays = load_arrays(open_datasets(recipe, data), recipe.input, recipe.labels, mask_size(recipe), cache,
                         workers=os.cpu_count() or 2)  # fmt: skip
    if recipe.parameters.get("drop_bad_slices"):
        mute_bad_slices(arrays)
    return arrays


def open_datasets(recipe: Recipe, data: Path) -> list[DataSet]:
    """Readers of the recipe's data sets; ``[parameters] patient_regex`` is for folders of pictures."""
    regex = str(recipe.parameters.get("patient_regex", ""))
    return [
        open_dataset(name, data / sub, recipe.input.kind, regex if name == "class_folders" else "")
        for name, sub in recipe.datasets.items()
    ]


def open_items(recipe: Recipe, data: Path) -> tuple[list[Item], np.ndarray]:
    """Items and labels (n, labels) of the recipe's data sets, without decoding a picture."""
    items = gathered(open_datasets(recipe, data))
    return items, label_matrix(items, recipe.labels)


def train_all(order: Order) -> Path | None:
    """Train what is missing; give back the package's folder, or None where only folds were asked for."""
    set_threads(order.threads)
    if order.recipe.joins != bool(order.join):
        told = "joins packages: give --join" if order.recipe.joins else "trains a network: leave --join out"
        raise RecipeError(f"recipe {order.recipe.name} {told}")
    if order.shards is not None:
        from training.package.from_shards import train_on_shards

        return train_on_shards(order, order.shards, **_options(order))
    if order.start is None and order.weights != "none":
        build_model(order.recipe, order.weights)  # what does not fit is refused before hours of decoding
    arrays = open_arrays(order.recipe, order.data, order.cache)
    log.info("%d items, %d left out", len(arrays), len(arrays.left_out))
    order = replace(order, recipe=with_named_folds(order.recipe, arrays.items))
    unknown = set(order.folds or ()) - set(order.recipe.folds.names)
    if unknown:
        raise RecipeError(f"no fold {', '.join(sorted(unknown))}; there are {', '.join(order.recipe.folds.names)}")
    write_recipe(order.recipe, order.out)
    module, _, function = PACKAGERS.get(order.recipe.task, "training.package.plain:finish").partition(":")
    packager = import_module(module)
    if order.final and hasattr(packager, "check"):
        packager.check(order, arrays)
    if order.join:
        order, model = join_packages(order)
    else:
        options = _options(order)
        cross_validate(order.recipe, arrays, order.out, order.weights, order.folds, order.start, **options)
        if not order.final:
            return None
        order, model = _final(order, arrays, options)
    save_structure(model, order.out / "final")
    directory: Path | None = getattr(packager, function)(order, arrays, model)
    return directory


def _final(order: Order, arrays: Arrays, options: dict[str, Any]) -> tuple[Order, Any]:
    """The model that ships, and the order with its architecture: the folds' networks joined, or one on all folds."""
    recipe, where = order.recipe, (order.out, order.weights)
    if not recipe.folds.join:
        return order, train_final(recipe, arrays, *where, order.start, **options)
    models = [train_fold(recipe, arrays, *where, fold, order.start, **options) for fold in recipe.folds.names]
    members = [own_part(recipe.architecture, f"without fold {fold}") for fold in recipe.folds.names]
    joined = with_members(recipe, members)
    return replace(order, recipe=joined), join(joined, models)


def write_recipe(recipe: Recipe, out: Path) -> None:
    """Keep the recipe beside what it makes."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RECIPE_COPY).write_text(recipe.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _options(order: Order) -> dict[str, Any]:
    return {
        "mixed_precision": order.mixed_precision,
        "distribute": order.distribute,
        "wandb": order.wandb,
        "on_epoch": _progress,
    }


def _progress(step: int, values: dict[str, float]) -> None:
    shown = " ".join(f"{name} {value:.4f}" for name, value in values.items() if "/" not in name and name != "seconds")
    log.info("step %d: %s (%.0f s)", step, shown, values.get("seconds", 0.0))


def set_threads(threads: int) -> None:
    """Bound TensorFlow's threads before it starts; 0 leaves its own choice."""
    if not threads:
        return
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
