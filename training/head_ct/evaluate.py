"""``firstread evaluate RECIPE --out-of-fold RUN``: the figures of a run whose folds are trained."""

from __future__ import annotations

from pathlib import Path

from training.fit.crossval import with_named_folds
from training.head_ct.out_of_fold import PredictionsError, read_out_of_fold
from training.head_ct.package import evaluate_folds, with_learnt_outlines
from training.recipe import load_recipe
from training.train import open_items


def evaluate_run(recipe_name: str, data: Path, run: Path, out: Path, baseline: Path | None = None) -> Path:
    """Evaluate a run's predictions; everything that is chosen for a fold is chosen on the other folds.

    ``baseline`` is the folder of another recipe's run on the same folds, whose figures stand beside.

    Raises
    ------
    PredictionsError
        If the recipe has no folds, or a fold's predictions are missing.
    """
    recipe = load_recipe(recipe_name)
    if not recipe.folds.names:
        raise PredictionsError(f"recipe {recipe.name} has no folds")
    items, labels = open_items(recipe, data)
    recipe = with_named_folds(recipe, items)
    paths = [run / f"oof_{fold}.npz" for fold in recipe.folds.names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise PredictionsError(f"the run lacks {', '.join(missing)}")
    found = with_learnt_outlines(read_out_of_fold(paths, items, labels, recipe.labels, recipe.folds.dataset))
    evaluate_folds(recipe, found, data, out, baseline)
    return out / "evaluation.html"
