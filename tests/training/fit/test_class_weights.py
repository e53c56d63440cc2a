"""Weights of classes from the counts of the rows that are trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.recipe_networks import ROWS, drawn_arrays, shrunk
from training.fit.class_weights import with_class_weights
from training.fit.run import Run
from training.recipe import RecipeError, load_recipe


def _run(name: str, labels: list[Any], tmp_path: Path) -> Run:
    recipe = shrunk(load_recipe(name), whole=False).model_copy(update={"class_weight": "inverse"})
    arrays = drawn_arrays(recipe)
    arrays.labels = np.asarray(labels, dtype=np.float32)
    arrays.items[-1] = replace(arrays.items[-1], usable=False)
    return Run(recipe, arrays, np.arange(ROWS), tmp_path, 2)


def test_two_classes_weigh_inversely_to_their_counts(tmp_path: Path) -> None:
    run = _run("pneumonia_cnn", [[1], [1], [1], [1], [1], [0], [-1], [0]], tmp_path)
    options = with_class_weights(run).losses["logits"].options
    assert options["positive_weight"] == [0.2], "one negative that teaches and five positives"
    assert options["smoothing"] == 0.02, "the loss's own options stay"


def test_exclusive_classes_weigh_inversely_to_their_counts(tmp_path: Path) -> None:
    rows = np.eye(3)[[0, 0, 0, 0, 1, 1, 2, 2]]
    weights = with_class_weights(_run("lesion_resnet50", rows.tolist(), tmp_path)).losses["logits"].options
    assert weights["class_weights"] == pytest.approx([7 / 12, 7 / 6, 7 / 3], abs=1e-5)


def test_a_missing_class_or_another_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no row"):
        with_class_weights(_run("pneumonia_cnn", [[1]] * ROWS, tmp_path))
    with pytest.raises(RecipeError, match="masked_bce and softmax_groups"):
        with_class_weights(_run("pneumonia4", np.eye(4)[[0, 1, 2, 3] * 2].tolist(), tmp_path))
