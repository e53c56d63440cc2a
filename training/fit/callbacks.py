"""What happens beside the steps: learning rate, checkpoint, validation, progress, TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.fit.checkpoint import BEST, Checkpoint, TrainingError
from training.fit.measures import plain_name, validate
from training.fit.model import learning_rate
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
            if step == 1:
                first = {plain_name(name): float(value) for name, value in (logs or {}).items()}
                write_initial(run.out, first)
            if every and step % every == 0:
                state.save(model, step, state.notes())

        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.started = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            values = {plain_name(name): float(value) for name, value in (logs or {}).items()}
            if not math.isfinite(values.get("loss", 0.0)):
                raise TrainingError(f"loss is not finite after step {epoch + 1}")
            values["seconds"] = time.monotonic() - self.started
            values |= machine_load()
            validated = validate(model, run) if has_validation(run) else None
            values |= {} if validated is None else validated.values
            notes, stop = _judge(model, run, state, values, epoch + 1)
            model.stop_training = stop
            state.save(model, epoch + 1, notes, stopped=stop)
            _record(run.out, epoch + 1, values)
            if tracker is not None:
                tracker.epoch(epoch + 1, values)
                if validated is not None and validated.names:
                    tracker.confusion(epoch + 1, validated.truth, validated.guess, validated.names)
            if run.on_epoch is not None:
                run.on_epoch(epoch + 1, values)

    return [Steps()]


def _judge(
    model: keras.Model, run: Run, state: Checkpoint, values: dict[str, float], step: int
) -> tuple[dict[str, Any], bool]:
    """Where the recipe wants the best epoch or early stopping, keep the best weights by the validation loss."""
    schedule, notes = run.recipe.schedule, state.notes()
    if "val_loss" not in values or not (schedule.best or schedule.early_stopping):
        return notes, False
    if values["val_loss"] < notes.get("best", math.inf):
        notes = {"best": values["val_loss"], "waited": 0}
        Checkpoint(run.out / BEST, state.identity).save(model, step, {})
    else:
        notes["waited"] = notes.get("waited", 0) + 1
    return notes, bool(schedule.early_stopping and notes["waited"] >= schedule.early_stopping)


def has_validation(run: Run) -> bool:
    """Whether the run has rows, or a share of its shards' patients, that it does not train on."""
    if run.shards is not None:
        return run.shards.count(run.shards.validated()) > 0
    return len(run.val_rows) > 0


INITIAL = "initial.json"
"""Loss and accuracy before the first step: of the first batch, and of the validation rows where there are any."""


def write_initial(out: Path, values: dict[str, float]) -> None:
    """Keep what the untrained network showed, beside what is kept of it already."""
    path = out / INITIAL
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept |= {name: round(value, 6) for name, value in values.items()}
    path.write_text(json.dumps(kept) + "\n", encoding="utf-8")


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
