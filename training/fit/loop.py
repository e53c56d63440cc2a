"""The training loop: Keras ``fit`` on batches that depend on (seed, step) alone, with exact resume."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.arrays import Arrays
from training.fit.batches import Targets
from training.fit.checkpoint import Checkpoint as Checkpoint
from training.fit.checkpoint import TrainingError as TrainingError
from training.fit.feeds import Batch, train_feed, validation_feed
from training.fit.losses import LOSSES
from training.fit.structure import save_structure
from training.fit.tracking import Tracker
from training.progress import progress
from training.recipe import Recipe, Schedule
from training.shards.prepared import Prepared
from worker.packages.networks import build
from worker.packages.package import sha256_of

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


@dataclass
class Run:
    """One training: a recipe on some rows of the arrays, in a folder of its own."""

    recipe: Recipe
    arrays: Arrays
    train_rows: np.ndarray
    out: Path
    steps: int
    val_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    weights: str = "none"
    mixed_precision: bool = False
    distribute: bool = False
    wandb: bool = False
    shards: Prepared | None = None
    """Shards to train on; the arrays' rows then count for nothing."""
    on_epoch: Callable[[int, dict[str, float]], None] | None = None


def learning_rate(schedule: Schedule, steps: int, step: int) -> float:
    """Rate at a step: linear warm-up, then cosine to zero or constant."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    if schedule.decay != "cosine":
        return schedule.learning_rate
    done = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_model(recipe: Recipe, weights: str) -> keras.Model:
    """The recipe's network with starting weights.

    Parameters
    ----------
    weights : str
        ``none``, a path to an npz or ``.weights.h5``, or ``imagenet`` (which Keras may download, for builders that
        know it; nothing is downloaded otherwise).
    """
    import keras

    from training.fit.transfer import load_start

    keras.utils.set_random_seed(recipe.seed)
    model = build.build(recipe.architecture, recipe.input)
    load_start(model, weights, recipe.architecture["builder"])
    return model


def compile_model(model: keras.Model, recipe: Recipe, frozen: bool) -> None:
    """Attach losses and a fresh optimizer; with ``frozen`` the encoder's layers do not learn."""
    import keras

    from training.fit.transfer import set_encoder_trainable

    schedule = recipe.schedule
    set_encoder_trainable(model, not frozen)
    for layer in model.layers:
        if schedule.frozen and layer.name.startswith(schedule.frozen):
            layer.trainable = False
    common: dict[str, Any] = {"learning_rate": schedule.learning_rate}
    if schedule.clip_norm:
        common["global_clipnorm"] = schedule.clip_norm
    if schedule.ema:
        common |= {"use_ema": True, "ema_momentum": schedule.ema}
    if schedule.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(weight_decay=schedule.weight_decay, **common)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    elif schedule.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=schedule.momentum, **common)
    else:
        optimizer = keras.optimizers.Adam(**common)
    # Keras puts the averages in place at the end of every fit, and a fit here is only one epoch.
    optimizer.finalize_variable_values = lambda variables: None
    losses = {name: LOSSES[spec.name](**spec.options) for name, spec in recipe.losses.items()}
    model.compile(optimizer, loss=losses, loss_weights={name: spec.weight for name, spec in recipe.losses.items()})


def train(run: Run) -> keras.Model:
    """Train from the last checkpoint in ``run.out`` or from the start; give back the trained model.

    Raises
    ------
    TrainingError
        Where the initial loss is not what the recipe says, a loss is not finite, or the checkpoint is another run's.
    """
    import keras

    run.out.mkdir(parents=True, exist_ok=True)
    keras.mixed_precision.set_dtype_policy("mixed_float16" if run.mixed_precision else "float32")
    try:
        with _devices(run):
            return _train(run)
    finally:
        # what is built next, such as the package that is tested, is for serving
        keras.mixed_precision.set_dtype_policy("float32")


def _train(run: Run) -> keras.Model:
    recipe, schedule = run.recipe, run.recipe.schedule
    model = build_model(recipe, run.weights)
    batch = train_feed(run)
    state = Checkpoint(run.out / "checkpoint.npz", identity(run))
    done = state.step()
    if done == 0 and schedule.initial_loss is not None:
        _assert_initial_loss(model, recipe, batch)
    tracker = Tracker(run) if run.wandb and done < run.steps else None
    for first, last, frozen in _stages(schedule, run.steps):
        if done >= last:
            continue
        compile_model(model, recipe, frozen)
        model.optimizer.build(model.trainable_variables)
        if done > first or done == first != 0:
            state.restore(model, with_optimizer=done > first)
        _fit(model, run, batch, state, (first, max(first, done), last), tracker)
        done = max(done, state.step())
        if state.stopped():
            break
    if tracker is not None:
        tracker.finish([run.out / "checkpoint.npz", run.out / "log.jsonl", *save_structure(model, run.out)])
    if done and state.step() >= 0:
        state.restore(model, with_optimizer=False)
        if schedule.ema:
            _put_averages(model, recipe, state)
    if schedule.best and (run.out / "best.npz").is_file():
        Checkpoint(run.out / "best.npz", identity(run)).restore(model, with_optimizer=False)
    return model


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
    """Replace the weights by their exponential moving averages, which the optimizer's state of the checkpoint holds."""
    import keras

    compile_model(model, recipe, frozen=False)
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
    from training.fit.callbacks import loop_callbacks

    begins, first, last = steps
    ends = range(begins, last, run.recipe.schedule.steps_per_epoch)
    bounds = [first, *(end for end in ends if end > first), last]
    with progress(run.out.name, run.steps, first) as advance:
        callbacks = loop_callbacks(model, run, state, tracker, advance)
        for begin, end in pairwise(bounds):
            for callback in callbacks:
                callback.begin_step = begin
            model.fit(_batches(batch, begin, end), epochs=end, initial_epoch=end - 1, verbose=0, shuffle=False,
                      callbacks=callbacks)  # fmt: skip
            if model.stop_training:
                return


def _batches(batch: Batch, begin: int, end: int) -> Any:
    """The batches of steps ``begin`` to ``end`` in the form that Keras takes, made one ahead."""
    import keras

    if keras.backend.backend() == "tensorflow":
        return _dataset(batch, begin, end)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return end - begin

        def __getitem__(self, index: int) -> tuple[np.ndarray, Targets]:
            return batch(begin + index)

    return Batches(workers=1, use_multiprocessing=False, max_queue_size=4)


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


def identity(run: Run) -> str:
    """Everything that a run's weights depend on, as JSON: the recipe first, without what it only says in the card."""
    recipe = run.recipe.model_dump(mode="json", exclude={"card", "description"})
    if run.shards is not None:
        columns = [run.shards.index[name] for name in ("key", "split", "place", "balanced", "labels")]
    else:
        keys = [f"{item.dataset}/{item.key}/{item.usable}" for item in run.arrays.items]
        columns = [np.asarray(keys), run.arrays.labels, run.train_rows, run.val_rows]
    data = hashlib.sha256()
    for column in columns:
        data.update(np.ascontiguousarray(column).tobytes())
    path = Path(run.weights)
    weights = sha256_of(path) if path.is_file() else run.weights
    return json.dumps([recipe, run.steps, weights, run.mixed_precision, data.hexdigest()], sort_keys=True)


def _assert_initial_loss(model: keras.Model, recipe: Recipe, batch: Batch) -> None:
    compile_model(model, recipe, frozen=False)
    values = [float(model.test_on_batch(*batch(step), return_dict=True)["loss"]) for step in range(4)]
    expected = recipe.schedule.initial_loss or 0.0
    if abs(float(np.mean(values)) - expected) > 0.1:
        raise TrainingError(f"initial loss {np.mean(values):.3f}, the recipe expects {expected:.2f} within 0.1")


def predict(model: keras.Model, arrays: Arrays, rows: np.ndarray, batch_size: int = 32, flip: bool = False) -> Targets:
    """Outputs of the model for rows in their order, without augmentation; ``flip`` mirrors left and right."""
    from keras import ops

    parts: list[Targets] = []
    for start in range(0, len(rows), batch_size):
        x = arrays.inputs(rows[start : start + batch_size])
        count = len(x)
        if count < batch_size:
            x = np.concatenate([x, np.repeat(x[-1:], batch_size - count, axis=0)])
        out = model.predict_on_batch(x[:, :, ::-1] if flip else x)
        parts.append({name: ops.convert_to_numpy(value)[:count] for name, value in out.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if flip and "mask_logits" in joined:
        joined["mask_logits"] = joined["mask_logits"][:, :, ::-1]
    return joined


def predict_batch(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Logits (n, labels) of composed input."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(model.predict_on_batch(x)["logits"]))


def validation_loss(model: keras.Model, run: Run) -> float:
    """Mean loss over the validation rows, weighted by batch size."""
    total = count = 0.0
    for x, targets in validation_feed(run):
        result = model.test_on_batch(x, targets, return_dict=True)
        total, count = total + float(result["loss"]) * len(x), count + len(x)
    return total / max(1.0, count)
