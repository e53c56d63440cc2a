"""Steps of a wall-clock budget."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.builders.recipe_networks import ROWS, drawn_arrays, shrunk
from training.fit.budget import PACE, VALIDATED, on_minutes, pace_of
from training.fit.run import Run
from training.recipe import load_recipe


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose step takes two seconds, as its folder says; four rows validate."""
    recipe = shrunk(load_recipe("pneumonia_cnn"), whole=False)
    schedule = recipe.schedule.model_copy(update={"steps_per_epoch": 10, "warmup_steps": 60})
    (tmp_path / PACE).write_text(json.dumps({"seconds_a_step": 2.0}))
    rows = np.arange(ROWS)
    return Run(recipe.model_copy(update={"schedule": schedule}), drawn_arrays(recipe), rows, tmp_path, 9, rows[:4])


def test_minutes_become_steps_with_validation_counted_in(run: Run) -> None:
    timed = on_minutes(run, 10, validations=5)
    assert timed.steps == int(300 - 5 * VALIDATED)
    assert timed.recipe.schedule.steps_per_epoch == timed.steps // 5
    assert timed.recipe.schedule.warmup_steps == timed.steps // 20, "what warms up is a small part"
    own = on_minutes(run, 10)
    assert own.recipe.schedule.steps_per_epoch == 10
    assert own.steps == own.recipe.schedule.steps == int(300 * 10 / (10 + VALIDATED))


def test_a_run_that_goes_on_keeps_its_pace(run: Run, tmp_path: Path) -> None:
    (tmp_path / PACE).unlink()
    measured = pace_of(run)
    assert measured > 0 and pace_of(run) == measured == json.loads((tmp_path / PACE).read_text())["seconds_a_step"]
