"""Negatives that an earlier run takes for bleeding are drawn with a share of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.builders.toy_runs import ToyRun
from training.datasets.arrays import Arrays
from training.fit.batches import groups_by
from training.fit.crossval import fold_rows
from training.fit.hard import with_hard_negatives
from training.fit.model import build_model, predict
from training.recipe import HardNegatives


def test_the_negatives_with_the_highest_scores_are_hard(
    toy_run: ToyRun, toy_arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Path(shutil.copy(toy_run.out / "fold_0" / "checkpoint.npz", tmp_path))
    rows = fold_rows(toy_arrays, toy_run.recipe, "0")[0]
    recipe = toy_run.recipe.model_copy(update={"hard": HardNegatives(share=0.25)})
    arrays = with_hard_negatives(recipe, toy_arrays, rows, checkpoint)
    negative = [row for row in rows if toy_arrays.items[row].usable and toy_arrays.labels[row, 0] == 0]
    hard = [row for row in negative if arrays.items[row].attributes["hard"] == "1"]
    assert len(hard) == round(0.25 * len(negative)) > 0
    logits = predict(build_model(recipe, str(checkpoint)), toy_arrays, np.asarray(negative))["logits"][:, 0]
    least = min(logit for row, logit in zip(negative, logits, strict=True) if row in hard)
    assert all(logit <= least for row, logit in zip(negative, logits, strict=True) if row not in hard)
    groups = groups_by(arrays, rows, {"ct_ich:any=0,hard=1": 0.5, "*:any=1": 0.5}, False)
    assert sorted(groups[0].rows.tolist()) == sorted(hard)
    assert "hard" not in toy_arrays.items[negative[0]].attributes, "the given arrays stay as they are"
    assert with_hard_negatives(toy_run.recipe, toy_arrays, rows, checkpoint) is toy_arrays
    monkeypatch.setattr("training.fit.hard.predict", None)
    again = with_hard_negatives(recipe, toy_arrays, rows, checkpoint)
    assert again.items == arrays.items, "what was predicted once is read"
