"""``firstread head scores``: candidates side by side, other data of the same patients, and a hospital left out."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from firstread_cli.experiments import head
from tests.builders.toy_runs import TOY
from training.datasets.base import EXTERNAL, Item
from training.datasets.registry import open_dataset
from training.fit.teacher import require_unseen
from training.fit.transfer import WeightsError
from training.head_ct.out_of_fold import PredictionsError
from training.head_ct.patient_scores import measure_run
from training.package.study_scores import CANDIDATES
from training.recipe import Recipe
from training.train import write_recipe


def recipe_of_both(leave_out: tuple[str, ...] = ()) -> Recipe:
    """The toy recipe on CT-ICH in two windows, with the clipped pictures of the same patients."""
    tables = tomllib.loads(TOY.format(steps=5))
    tables["datasets"]["ct_ich_two_windows"] = "ct_ich_two_windows"
    tables["folds"] |= {"dataset": "ct_ich_two_windows", "also": ["ct_ich"]}
    return Recipe.model_validate({**tables, "leave_out": leave_out})


def predict(items: list[Item], fold: str, path: Path, seed: int) -> None:
    """Predictions of one fold's network: its patients in both data sets, and everybody of the other hospital."""
    rng = np.random.default_rng(seed)
    part = [item for item in items if item.split == fold or item.dataset == "phe_sich"]
    y = np.asarray([item.labels["any"] for item in part])
    stored: dict[str, Any] = {}
    for name in ("logits", "logits_flip"):
        stored[name] = (3 * y[:, None] - 2 + rng.normal(0, 1, (len(part), 6))).astype(np.float32)
    mask = rng.integers(0, 40, (len(part), 16, 16)).astype(np.uint8)
    mask[y == 1, 4:8, 4:8] = 200
    keys = np.asarray([f"{item.dataset}/{item.key}" for item in part])
    labels = json.dumps(list(recipe_of_both().labels))
    np.savez(path, keys=keys, fold=fold, labels=labels, mask=mask, mask_flip=mask, **stored)


@pytest.fixture(scope="module")
def run(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    names = ("ct_ich_two_windows", "ct_ich", "phe_sich")
    items = [item for name in names for item in open_dataset(name, toy_data / name).items()]
    write_recipe(recipe_of_both(("phe_sich",)), folder)
    for seed, fold in enumerate(("0", "2")):
        predict(items, fold, folder / f"oof_{fold}.npz", seed)
    return folder


def test_scores_are_chosen_out_of_fold_and_written(run: Path, toy_data: Path, tmp_path: Path) -> None:
    command = ["scores", str(run), "--data", str(toy_data), "--out", str(tmp_path / "all")]
    result = CliRunner().invoke(head, command, catch_exceptions=False)
    assert result.exit_code == 0 and "chosen:" in result.output
    written = json.loads((tmp_path / "all" / "patient_scores.json").read_text())
    assert list(written["candidates"]) == list(CANDIDATES) and written["chosen"] in CANDIDATES
    row = written["candidates"]["volume"]
    assert row["patients"] == 10 and row["bleeding"] == 4, "patients of the fold `new` are scored too"
    assert row["auc"]["low"] <= row["auc"]["value"] == 1.0
    assert row["specificity_where_all_are_found"]["value"] == 1.0
    tables = json.loads((tmp_path / "all" / f"{written['recipe']}_scores_without_phe_sich.json").read_text())
    scores = {row["score"]: row for row in tables["rows"]}
    assert scores["volume"]["patient AUC"] == row["auc"] and "phe_sich left out" in tables["budget"]
    assert scores["phe_sich, by the network without fold 2"]["bleeding"] == 3
    clipped = written["same_patients"]["ct_ich"]
    assert clipped["patients"]["patients"] == 8 and clipped["slices"]["value"] > 0.9
    external = written["external"]["phe_sich"]
    assert list(external) == ["0", "2"] and external["0"]["by_the_network_without_fold"] == "0"
    assert external["0"]["patients"]["bleeding"] == 3 and "auc" not in external["0"]["patients"]
    assert external["0"]["negative_slices_not_called"]["n"] == 0, "every toy negative is in doubt"


def test_a_folder_without_a_run_and_a_single_fold_are_refused(run: Path, toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="it is no run"):
        measure_run(toy_data, tmp_path)
    write_recipe(recipe_of_both(), tmp_path)
    (tmp_path / "oof_0.npz").write_bytes((run / "oof_0.npz").read_bytes())
    with pytest.raises(PredictionsError, match="a choice takes two or more"):
        measure_run(toy_data, tmp_path)


def test_a_start_that_saw_the_hospital_that_is_left_out_is_refused(toy_data: Path, tmp_path: Path) -> None:
    items = open_dataset("phe_sich", toy_data / "phe_sich").items()
    recipe = recipe_of_both().model_copy(update={"datasets": {"phe_sich": "."}})
    write_recipe(recipe, tmp_path)
    external = [replace(item, split=EXTERNAL) for item in items]
    require_unseen(tmp_path, items)
    with pytest.raises(WeightsError, match="has seen phe_sich"):
        require_unseen(tmp_path, external, ["phe"])
    write_recipe(recipe.model_copy(update={"leave_out": ("phe", "ct")}), tmp_path)
    require_unseen(tmp_path, external, ["phe"])
