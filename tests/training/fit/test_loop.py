"""The training loop on toy sets: it learns, it goes on exactly after a kill, folds stay apart, a package comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.builders.toy_runs import ToyRun, recipe_of
from training.datasets.arrays import Arrays, open_arrays
from training.evaluation.metrics import auc
from training.fit.checkpoint import BEST, Checkpoint, TrainingError
from training.fit.crossval import cross_validate, fold_rows, held_back
from training.fit.loop import train
from training.fit.model import build_model, learning_rate, predict
from training.fit.run import Run, identity
from training.fit.teacher import checkpoint_of, with_taught_masks
from training.fit.transfer import WeightsError, load_start
from training.head_ct.out_of_fold import PredictionsError, of_arrays
from training.package.order import Order
from training.recipe import Teacher, load_recipe
from training.train import train_all
from worker.packages.package import load


@pytest.fixture
def data(toy_data: Path) -> Path:
    return toy_data


@pytest.fixture
def arrays(toy_arrays: Arrays) -> Arrays:
    return toy_arrays


@pytest.fixture(scope="module")
def learnt(toy_data: Path, toy_arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose fold 0 was trained long enough to know a bleed when it sees one."""
    out = tmp_path_factory.mktemp("learnt")
    train_all(Order(recipe_of(toy_data, 100), toy_data, out, folds=("0",), final=False))
    return out


def test_rate_warms_up_and_falls_to_zero(data: Path) -> None:
    schedule = recipe_of(data).schedule
    rates = [learning_rate(schedule, 20, step) for step in range(21)]
    assert rates[0] == pytest.approx(5e-3)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[20] == pytest.approx(0.0, abs=1e-9)


def test_learns_what_a_bleed_looks_like(learnt: Path, arrays: Arrays, data: Path) -> None:
    recipe = recipe_of(data, 100)
    model = build_model(recipe, str(learnt / "fold_0" / "checkpoint.npz"))
    known = np.flatnonzero(arrays.labels[:, 0] >= 0)
    logits = predict(model, arrays, known)["logits"][:, 0]
    assert auc(arrays.labels[known, 0], logits) > 0.9
    log = [json.loads(line) for line in (learnt / "fold_0" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(5, 101, 5))
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    assert list((learnt / "fold_0" / "tensorboard").glob("events*"))


CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from training.datasets.arrays import open_arrays
from training.fit.checkpoint import Checkpoint
from training.fit.loop import train
from training.fit.run import Run
from training.recipe import Recipe
save = Checkpoint.save
def dying(self, model, step, notes, stopped=False):
    save(self, model, step, notes, stopped)
    print(step, flush=True)
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = dying
recipe = Recipe.model_validate_json(sys.argv[3])
arrays = open_arrays(recipe, Path(sys.argv[1]), None)
train(Run(recipe, arrays, np.arange(len(arrays)), Path(sys.argv[2]), recipe.schedule.steps))
"""


@pytest.mark.timeout(300)
def test_run_killed_within_an_epoch_ends_with_the_very_same_weights(arrays: Arrays, data: Path, tmp_path: Path) -> None:
    recipe, rows = recipe_of(data, 10), np.arange(len(arrays))
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"checkpoint_steps": 3})})
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(data), str(tmp_path / "killed"), recipe.model_dump_json()],
        env={**os.environ, "PYTHONPATH": ".", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert child.stdout.split() == ["3", "5", "6"]
    whole = predict(train(Run(recipe, arrays, rows, tmp_path / "whole", 10)), arrays, rows)["logits"]
    again = predict(train(Run(recipe, arrays, rows, tmp_path / "killed", 10)), arrays, rows)["logits"]
    np.testing.assert_allclose(again, whole, rtol=1e-3, atol=1e-3)
    log = [json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert log == [5, 10]


def test_checkpoint_of_another_run_is_refused(toy_run: ToyRun, arrays: Arrays, tmp_path: Path) -> None:
    shutil.copytree(toy_run.out / "fold_0", tmp_path / "fold_0")
    train_rows = fold_rows(arrays, toy_run.recipe, "0")[0]
    with pytest.raises(TrainingError, match="another run"):
        train(Run(toy_run.recipe, arrays, train_rows, tmp_path / "fold_0", 20))


def test_wrong_initial_loss_stops_before_training(arrays: Arrays, data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(data)
    schedule = recipe.schedule.model_copy(update={"initial_loss": 0.1})
    with pytest.raises(TrainingError, match="initial loss"):
        train(Run(recipe.model_copy(update={"schedule": schedule}), arrays, np.arange(len(arrays)), tmp_path, 5))
    assert not (tmp_path / "checkpoint.npz").exists()


def test_whole_order_gives_a_package_that_serves(toy_run: ToyRun, arrays: Arrays) -> None:
    package = load(toy_run.package)
    assert set(package.card.operating_points) == {"flag", "balanced"}
    assert package.card.training_data["ct_ich"]["patients"] == 8
    figures = json.loads((toy_run.out / "evaluation" / "evaluation.json").read_text())
    assert figures["slices"]["any"]["n"] == 32
    assert figures["slices"]["any"]["prevalence"] == pytest.approx(0.25)
    assert package.card.metrics["out_of_fold"]["slices"]["any"]["auc"]["n"] == 8
    page = (toy_run.out / "evaluation" / "evaluation.html").read_text()
    assert "Worst misses" in page and "http" not in page.replace("http-equiv", "")
    assert {path.name for path in (toy_run.out / "final").iterdir()} >= {
        "model.keras",
        "structure.svg",
        "structure.txt",
    }
    baseline = package.card.baseline
    assert sum(baseline["intensity"]["counts"]) == len({item.study for item in arrays.items})
    assert sum(baseline["score"]["counts"]) == sum(baseline["thickness"]["counts"]) == 8


def test_predictions_of_another_run_are_not_taken(toy_run: ToyRun, arrays: Arrays, tmp_path: Path) -> None:
    shutil.copytree(toy_run.out, tmp_path, dirs_exist_ok=True)
    recipe, path = toy_run.recipe, tmp_path / "oof_0.npz"
    written = path.stat().st_mtime_ns
    assert cross_validate(recipe, arrays, tmp_path, "none", ("0",)) == [path]
    cross_validate(recipe.model_copy(update={"card": {"name": "other"}}), arrays, tmp_path, "none", ("0",))
    assert path.stat().st_mtime_ns == written
    changes: tuple[dict[str, Any], ...] = (
        {"augment": {"noise": 0.1}},
        {"shares": {}},
        {"patients_first": False},
        {"parameters": {"drop_bad_slices": True}},
    )
    for change in changes:
        with pytest.raises(TrainingError, match="another run"):
            cross_validate(recipe.model_copy(update=change), arrays, tmp_path, "none", ("0",))
    with pytest.raises(TrainingError, match="another run"):
        cross_validate(recipe, arrays, tmp_path, "none", ("0",), mixed_precision=True)
    flipped = replace(arrays, labels=1 - arrays.labels)
    with pytest.raises(TrainingError, match="another run"):
        cross_validate(recipe, flipped, tmp_path, "none", ("0",))
    with np.load(tmp_path / "oof_2.npz") as stored:
        columns = dict(stored)
    identity = json.loads(str(columns["identity"]))
    identity[0]["augment"] = {"noise": 0.1}
    np.savez(tmp_path / "oof_2.npz", **{**columns, "identity": json.dumps(identity, sort_keys=True)})
    with pytest.raises(PredictionsError, match="different recipes"):
        of_arrays([path, tmp_path / "oof_2.npz"], arrays, "ct_ich")


def test_folds_stop_early_as_the_last_model_does(toy_run: ToyRun, arrays: Arrays) -> None:
    away = held_back(arrays, toy_run.recipe)
    assert 0 < away.sum() < sum(item.dataset == "phe_sich" for item in arrays.items)
    log = [json.loads(line) for line in (toy_run.out / "fold_0" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [5, 10] and all(row["val_loss"] > 0 for row in log)


def test_mixed_precision_learns_and_leaves_no_trace(data: Path, arrays: Arrays, tmp_path: Path) -> None:
    import keras

    recipe, rows = recipe_of(data, 10), np.arange(len(arrays))
    model = train(Run(recipe, arrays, rows, tmp_path, 10, mixed_precision=True))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in convolutions} >= {"float16"}
    assert {layer.variable_dtype for layer in convolutions} == {"float32"}
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    assert np.isfinite(predict(model, arrays, rows)["logits"]).all()
    assert keras.mixed_precision.dtype_policy().name == "float32", "the package is built for serving"


def test_wrong_weights_are_refused_before_anything_is_decoded(data: Path, tmp_path: Path) -> None:
    for weights, text in (("imagenet", "no ImageNet weights"), ("nowhere.npz", "no weights file")):
        with pytest.raises(WeightsError, match=text):
            train_all(Order(recipe=recipe_of(data, 5), data=tmp_path / "no_data", out=tmp_path, weights=weights))


def test_best_epoch_and_early_stopping(arrays: Arrays, data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(data, 30)
    schedule = recipe.schedule.model_copy(
        update={"best": True, "early_stopping": 2, "learning_rate": 0.3, "decay": "constant"}
    )
    rows = np.arange(len(arrays))
    train(Run(recipe.model_copy(update={"schedule": schedule}), arrays, rows, tmp_path, 30, val_rows=rows[:16]))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [row["val_loss"] for row in log]
    best = int(np.argmin(losses))
    assert len(log) == 6 or len(log) - 1 - best == 2
    assert (tmp_path / BEST).is_file()


@pytest.mark.parametrize("freeze_steps", [0, 20])
def test_the_best_epoch_s_averages_ship(
    arrays: Arrays, data: Path, tmp_path: Path, freeze_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three epochs is the best, in the middle of the first stage or of all; its averages lag behind."""
    from training.fit import callbacks

    losses = iter([0.6, 0.4, 0.5])
    monkeypatch.setattr(callbacks, "validate", lambda *_: SimpleNamespace(values={"val_loss": next(losses)}, names=()))
    recipe = recipe_of(data, 15)
    changes = {"best": True, "ema": 0.9, "freeze_steps": freeze_steps, "decay": "constant"}
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=changes)})
    rows = np.arange(len(arrays))
    run = Run(recipe, arrays, rows, tmp_path, 15, val_rows=rows[:4])
    shipped = train(run)
    with np.load(tmp_path / BEST) as stored:
        assert stored["step"] == 10
        raw = [stored[f"m{i}"] for i in range(len(shipped.variables))]
    apart = [np.abs(raw[i] - v.numpy()).max() for i, v in enumerate(shipped.variables) if "kernel" in v.path]
    assert max(apart) > 0, "averaged, and not the last step's"
    last = build_model(recipe, "none")
    Checkpoint(tmp_path / BEST, identity(run)).restore(last, with_optimizer=False)
    means = [v for v in shipped.variables if "moving_mean" in v.path]
    of_best = {v.path: v.numpy() for v in last.variables}
    assert means and all(np.array_equal(v.numpy(), of_best[v.path]) for v in means), "of the best epoch"


def test_confusion_of_the_validation_rows(arrays: Arrays, data: Path, tmp_path: Path) -> None:
    from training.fit.callbacks import has_validation
    from training.fit.measures import validate

    recipe, rows = recipe_of(data), np.arange(len(arrays))
    run = Run(recipe, arrays, rows, tmp_path, 5, val_rows=rows[:12])
    assert has_validation(run) and not has_validation(Run(recipe, arrays, rows, tmp_path, 5))
    found = validate(build_model(recipe, "none"), run)
    assert found.names == ["not any", "any"]
    assert found.truth == arrays.labels[:12, 0].astype(int).tolist() and set(found.guess) <= {0, 1}
    assert {"val_loss", "val_accuracy", "val_iou"} <= set(found.values)


def test_transfer_in_two_stages_from_a_file(arrays: Arrays, data: Path, tmp_path: Path) -> None:
    from worker.packages.weights import save_by_layer

    recipe = recipe_of(data, 10)
    model = build_model(recipe, "none")
    save_by_layer(model, tmp_path / "start.npz", "float32")
    again = build_model(recipe.model_copy(update={"seed": 9}), str(tmp_path / "start.npz"))
    np.testing.assert_array_equal(
        model.get_layer("logits").get_weights()[0], again.get_layer("logits").get_weights()[0]
    )
    staged = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"freeze_steps": 5})})
    train(Run(staged, arrays, np.arange(len(arrays)), tmp_path / "run", 10, weights=str(tmp_path / "start.npz")))
    for weights, text in (("nowhere.npz", "no weights file"), ("imagenet", "no ImageNet weights")):
        with pytest.raises((WeightsError, ValueError), match=text):
            build_model(recipe, weights)


def test_structure_is_written(data: Path, tmp_path: Path) -> None:
    import keras

    from training.fit.structure import save_structure

    model = build_model(recipe_of(data), "none")
    save_structure(model, tmp_path)
    assert keras.models.load_model(tmp_path / "model.keras").count_params() == model.count_params()
    assert "mask" in (tmp_path / "structure.svg").read_text()
    assert "mask_conv" in (tmp_path / "structure.txt").read_text()


def test_second_stage_begins_with_each_folds_own_weights_and_masks(learnt: Path, data: Path, tmp_path: Path) -> None:
    first = recipe_of(tmp_path, steps=100)
    brief = first.schedule.model_copy(update={"steps": 10})
    second = first.model_copy(update={"carve": 0.5, "teacher": Teacher(low=0.1, high=0.4), "schedule": brief})
    arrays = open_arrays(second, data, None)
    rows, _ = fold_rows(arrays, second, "0")
    checkpoint = checkpoint_of(learnt, "fold_0")
    taught = with_taught_masks(second, arrays, rows, checkpoint)
    assert arrays.masks is not None and taught.masks is not None
    changed = np.flatnonzero((taught.masks != arrays.masks).any(axis=(1, 2)))
    assert len(changed)
    for row in changed:
        assert arrays.items[row].dataset == "phe_sich" and arrays.labels[row, 0] == 1 and row in rows
        drawn, values = taught.masks[row] >= 127, arrays.planes[row][..., 0].astype(np.float32)
        small = values.reshape(*drawn.shape, -1) if values.shape == drawn.shape else values[::2, ::2]
        assert small[drawn].mean() > small[~drawn].mean()

    train_all(Order(second, data, tmp_path / "second", start=learnt, folds=("0",), final=False))
    assert (tmp_path / "second" / "oof_0.npz").is_file()
    with pytest.raises(WeightsError, match="fold_2"):
        checkpoint_of(learnt, "fold_2")


def test_encoder_comes_from_arrays_by_layer_and_variable(tmp_path: Path) -> None:
    recipe = load_recipe("ct_ich_inceptionv3")
    small = recipe.model_copy(update={"input": recipe.input.model_copy(update={"height": 96, "width": 96})})
    model, builder = build_model(small, "none"), str(recipe.architecture["builder"])
    arrays: dict[str, Any] = {f"{layer.name}/{v.name}": np.asarray(v) for layer in model.layers for v in layer.weights}
    arrays = {name: value for name, value in arrays.items() if not name.startswith("logits")}
    rng = np.random.default_rng(0)
    arrays["conv2d_94/kernel"] = rng.normal(size=arrays["conv2d_94/kernel"].shape).astype(np.float16)
    others: dict[str, Any] = {"dense_1_of_another": np.zeros(3), "dense_1/kernel": np.zeros((3, 3))}
    np.savez(tmp_path / "start.npz", **others, **arrays)
    load_start(model, str(tmp_path / "start.npz"), builder)
    np.testing.assert_array_equal(model.get_layer("conv2d_94").get_weights()[0], arrays["conv2d_94/kernel"])
    del arrays["conv2d_7/kernel"]
    np.savez(tmp_path / "short.npz", **arrays)
    with pytest.raises(WeightsError, match="conv2d_7"):
        load_start(model, str(tmp_path / "short.npz"), builder)
