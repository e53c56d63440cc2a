"""A whole training as one call: arrays, folds, evaluation of the folds, the final model, its package."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from training.arrays import Arrays, load_arrays, mute_bad_slices
from training.crossval import cross_validate, train_final
from training.datasets import open_dataset
from training.datasets.base import Item, gathered, label_matrix
from training.feeds import held_back_records
from training.loop import Run, predict_batch, train
from training.recipe import Recipe
from training.records import shards_in
from training.structure import save_structure

log = logging.getLogger(__name__)

PACKAGERS: dict[str, str] = {
    "bleed": "training.head_ct_package:finish",
    "pneumonia": "training.chest.package:finish",
    "pneumonia4": "training.chest.package:finish",
    "lesion": "training.dermoscopy.package:finish",
    "lesion_mask": "training.dermoscopy.package:finish",
    "lesion_class": "training.dermoscopy.package:finish",
}
"""Task -> what evaluates a run's folds and writes its package."""


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


def open_arrays(recipe: Recipe, data: Path, cache: Path | None) -> Arrays:
    """The recipe's data sets below ``data``, decoded; masks at the size of the network's output."""
    datasets = [open_dataset(name, data / sub) for name, sub in recipe.datasets.items()]
    stride = int(recipe.parameters.get("mask_stride", 2))
    size = (recipe.input.height // stride, recipe.input.width // stride) if "mask_logits" in recipe.losses else None
    arrays = load_arrays(datasets, recipe.input, recipe.labels, size, cache, workers=os.cpu_count() or 2)
    if recipe.parameters.get("drop_bad_slices"):
        mute_bad_slices(arrays)
    return arrays


def open_items(recipe: Recipe, data: Path) -> tuple[list[Item], np.ndarray]:
    """Items and labels (n, labels) of the recipe's data sets, without decoding a picture."""
    items = gathered([open_dataset(name, data / sub) for name, sub in recipe.datasets.items()])
    return items, label_matrix(items, recipe.labels)


def train_all(order: Order) -> Path | None:
    """Train what is missing; give back the package's folder, or None where only folds were asked for."""
    set_threads(order.threads)
    if order.shards is not None:
        return _train_on_shards(order, order.shards)
    arrays = open_arrays(order.recipe, order.data, order.cache)
    log.info("%d items, %d left out", len(arrays), len(arrays.left_out))
    options = _options(order)
    cross_validate(order.recipe, arrays, order.out, order.weights, order.folds, order.start, **options)
    if not order.final:
        return None
    model = train_final(order.recipe, arrays, order.out, order.weights, order.start, **options)
    save_structure(model, order.out / "final")
    module, _, function = PACKAGERS.get(order.recipe.task, "training.plain_package:finish").partition(":")
    directory: Path = getattr(import_module(module), function)(order, arrays, model)
    return directory


def _options(order: Order) -> dict[str, Any]:
    return {
        "mixed_precision": order.mixed_precision,
        "distribute": order.distribute,
        "wandb": order.wandb,
        "on_epoch": _progress,
    }


def _train_on_shards(order: Order, shards: Path) -> Path:
    """One model on a prepared folder; the recipe's share of patients is held back and calibrates it."""
    from training.plain_package import HeldBack, NothingHeldBackError, package_of

    recipe = order.recipe
    empty = Arrays.empty(recipe.input, recipe.labels)
    steps = recipe.final_steps or recipe.schedule.steps
    rows = np.zeros(0, dtype=np.int64)
    model = train(Run(recipe, empty, rows, order.out / "final", steps, weights=order.weights, shards=shards,
                      **_options(order)))  # fmt: skip
    save_structure(model, order.out / "final")
    parts = [(predict_batch(model, x), labels, patients) for x, labels, patients in held_back_records(recipe, shards)]
    if not parts:
        raise NothingHeldBackError(f"recipe {recipe.name} holds no patients of these shards back: [folds] validation")
    held = HeldBack(*(np.concatenate([part[i] for part in parts]) for i in range(3)))
    return package_of(order, model, held, {"held_back": len(held.labels), "shards": len(shards_in(shards))})


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
