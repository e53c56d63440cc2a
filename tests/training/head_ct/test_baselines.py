"""Baselines beside a run's figures, on the files that folds leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from firstread_cli.training import evaluate
from tests.builders.toy_runs import recipe_of
from tests.builders.toy_sets import write_ct_ich, write_phe_sich
from training.datasets.base import Item
from training.datasets.registry import open_dataset
from training.head_ct.baselines import read_baseline
from training.head_ct.out_of_fold import PredictionsError
from training.recipe import Recipe


def write_run(run: Path, items: list[Item], folds: dict[str, int], labels: list[str], masks: bool) -> None:
    """Predictions of folds as training writes them, with a log of so many steps; logits know the label a little."""
    rng = np.random.default_rng(1)
    for fold, steps in folds.items():
        part = [item for item in items if item.split == fold]
        y = np.asarray([item.labels["any"] for item in part], np.float32)
        stored: dict[str, Any] = {}
        for name in ("logits", "logits_flip"):
            stored[name] = (2 * y[:, None] - 1 + rng.normal(0, 1, (len(part), len(labels)))).astype(np.float32)
        if masks:
            stored["mask"] = stored["mask_flip"] = rng.integers(0, 200, (len(part), 16, 16)).astype(np.uint8)
        (run / f"fold_{fold}").mkdir(parents=True)
        lines = [json.dumps({"step": n, "loss": 1.0}) for n in (5, steps)]
        (run / f"fold_{fold}" / "log.jsonl").write_text("\n".join(lines) + "\n")
        identity = json.dumps([{"architecture": {"builder": "inception_v3_classifier"}}, steps, "none", 1, 1])
        np.savez(run / f"fold_{fold}" / "checkpoint.npz", identity=identity)
        keys = [f"{item.dataset}/{item.key}" for item in part]
        np.savez(run / f"oof_{fold}.npz", keys=np.asarray(keys), fold=fold, labels=json.dumps(labels), **stored)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    write_ct_ich(root / "ct_ich")
    write_phe_sich(root / "phe_sich")
    return root


@pytest.fixture(scope="module")
def recipe(data: Path) -> Recipe:
    return recipe_of(data)


@pytest.fixture(scope="module")
def ours(data: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("ours")
    write_run(run, open_dataset("ct_ich", data / "ct_ich").items(), {"0": 20, "2": 20}, list(recipe.labels), True)
    return run


@pytest.mark.parametrize("folds", [{"0": 30, "2": 40}, {"2": 30}])
def test_rows_stand_side_by_side(data: Path, recipe: Recipe, ours: Path, tmp_path: Path, folds: dict[str, int]) -> None:
    other, out = tmp_path / "inception", tmp_path / "page"
    write_run(other, open_dataset("ct_ich", data / "ct_ich").items(), folds, ["any"], False)
    command = [
        str(data / "toy_20.toml"),
        "--data",
        str(data),
        "--out-of-fold",
        str(ours),
        "--out",
        str(out),
        "--baseline",
        str(other),
    ]
    result = CliRunner().invoke(evaluate, command, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads((out / "evaluation.json").read_text())["compared"]
    assert rows["always_normal"]["slices"]["sensitivity"]["value"] == 0
    assert rows["always_normal"]["slices"]["auc"]["value"] == 0.5
    name = "inception_v3_classifier, " + (
        "30 to 40 steps a fold, folds 0, 2" if len(folds) == 2 else "30 steps a fold, folds 2"
    )
    studies = rows[name]["patients_at_flag"]["n"]
    assert studies == (rows["ours"]["patients_at_flag"]["n"] if len(folds) == 2 else 4)
    assert ("ours, folds 2" in rows) == (len(folds) == 1)
    if len(folds) == 1:
        assert rows["ours, folds 2"]["slices"]["n"] == rows[name]["slices"]["n"]
    table = {row.pop("score"): row for row in json.loads((out / "compared.json").read_text())["rows"]}
    assert list(table) == list(rows)
    assert table["ours"]["slice AUC"] == rows["ours"]["slices"]["auc"]
    page = (out / "evaluation.html").read_text()
    assert "inception v3 classifier" in page and "folds 0 and 2" in page


def test_a_run_without_predictions_is_refused(data: Path, ours: Path, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="no out-of-fold"):
        read_baseline(tmp_path, open_dataset("ct_ich", data / "ct_ich").items(), "ct_ich")
    result = CliRunner().invoke(evaluate, ["toy", "--data", str(data), "--baseline", str(ours)])
    assert result.exit_code == 2 and "--out-of-fold" in result.output
