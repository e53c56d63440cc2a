"""``firstread train``: what it refuses before it trains, and that a refusal leaves a finished run as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from firstread_cli.training import train
from tests.builders.toy_runs import recipe_of
from training.fit.checkpoint import TrainingError
from training.fit.lock import held
from training.fit.model import build_model
from training.fit.teacher import CHECKPOINT, RECIPE_COPY
from training.fit.transfer import WeightsError, load_start
from training.package.order import Order
from training.recipe import Recipe, RecipeError, load_recipe
from training.train import require_same_recipe, train_all, write_recipe
from worker.packages.card import InputSpec
from worker.packages.networks import build


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "0"], "0 is not in the range"),
        (["--steps", "-5"], "-5 is not in the range"),
        (["--steps", "5", "--minutes", "1"], "--minutes settles the steps"),
        (["--version", "latest"], "latest is no version such as 1.2.3"),
    ],
)
def test_options_that_give_no_training_are_refused(options: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(train, ["pneumonia_cnn", "--data", str(tmp_path), *options])
    assert done.exit_code == 2 and said in done.output


def test_without_folds_and_without_the_last_model_there_is_nothing_to_train(toy_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(toy_data)
    plain = recipe.model_copy(update={"folds": recipe.folds.model_copy(update={"names": (), "validation": {}})})
    with pytest.raises(RecipeError, match="no folds: --no-final leaves nothing to train"):
        train_all(Order(plain, toy_data, tmp_path / "run", final=False))
    assert not (tmp_path / "run").exists()


def test_a_refused_call_leaves_the_recipe_of_the_run(toy_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(toy_data)
    other = recipe.model_copy(update={"seed": 9})
    write_recipe(recipe, tmp_path)
    require_same_recipe(other, tmp_path)  # nothing was trained yet
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / CHECKPOINT).touch()
    with pytest.raises(TrainingError, match=r"another recipe \(seed\)"):
        train_all(Order(other, toy_data, tmp_path))
    assert Recipe.model_validate_json((tmp_path / RECIPE_COPY).read_text()).seed == recipe.seed
    require_same_recipe(recipe.model_copy(update={"description": "in other words"}), tmp_path)


def test_a_folder_holds_one_training_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path / "run"):
        with pytest.raises(TrainingError, match="another training is at work"), held(tmp_path / "run"):
            pass
        with held(tmp_path / "other"):
            pass
    with held(tmp_path / "run"):
        pass


def test_weights_of_an_encoder_that_the_network_has_not_are_refused(tmp_path: Path) -> None:
    recipe = load_recipe("pneumonia_cnn")
    spec = InputSpec(kind="grey", height=32, width=32)
    small = {**recipe.architecture, "filters": [4], "dense": [4], "dropout": [0.1]}
    model = build.build(small, spec)
    stem: dict[str, Any] = {"_conv_stem.weight": np.zeros((32, 3, 3, 3), np.float32)}
    np.savez(tmp_path / "lite.npz", **stem)
    with pytest.raises(WeightsError, match=r"lite\.npz does not fit the network: .* none of its layers"):
        load_start(model, str(tmp_path / "lite.npz"), "pneumonia_cnn")


def test_a_file_of_weights_that_is_cut_off_is_refused(toy_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(toy_data)
    model = build_model(recipe, "none")
    np.savez(tmp_path / "whole.npz", np.zeros(1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"cut\.npz cannot be read"):
        load_start(model, str(tmp_path / "cut.npz"), str(recipe.architecture["builder"]))
