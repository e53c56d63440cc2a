"""The training loop: Keras ``fit`` on batches that depend on (seed, step) alone, with exact resume."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from training.fit.adversary import without_adversary
from training.fit.batches import Targets
from training.fit.callbacks import has_validation, loop_callbacks, write_initial
from training.fit.checkpoint import BEST, Checkpoint, TrainingError
from training.fit.class_weights import with_class_weights
from training.fit.feeds import Batch, train_feed
from training.fit.frozen import trained_part
from training.fit.lock import held
from training.fit.measures import validate
from training.fit.model import build_model, compile_model
from training.fit.run import Run, identity
from training.fit.tracking import Tracker
from training.progress import progress
from training.recipe import Recipe, Schedule

if TYPE_CHECKING:
    import keras


FEEDERS = 4
"""Threads that make batches, at most."""


def train(run: Run) -> keras.Model:
    """Train from the last checkpoint in ``run.out`` or from the start; give back the trained model.

    Raises
    ------
    TrainingError
        Where the initial loss is not what the recipe says, a loss is not finite, the checkpoint is another run's, or
        another training is at work in the folder.
    """
    import keras

    keras.mixed_precision.set_dtype_policy("mixed_float16" if run.mixed_precision else "float32")
    try:
        with held(run.out), _devices(run):
            return _train(run)
    finally:
        # what is built next, such as the package that is tested, is for serving
        keras.mixed_precision.set_dtype_policy("float32")


def _train(run: Run) -> keras.Model:
    recipe, schedule = with_class_weights(run), run.recipe.schedule
    network = build_model(recipe, run.weights)
    run, model = trained_part(run, network)
    batch = train_feed(run)
    state = Checkpoint(run.out / "checkpoint.npz", identity(run))
    done = state.step()
    if done == 0 and schedule.initial_loss is not None:
        _assert_initial_loss(model, recipe, batch)
    tracker = Tracker(run) if run.wandb and done < run.steps else None
    if tracker is not None and done == 0:
        tracker.graph(network)
    for first, last, frozen in _stages(schedule, run.steps):
        if done >= last:
            continue
        compile_model(model, recipe, frozen)
        model.optimizer.build(model.trainable_variables)
        if done > first or done == first != 0:
            state.restore(model, with_optimizer=done > first)
        elif has_validation(run):
            write_initial(run.out, validate(model, run).values)
        _fit(model, run, batch, state, (first, max(first, done), last), tracker)
        done = max(done, state.step())
        if state.stopped():
            break
    if tracker is not None:
        tracker.close()
    if done:
        best = Checkpoint(run.out / BEST, identity(run))
        kept = best if schedule.best and best.path.is_file() else state
        kept.restore(model, with_optimizer=False)
        if schedule.ema:
            _put_averages(model, recipe, kept)
    return network if recipe.adversary is None else without_adversary(network)


def _devices(run: Run) -> AbstractContextManager[Any]:
    """All GPUs of this machine where the run is distributed: tf.distribute, or JAX's data parallelism."""
    import keras

    if not run.distribute:
        return nullcontext()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        scope: AbstractContextManager[Any] = tf.distribute.MirroredStrategy().scope()
        return scope
    if backend == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        return nullcontext()
    raise TrainingError(f"--distribute works with TensorFlow and JAX, not with {backend}")


def _put_averages(model: keras.Model, recipe: Recipe, state: Checkpoint) -> None:
    """Replace the weights by their exponential moving averages, which the optimizer's state of the checkpoint holds.

    Of layers that did not learn yet at that step there are none.
    """
    import keras

    compile_model(model, recipe, frozen=0 < state.step() <= recipe.schedule.freeze_steps)
    model.optimizer.build(model.trainable_variables)
    state.restore(model, with_optimizer=True)
    keras.optimizers.Optimizer.finalize_variable_values(model.optimizer, model.trainable_variables)


def _stages(schedule: Schedule, steps: int) -> list[tuple[int, int, bool]]:
    frozen = min(schedule.freeze_steps, steps)
    stages = [(0, frozen, True), (frozen, steps, False)]
    return [stage for stage in stages if stage[1] > stage[0]]


def _fit(
    model: keras.Model, run: Run, batch: Batch, state: Checkpoint, steps: tuple[int, int, int], tracker: Tracker | None
) -> None:
    """The epochs of one stage: ``steps`` are where it starts, where it goes on, and where it ends."""
    begins, first, last = steps
    ends = range(begins, last, run.recipe.schedule.steps_per_epoch)
    bounds = [first, *(end for end in ends if end > first), last]
    with progress(run.out.name, run.steps, first) as advance:
        callbacks = loop_callbacks(model, run, state, tracker, advance)
        for begin, end in pairwise(bounds):
            for callback in callbacks:
                callback.begin_step = begin
            model.fit(
                _batches(batch, begin, end, run.shards is None),
                epochs=end,
                initial_epoch=end - 1,
                verbose=0,
                shuffle=False,
                callbacks=callbacks,
            )
            if model.stop_training:
                return


def _batches(batch: Batch, begin: int, end: int, any_order: bool) -> Any:
    """The batches of steps ``begin`` to ``end`` in the form that Keras takes, made ahead.

    TensorFlow on CPUs needs the cores itself. Another backend is there for its accelerator, so several threads make
    batches, where a batch does not need the one before (``any_order``); they come in order all the same.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        return _dataset(batch, begin, end)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return end - begin

        def __getitem__(self, index: int) -> tuple[np.ndarray, Targets]:
            return batch(begin + index)

    workers = min(FEEDERS, os.cpu_count() or 1) if any_order else 1
    return Batches(workers=workers, use_multiprocessing=False, max_queue_size=2 * workers)


def _dataset(batch: Batch, begin: int, end: int) -> Any:
    """A tf.data pipeline without autotuning, whose thread sleeps for up to a minute before it lets an epoch end."""
    import tensorflow as tf

    first = batch(begin)
    signature = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), first)

    def steps() -> Iterator[tuple[np.ndarray, Targets]]:
        yield first
        for step in range(begin + 1, end):
            yield batch(step)

    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_generator(steps, output_signature=signature).prefetch(2).with_options(options)


def _assert_initial_loss(model: keras.Model, recipe: Recipe, batch: Batch) -> None:
    compile_model(model, recipe, frozen=False)
    values = [float(model.test_on_batch(*batch(step), return_dict=True)["loss"]) for step in range(4)]
    expected = recipe.schedule.initial_loss or 0.0
    if abs(float(np.mean(values)) - expected) > 0.1:
        raise TrainingError(f"initial loss {np.mean(values):.3f}, the recipe expects {expected:.2f} within 0.1")
