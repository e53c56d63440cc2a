"""Where batches come from: arrays in memory, or the shards that ``firstread prepare`` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.augment import augment_from
from training.batches import Added, Targets, groups_by, targets_of, train_batch
from training.carve import Donors
from training.recipe import Recipe
from training.records import RecordsError, read_records, shards_in, training_pipeline
from worker.packages import preprocessing

if TYPE_CHECKING:
    from training.loop import Run

Batch = Callable[[int], tuple[np.ndarray, Targets]]
BUCKETS = 1000


def train_feed(run: Run) -> Batch:
    """Batch number ``step`` of a run: a pure function of the recipe's seed and the step."""
    recipe = run.recipe
    if run.shards is not None:
        return _ShardFeed(recipe, run.shards)
    groups = groups_by(run.arrays, run.train_rows, recipe.shares or {"*": 1.0}, recipe.patients_first)
    augment = augment_from(recipe.augment)
    added = None
    if recipe.carve or recipe.drawn:
        rows = run.train_rows if recipe.carve else run.train_rows[:0]
        added = Added(recipe.carve, recipe.drawn, Donors.among(run.arrays, rows))

    def batch(step: int) -> tuple[np.ndarray, Targets]:
        x, targets = train_batch(run.arrays, groups, augment, recipe.schedule.batch_size, recipe.seed, step,
                                 added, recipe.mixup)  # fmt: skip
        return x, {name: targets[name] for name in recipe.losses}

    return batch


def validation_feed(run: Run) -> Iterator[tuple[np.ndarray, Targets]]:
    """The validation rows (of shards: the held-back patients) once, in order, without augmentation."""
    size = run.recipe.schedule.batch_size
    if run.shards is not None:
        yield from _held_back(run.recipe, run.shards)
        return
    for start in range(0, len(run.val_rows), size):
        rows = run.val_rows[start : start + size]
        targets = targets_of(run.arrays, rows)
        yield run.arrays.inputs(rows), {name: targets[name] for name in run.recipe.losses}


def held_back_share(recipe: Recipe) -> float:
    """Share of the patients of shards that is held back: the recipe's largest."""
    return max(recipe.folds.validation.values(), default=0.0)


class _ShardFeed:
    """Batches of one endless stream, asked for in order; a run that goes on later skips what it has seen."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        self.paths = shards_in(folder)
        self.next_step = -1
        self.stream: Iterator[Any] = iter(())
        if not self.paths:
            raise RecordsError(f"no shards (*.tfrecord) in {folder.name}; make them with `firstread prepare`")

    def __call__(self, step: int) -> tuple[np.ndarray, Targets]:
        if step != self.next_step:
            self.stream = self._open(step)
        self.next_step = step + 1
        x, targets = next(self.stream)
        return x, {name: targets[name] for name in self.recipe.losses}

    def _open(self, step: int) -> Iterator[Any]:
        recipe = self.recipe
        stream = training_pipeline(
            self.paths,
            recipe.input,
            len(recipe.labels),
            recipe.schedule.batch_size,
            recipe.seed,
            mask_size(recipe),
            augment_from(recipe.augment),
            keep=lambda patient: _bucket(patient) >= int(held_back_share(recipe) * BUCKETS),
        )
        found: Iterator[Any] = stream.skip(step).as_numpy_iterator()
        return found


def mask_size(recipe: Recipe) -> tuple[int, int] | None:
    """Height and width of the network's mask; None for a recipe without."""
    if "mask_logits" not in recipe.losses:
        return None
    stride = int(recipe.parameters.get("mask_stride", 2))
    return recipe.input.height // stride, recipe.input.width // stride


def held_back_records(recipe: Recipe, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of input, labels and patients of the held-back part of shards."""
    for row in _held_back_rows(recipe, folder):
        patients = np.asarray([patient.decode() for patient in row["patient"]])
        yield preprocessing.scale(row["image"], recipe.input), row["labels"], patients


def _held_back_rows(recipe: Recipe, folder: Path) -> Iterator[dict[str, np.ndarray]]:
    limit = int(held_back_share(recipe) * BUCKETS)
    rows = read_records(shards_in(folder), recipe.input, len(recipe.labels), mask_size(recipe))
    rows = rows.filter(lambda row: _bucket(row["patient"]) < limit).batch(recipe.schedule.batch_size)
    yield from rows.as_numpy_iterator()


def _held_back(recipe: Recipe, folder: Path) -> Iterator[tuple[np.ndarray, Targets]]:
    size = mask_size(recipe)
    for row in _held_back_rows(recipe, folder):
        targets = {"logits": row["labels"]}
        if size is not None:
            targets |= {"mask_logits": row["mask"], "peak": row["labels"][:, :1]}
        yield preprocessing.scale(row["image"], recipe.input), {name: targets[name] for name in recipe.losses}


def _bucket(patient: Any) -> Any:
    import tensorflow as tf

    return tf.strings.to_hash_bucket_fast(patient, BUCKETS)
