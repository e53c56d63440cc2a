"""Predictions of a fold as they are kept: with the wide windows that slices have, and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.builders.toy_runs import recipe_of
from training.datasets.arrays import open_arrays
from training.fit.crossval import fold_rows, write_predictions
from training.fit.model import build_model, predict
from training.head_ct.out_of_fold import read_out_of_fold


def test_slices_with_bone_are_predicted_as_if_clipped_too(toy_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(toy_data)
    folds = recipe.folds.model_copy(update={"dataset": "ct_ich_two_windows", "also": ("ct_ich",)})
    recipe = recipe.model_copy(
        update={
            "datasets": {"ct_ich_two_windows": "ct_ich_two_windows", "ct_ich": "ct_ich"},
            "input": recipe.input.model_copy(update={"wide_windows": ((-100.0, 900.0),)}),
            "folds": folds,
        }
    )
    arrays = open_arrays(recipe, toy_data, None)
    rows = fold_rows(arrays, recipe, "0")[1]
    wide = arrays.has_wide(rows)
    names = np.asarray([arrays.items[row].dataset for row in rows])
    assert (wide == (names == "ct_ich_two_windows")).all()
    model = build_model(recipe, "none")
    path = tmp_path / "oof_0.npz"
    run = json.dumps([{"name": "toy"}])
    write_predictions(path, model, arrays, rows, "0", run)
    with np.load(path) as stored:
        assert str(stored["identity"]) == run
        np.testing.assert_array_equal(stored["logits_clipped"][~wide], stored["logits"][~wide])
        apart = np.abs(stored["logits_clipped"][wide] - stored["logits"][wide]).max(axis=1)
        assert (apart > 1e-6).all()
        clipped = predict(model, arrays, rows[wide], clipped=True)["logits"]
        np.testing.assert_allclose(stored["logits_clipped"][wide], clipped, atol=1e-5)
    own, without = (
        read_out_of_fold([path], arrays.items, arrays.labels, recipe.labels, "ct_ich_two_windows", clipped=clipped)
        for clipped in (False, True)
    )
    assert own.items == without.items
    assert not np.allclose(own.predictions.logits, without.predictions.logits, atol=1e-6)
