"""The network of a recipe: built, compiled with its losses and optimizer, and asked for predictions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.arrays import Arrays
from training.fit.adversary import with_adversary
from training.fit.batches import Targets
from training.fit.losses import LOSSES
from training.fit.measures import training_metrics
from training.fit.transfer import load_start, set_encoder_trainable
from training.recipe import Recipe, Schedule
from worker.packages.networks import build

if TYPE_CHECKING:
    import keras


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

    keras.utils.set_random_seed(recipe.seed)
    model = build.build(recipe.architecture, recipe.input)
    load_start(model, weights, recipe.architecture["builder"])
    return model if recipe.adversary is None else with_adversary(model, recipe.adversary)


def compile_model(model: keras.Model, recipe: Recipe, frozen: bool) -> None:
    """Attach losses and a fresh optimizer; with ``frozen`` the encoder's layers do not learn."""
    import keras

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
    weights = {name: spec.weight for name, spec in recipe.losses.items()}
    metrics = training_metrics(recipe) if set(model.output) <= losses.keys() else None
    model.compile(optimizer, loss=losses, loss_weights=weights, metrics=metrics)


def taught_part(model: keras.Model, recipe: Recipe) -> keras.Model:
    """The same layers with those outputs alone that have a loss: Keras counts metrics where every output has a target.

    A network whose other outputs have weights of their own, which checkpoints hold, stays as it is, without metrics.
    """
    import keras

    outputs = {name: output for name, output in model.output.items() if name in recipe.losses}
    if outputs.keys() == model.output.keys():
        return model
    part = keras.Model(model.inputs, outputs, name=model.name)
    return part if [v.path for v in part.variables] == [v.path for v in model.variables] else model


def predict(
    model: keras.Model,
    arrays: Arrays,
    rows: np.ndarray,
    batch_size: int = 32,
    flip: bool = False,
    clipped: bool = False,
) -> Targets:
    """Outputs of the model for rows in their order, without augmentation; ``flip`` mirrors left and right.

    ``clipped`` shows them without their wide windows.
    """
    from keras import ops

    parts: list[Targets] = []
    for start in range(0, len(rows), batch_size):
        x = arrays.inputs(rows[start : start + batch_size], clipped)
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
