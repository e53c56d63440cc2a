"""A wall-clock budget as steps: a few steps are timed, then the number is settled, so that runs can go on."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from training.files import written_whole
from training.fit.feeds import Batch, train_feed
from training.fit.frozen import trained_part
from training.fit.model import build_model, compile_model
from training.fit.run import Run

if TYPE_CHECKING:
    import keras

TIMED = 4
VALIDATED = 0.35
"""Time that a picture takes in validation, of what it takes in a step: there is no way back through the network."""
PACE = "pace.json"
"""What a step took, in the run's folder: a run that goes on has the steps that it began with."""


def on_minutes(run: Run, minutes: float, validations: int = 0) -> Run:
    """The run with as many steps as fit into so many minutes, validation counted in.

    Parameters
    ----------
    validations : int
        How often it validates, evenly; 0 for the recipe's own ``steps_per_epoch``.
    """
    schedule = run.recipe.schedule
    time_in_steps = minutes * 60 / pace_of(run)
    once = VALIDATED * len(run.val_rows) / schedule.batch_size
    if validations:
        steps = max(validations, int(time_in_steps - validations * once))
        per_epoch = max(1, steps // validations)
    else:
        per_epoch = schedule.steps_per_epoch
        steps = max(1, int(time_in_steps * per_epoch / (per_epoch + once)))
    own = {"steps": steps, "steps_per_epoch": per_epoch, "warmup_steps": min(schedule.warmup_steps, steps // 20)}
    recipe = run.recipe.model_copy(update={"schedule": schedule.model_copy(update=own), "final_steps": 0})
    return replace(run, recipe=recipe, steps=steps)


def pace_of(run: Run) -> float:
    """Seconds of a step, measured once a run."""
    path = run.out / PACE
    if not path.is_file():
        text = json.dumps({"seconds_a_step": round(seconds_a_step(run), 5)}) + "\n"
        with written_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds_a_step"])


def seconds_a_step(run: Run) -> float:
    """Time of a step of the run, batch and all."""
    run, model = trained_part(run, build_model(run.recipe, run.weights))
    compile_model(model, run.recipe, frozen=False)
    return median_step_s(model, train_feed(run))


def median_step_s(model: keras.Model, batch: Batch) -> float:
    """Median time of a step, its batch counted in, after the one that traces."""
    times = []
    for step in range(TIMED + 1):
        started = time.monotonic()
        model.train_on_batch(*batch(step))
        times.append(time.monotonic() - started)
    return float(np.median(times[1:]))
