"""Where batches come from: arrays in memory, or the shards that ``firstread prepare`` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from training.augmentation.carve import Donors
from training.augmentation.kinds import augment_from
from training.fit.batches import Added, Group, Targets, draw_rows, groups_by, mixed, targets_of, train_batch
from training.fit.run import Run
from training.recipe import mask_size
from training.shards.prepared import Prepared
from training.shards.records import Keep, read_records, training_pipeline
from worker.packages.preprocessing import compose

Batch = Callable[[int], tuple[Any, Targets]]


def train_feed(run: Run) -> Batch:
    """Batch number ``step`` of a run: a pure function of the recipe's seed and the step."""
    recipe = run.recipe
    if run.shards is not None:
        return _ShardFeed(run.shards)
    groups = groups_by(run.arrays, run.train_rows, recipe.shares or {"*": 1.0}, recipe.patients_first)
    if run.features is not None:
        return _feature_feed(run, groups)
    augment = augment_from(recipe.augment, recipe.input)
    added = None
    if recipe.carve or recipe.drawn or recipe.restacked:
        rows = run.train_rows if recipe.carve else run.train_rows[:0]
        added = Added(recipe.carve, recipe.drawn, Donors.among(run.arrays, rows), recipe.restacked)

    def batch(step: int) -> tuple[np.ndarray, Targets]:
        x, targets = train_batch(
            run.arrays, groups, augment, recipe.schedule.batch_size, recipe.seed, step, added, recipe.mixup
        )
        return x, {name: targets[name] for name in recipe.losses}

    return batch


def _feature_feed(run: Run, groups: list[Group]) -> Batch:
    """Batches of what a frozen base gave, drawn as pictures are."""

    def batch(step: int) -> tuple[Any, Targets]:
        rng = np.random.default_rng((run.recipe.seed, step))
        return _inputs_and_targets(run, draw_rows(groups, run.recipe.schedule.batch_size, rng))

    return batch


def _inputs_and_targets(run: Run, rows: np.ndarray) -> tuple[Any, Targets]:
    """Rows as they are: composed pictures, or what a frozen base gave for them."""
    targets = targets_of(run.arrays, rows)
    x = run.arrays.inputs(rows) if run.features is None else run.features.of(rows)
    return x, {name: targets[name] for name in run.recipe.losses}


def validation_feed(run: Run) -> Iterator[tuple[Any, Targets]]:
    """The validation rows (of shards: what undersampling left of the held-back part) once, in order, as they are."""
    size = run.recipe.schedule.batch_size
    if run.shards is not None:
        yield from _validation_batches(run.shards)
        return
    for start in range(0, len(run.val_rows), size):
        yield _inputs_and_targets(run, run.val_rows[start : start + size])


class _ShardFeed:
    """Batches of one endless stream, asked for in order; a run that goes on later skips what it has seen."""

    def __init__(self, shards: Prepared) -> None:
        self.shards = shards
        self.groups = shards.groups()
        self.next_step = -1
        self.stream: Iterator[Any] = iter(())

    def __call__(self, step: int) -> tuple[np.ndarray, Targets]:
        if step != self.next_step:
            self.stream = self._open(step)
        self.next_step = step + 1
        recipe = self.shards.recipe
        x, targets = next(self.stream)
        if recipe.mixup:
            x, targets = mixed(x, targets, recipe.mixup, np.random.default_rng((recipe.seed, step)))
        return x, {name: targets[name] for name in recipe.losses}

    def _open(self, step: int) -> Iterator[Any]:
        recipe = self.shards.recipe
        stream = training_pipeline(
            self.shards.shards,
            recipe.input,
            len(recipe.labels),
            recipe.schedule.batch_size,
            recipe.seed,
            mask_size(recipe),
            augment_from(recipe.augment, recipe.input),
            groups=self.groups,
            first_step=step,
        )
        batches: Iterator[Any] = stream.as_numpy_iterator()
        return batches


def record_batches(shards: Prepared, keep: Keep) -> Iterator[dict[str, np.ndarray]]:
    """Batches of the records that are wanted, in order; ``image`` is the network's input."""
    recipe = shards.recipe
    rows = read_records(shards.shards, recipe.input, len(recipe.labels), mask_size(recipe), keep)
    for row in rows.batch(recipe.schedule.batch_size).as_numpy_iterator():
        yield {**row, "image": compose.scale(row["image"], recipe.input)}


def _validation_batches(shards: Prepared) -> Iterator[tuple[np.ndarray, Targets]]:
    validated, recipe = shards.validated(), shards.recipe
    for row in record_batches(shards, lambda rows: validated(rows) & (rows["balanced"] == 1)):
        targets = {"logits": row["labels"]}
        if mask_size(recipe) is not None:
            targets |= {"mask_logits": row["mask"], "peak": row["labels"][:, :1]}
        yield row["image"], {name: targets[name] for name in recipe.losses}
