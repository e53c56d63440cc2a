"""A split by slice beside one by patient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from training.datasets.arrays import Arrays, open_arrays
from training.datasets.base import end_slices
from training.head_ct import split_gap
from training.head_ct.split_gap import PARTS, Found, dealt, gap_of, split
from training.recipe import Recipe, load_recipe
from worker.packages.package import load


def _recipe() -> Recipe:
    """The published set-up with a toy network."""
    shipped = load_recipe("ct_ich_windows")
    return shipped.model_copy(
        update={
            "input": shipped.input.model_copy(update={"height": 32, "width": 32}),
            "architecture": {"builder": "tiny_classifier", "classes": 1},
            "schedule": shipped.schedule.model_copy(update={"epochs": 2, "batch_size": 4, "initial_loss": None}),
        }
    )


@pytest.fixture(scope="module")
def arrays(toy_data: Path) -> Arrays:
    return open_arrays(_recipe(), toy_data, None)


def test_the_recipe_is_the_published_one(arrays: Arrays) -> None:
    recipe = load_recipe("ct_ich_windows")
    assert recipe.input.windows == ((0.0, 80.0), (-20.0, 180.0), (-150.0, 230.0))
    assert recipe.architecture == {"builder": "inception_v3_classifier", "classes": 1, "dropout": 0.5}
    schedule = recipe.schedule
    assert (schedule.epochs, schedule.learning_rate, schedule.optimizer) == (10, 5e-4, "adam")
    assert recipe.datasets == {"ct_ich_two_windows": "ct_ich_two_windows"}
    ends = end_slices(arrays.items, 1)
    assert len(ends) == 2 * len({item.study for item in arrays.items})
    assert not any(arrays.items[i].usable for i in ends), "the first and the last slice of a scan teach nothing"


def test_patients_stay_whole_in_one_split_and_not_in_the_other(arrays: Arrays) -> None:
    rows = np.arange(len(arrays))
    place = dealt(arrays, rows, "patient", 1)
    for patient in np.unique(arrays.patients):
        assert len(set(place[arrays.patients == patient])) == 1
    bleeding = {p: place[arrays.patients == p][0] for p in arrays.patients[arrays.labels[:, 0] == 1]}
    assert len(set(bleeding.values())) == min(PARTS, len(bleeding)), "every part has its share of them"
    by_slice = dealt(arrays, rows, "slice", 1)
    assert any(len(set(by_slice[arrays.patients == p])) > 1 for p in arrays.patients)
    assert np.bincount(by_slice).max() - np.bincount(by_slice).min() <= 1


def test_the_gap_is_that_of_the_slices_which_both_measured(arrays: Arrays) -> None:
    known = np.flatnonzero(arrays.labels[:, 0] >= 0)
    truth, none = np.where(arrays.labels[known, 0] == 1, 1.0, -1.0), np.zeros(0, dtype=int)
    wrong = truth.copy()
    wrong[:4] *= -1
    found = {"slice": Found(known, truth, none, none), "patient": Found(known[2:], wrong[2:], none, none)}
    gap = gap_of(found, arrays)
    assert gap["slices"] == len(known) - 2
    assert gap["accuracy"]["value"] == pytest.approx(2 / (len(known) - 2))
    assert gap["auc"]["value"] > 0
    apart = {"slice": Found(known[:2], truth[:2], none, none), "patient": Found(known[2:], wrong[2:], none, none)}
    assert gap_of(apart, arrays) == {"split": "by slice minus by patient", "slices": 0}


def test_the_command_trains_both_and_goes_on(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_gap, "load_recipe", lambda name: _recipe())
    call = ["ct_ich_windows", "--data", str(toy_data), "--out", str(tmp_path)]
    done = CliRunner().invoke(split, call, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "split.json").read_text())["rows"]
    assert [row["split"] for row in rows] == ["by patient", "by slice", "by slice minus by patient"]
    for row in rows[:2]:
        assert {"precision", "f1", "false_negative_share_of_positives", "accuracy_on_trained_slices"} <= set(row)
        assert row["loss_before_training"] == pytest.approx(0.69, abs=0.3)
    page = (tmp_path / "evaluation.html").read_text()
    for heading in ("Learning curves, by patient", "Learning curves, by slice", "Confusion matrices"):
        assert f"<h2>{heading}</h2>" in page
    (package,) = (tmp_path / "packed" / "package").glob("*/*")
    assert load(package).card.training_data["held_back"] == rows[0]["slices"]
    monkeypatch.setattr(split_gap, "train", None)
    assert CliRunner().invoke(split, call, catch_exceptions=False).output == done.output, "nothing is trained again"
