"""What happens beside the steps: learning rate, checkpoint, validation, progress, TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.fit.checkpoint import Checkpoint, TrainingError
from training.fit.feeds import validation_feed
from training.fit.model import learning_rate, predict_batch, validation_loss
from training.fit.run import Run
from training.fit.tracking import Tracker, machine_load

if TYPE_CHECKING:
    import keras


def loop_callbacks(
    model: keras.Model,
    run: Run,
    state: Checkpoint,
    tracker: Tracker | None = None,
    advance: Callable[[int], None] = lambda more: None,
) -> list[Any]:
    """The callbacks of one run; each has ``begin_step``, the global step at which the epoch at hand begins."""
    import keras

    every = run.recipe.schedule.checkpoint_steps

    class Steps(keras.callbacks.Callback):  # type: ignore[misc]
        begin_step = 0

        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            rate = learning_rate(run.recipe.schedule, run.steps, self.begin_step + batch)
            model.optimizer.learning_rate.assign(rate)

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            advance(1)
            step = self.begin_step + batch + 1
            if every and step % every == 0:
                state.save(model, step, state.notes())

        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.started = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            values = {name: float(value) for name, value in (logs or {}).items()}
            if not math.isfinite(values.get("loss", 0.0)):
                raise TrainingError(f"loss is not finite after step {epoch + 1}")
            values["seconds"] = time.monotonic() - self.started
            values |= machine_load()
            notes, stop = _judge(model, run, state, values)
            if run.recipe.pipeline == "chest_xray" and has_validation(run):
                truth, guess, names = confusion_rows(model, run)
                values |= validation_proportions(truth, guess, len(names))
            model.stop_training = stop
            state.save(model, epoch + 1, notes, stopped=stop)
            _record(run.out, epoch + 1, values)
            if tracker is not None:
                tracker.epoch(epoch + 1, values)
                if has_validation(run) and "logits" in run.recipe.losses:
                    tracker.confusion(epoch + 1, *confusion_rows(model, run))
            if run.on_epoch is not None:
                run.on_epoch(epoch + 1, values)

    return [Steps()]


def _judge(model: keras.Model, run: Run, state: Checkpoint, values: dict[str, float]) -> tuple[dict[str, Any], bool]:
    """Validate; where the recipe wants the best epoch or early stopping, keep the best weights."""
    schedule, notes = run.recipe.schedule, state.notes()
    if not has_validation(run):
        return notes, False
    values["val_loss"] = validation_loss(model, run)
    if not (schedule.best or schedule.early_stopping):
        return notes, False
    if values["val_loss"] < notes.get("best", math.inf):
        notes = {"best": values["val_loss"], "waited": 0}
        Checkpoint(run.out / "best.npz", state.identity).save(model, 0, {})
    else:
        notes["waited"] = notes.get("waited", 0) + 1
    return notes, bool(schedule.early_stopping and notes["waited"] >= schedule.early_stopping)


def has_validation(run: Run) -> bool:
    """Whether the run has rows, or a share of its shards' patients, that it does not train on."""
    if run.shards is not None:
        return run.shards.count(run.shards.validated()) > 0
    return len(run.val_rows) > 0


def confusion_rows(model: keras.Model, run: Run) -> tuple[list[int], list[int], list[str]]:
    """True and called class of every validation row that is labelled, and the classes' names.

    Labels that exclude each other (one softmax over all of them) are the classes; else they are the first label's
    absence and presence, called at a probability of 0.5.
    """
    labels, exclusive = run.recipe.labels, run.recipe.losses["logits"].name.startswith("softmax")
    truth: list[int] = []
    guess: list[int] = []
    for x, targets in validation_feed(run):
        logits, y = predict_batch(model, x), targets["logits"]
        if exclusive:
            known = (y.min(axis=1) >= 0) & (y.sum(axis=1) == 1)
            rows, called = y.argmax(axis=1), logits.argmax(axis=1)
        else:
            known, rows, called = y[:, 0] >= 0, y[:, 0] == 1, logits[:, 0] >= 0
        truth += rows[known].astype(int).tolist()
        guess += called[known].astype(int).tolist()
    return truth, guess, list(labels) if exclusive else [f"not {labels[0]}", labels[0]]


def validation_proportions(truth: Sequence[int], guess: Sequence[int], classes: int) -> dict[str, float]:
    """Accuracy, precision and recall of validation rows: of the second of two classes, the mean over more of them.

    A class that no row has, or none is called, is left out of the mean; empty without rows.
    """
    y, called = np.asarray(truth), np.asarray(guess)
    if not len(y):
        return {}
    wanted = (1,) if classes == 2 else range(classes)
    right = [np.sum((y == c) & (called == c)) for c in wanted]
    shares = {
        "val_precision": [hits / n for hits, c in zip(right, wanted, strict=True) if (n := np.sum(called == c))],
        "val_recall": [hits / n for hits, c in zip(right, wanted, strict=True) if (n := np.sum(y == c))],
    }
    means = {name: float(np.mean(values)) for name, values in shares.items() if values}
    return {"val_accuracy": float(np.mean(y == called)), **means}


def _record(out: Path, step: int, values: dict[str, float]) -> None:
    """Append one line to ``log.jsonl`` and the same numbers to TensorBoard's event file."""
    with (out / "log.jsonl").open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in values.items()}}) + "\n")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(out / "tensorboard"), filename_suffix=f".{step}")
    for name, value in values.items():
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()
