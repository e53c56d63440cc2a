"""Folds, one after the other: train without the fold in test, predict it, write the predictions, go on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.arrays import Arrays
from training.datasets.base import EXTERNAL, Item, first_places, place_of
from training.datasets.folders import SPLITS
from training.files import written_whole
from training.fit.budget import on_minutes
from training.fit.checkpoint import TrainingError
from training.fit.hard import with_hard_negatives
from training.fit.loop import train
from training.fit.model import predict
from training.fit.run import Run, identity
from training.fit.teacher import checkpoint_of, with_taught_masks
from training.recipe import Recipe, RecipeError, sized

EVERY_FOLD = ("*",)
CLIPPED = "_clipped"
"""Ends the names of predictions on slices that were shown without their wide windows."""

log = logging.getLogger(__name__)


def held_back(arrays: Arrays, recipe: Recipe) -> np.ndarray:
    """Bool (n,): rows of patients that no fold trains on, a fixed share of some data sets by hash of the patient."""
    rows = np.zeros(len(arrays), dtype=bool)
    for i, item in enumerate(arrays.items):
        rows[i] = place_of(item) < first_places(recipe.folds.validation.get(item.dataset, 0.0))
    return rows


def with_named_folds(recipe: Recipe, items: Sequence[Item]) -> Recipe:
    """The recipe with its folds by name, all of which the data have.

    Raises
    ------
    RecipeError
        If the data lack a fold, name fewer than two, or have a patient in two of them.
    """
    folds = recipe.folds
    if not folds.names:
        return recipe
    _require_one_fold_a_patient([item for item in items if item.dataset in folds.datasets])
    own = [item for item in items if item.dataset == folds.dataset]
    there = sorted({item.split for item in own if item.split} - set(SPLITS))
    present = f"{folds.dataset} has folds {', '.join(there)}" if there else f"{folds.dataset} names no folds"
    if folds.names != EVERY_FOLD:
        absent = [name for name in folds.names if name not in there]
        if absent:
            raise RecipeError(f"no fold {', '.join(absent)} in the data: {present}")
        return recipe
    if len(there) < 2:
        raise RecipeError(
            f"{present}, and folds by patient take two names or more in the column `fold`; one model without folds is "
            "trained with `firstread prepare` and --shards"
        )
    return recipe.model_copy(update={"folds": folds.model_copy(update={"names": tuple(there)})})


def _require_one_fold_a_patient(items: Sequence[Item]) -> None:
    """Raise :class:`RecipeError` where a patient lies in two folds, of one data set or of several."""
    place: dict[str, str] = {}
    for item in items:
        if item.split in ("", *SPLITS):
            continue
        if place.setdefault(item.patient, item.split) != item.split:
            raise RecipeError(f"a patient lies in two folds ({place[item.patient]} and {item.split}): {item.key}")


def fold_rows(arrays: Arrays, recipe: Recipe, fold: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to predict. ``fold`` None is the final model: only what is held back is predicted.

    A recipe without folds, on data that name their training part (``train``), trains on that part alone. What is left
    out as external is predicted by every model and teaches none.
    """
    away = held_back(arrays, recipe) | np.asarray([item.split == EXTERNAL for item in arrays.items], dtype=bool)
    train = np.asarray([item.split == "train" for item in arrays.items])
    if fold is None and not recipe.folds.names and train.any():
        return np.flatnonzero(train & ~away), np.flatnonzero(~train | away)
    test = np.asarray(
        [fold is not None and i.dataset in recipe.folds.datasets and i.split == fold for i in arrays.items]
    )
    rows = np.flatnonzero(~away & ~test)
    if recipe.parameters.get("undersample"):
        rows = one_to_one(arrays, rows, recipe.seed)
    return rows, np.flatnonzero(test | away)


def one_to_one(arrays: Arrays, rows: np.ndarray, seed: int) -> np.ndarray:
    """The usable positives of the first label and as many usable negatives, drawn once by the seed."""
    usable = np.asarray([arrays.items[row].usable for row in rows])
    positive = rows[usable & (arrays.labels[rows, 0] == 1)]
    negative = rows[usable & (arrays.labels[rows, 0] == 0)]
    drawn = np.random.default_rng(seed).permutation(negative)[: len(positive)]
    return np.sort(np.concatenate([positive, drawn]))


def cross_validate(
    recipe: Recipe,
    arrays: Arrays,
    out: Path,
    weights: str,
    folds: tuple[str, ...] | None = None,
    start: Path | None = None,
    **options: Any,
) -> list[Path]:
    """Train every fold that has no predictions yet; give back the prediction files.

    With ``start``, an earlier run on the same folds, each fold begins with that fold's own weights.

    Raises
    ------
    TrainingError
        If predictions in the folder are of another run.
    """
    paths = []
    for fold in recipe.folds.names if folds is None else folds:
        path = out / f"oof_{fold}.npz"
        run = _fold_run(recipe, arrays, out, weights, fold, start, **options)
        if not is_written_by(path, identity(run)):
            test_rows = fold_rows(arrays, recipe, fold)[1]
            log.info("fold %s: %d rows to train on, %d to predict", fold, len(run.train_rows), len(test_rows))
            write_predictions(path, train(_taught(run, start)), arrays, test_rows, fold, identity(run))
        paths.append(path)
    return paths


def train_fold(
    recipe: Recipe, arrays: Arrays, out: Path, weights: str, fold: str, start: Path | None = None, **options: Any
) -> Any:
    """The model of one fold; one that has been trained is given back from its checkpoint."""
    return train(_taught(_fold_run(recipe, arrays, out, weights, fold, start, **options), start))


def _fold_run(
    recipe: Recipe, arrays: Arrays, out: Path, weights: str, fold: str, start: Path | None, **options: Any
) -> Run:
    """The training of one fold, on the masks that the data have."""
    part, train_rows = f"fold_{fold}", fold_rows(arrays, recipe, fold)[0]
    begin = weights if start is None else str(checkpoint_of(start, part, *recipe.folds.datasets))
    fitted = sized(recipe, usable(arrays, train_rows))
    return Run(
        fitted, arrays, train_rows, out / part, fitted.schedule.steps, validation_rows(arrays, recipe), begin, **options
    )


def _taught(run: Run, start: Path | None) -> Run:
    """The same training with what an earlier run says: masks where the data have none, and which negatives are hard."""
    if start is None:
        return run
    return replace(run, arrays=_taught_arrays(run.recipe, run.arrays, run.train_rows, Path(run.weights)))


def _taught_arrays(recipe: Recipe, arrays: Arrays, rows: np.ndarray, checkpoint: Path) -> Arrays:
    return with_hard_negatives(recipe, with_taught_masks(recipe, arrays, rows, checkpoint), rows, checkpoint)


def validation_rows(arrays: Arrays, recipe: Recipe) -> np.ndarray:
    """Rows that decide about the best epoch and early stopping: usable ones of patients that no fold trains on."""
    teaching = np.asarray([item.usable and item.split != EXTERNAL for item in arrays.items], dtype=bool)
    return np.flatnonzero(held_back(arrays, recipe) & teaching)


def usable(arrays: Arrays, rows: np.ndarray) -> int:
    """How many of the rows teach."""
    return sum(arrays.items[row].usable for row in rows)


def is_written_by(path: Path, run: str) -> bool:
    """Whether a file of predictions is there and of this very run.

    Raises
    ------
    TrainingError
        If it is of another recipe, other data or other first weights.
    """
    if not path.is_file():
        return False
    with np.load(path) as stored:
        if "identity" not in stored.files:
            log.warning("%s does not say which run it is of; it is taken as it is", path.name)
        elif str(stored["identity"]) != run:
            raise TrainingError(f"{path} is of another run; choose another folder or delete it")
    return True


def final_run(
    recipe: Recipe,
    arrays: Arrays,
    out: Path,
    weights: str,
    start: Path | None = None,
    minutes: float | None = None,
    **options: Any,
) -> Run:
    """The training on all folds, whose weights are shipped; items of a split ``val`` decide on early stopping.

    With ``minutes`` it gets as many steps as fit into them.
    """
    train_rows, _ = fold_rows(arrays, recipe, None)
    fitted = sized(recipe, usable(arrays, train_rows))
    steps = fitted.final_steps or fitted.schedule.steps
    validation = np.flatnonzero([not recipe.folds.names and item.split == "val" for item in arrays.items])
    if not len(validation):
        validation = validation_rows(arrays, recipe)
    begin, taught = weights, arrays
    if start is not None:
        checkpoint = checkpoint_of(start, "final")
        begin, taught = str(checkpoint), _taught_arrays(recipe, arrays, train_rows, checkpoint)
    run = Run(fitted, taught, train_rows, out / "final", steps, validation, begin, **options)
    return run if minutes is None else on_minutes(run, minutes)


def write_predictions(path: Path, model: Any, arrays: Arrays, rows: np.ndarray, fold: str, run: str) -> None:
    """Logits and mask probabilities (uint8) of rows, plain and mirrored, with their keys and their run.

    Where the input has wide windows, the same again without them (``_clipped``), for rows that have any.
    """
    stored = _outputs(model, arrays, rows, False)
    if arrays.spec.wide_windows:
        wide = arrays.has_wide(rows)
        clipped = {name: value.copy() for name, value in stored.items()}
        if wide.any():
            for name, value in _outputs(model, arrays, rows[wide], True).items():
                clipped[name][wide] = value
        stored |= {f"{name}{CLIPPED}": value for name, value in clipped.items()}
    keys = [f"{arrays.items[row].dataset}/{arrays.items[row].key}" for row in rows]
    origin = {"keys": np.asarray(keys), "fold": fold, "labels": json.dumps(arrays.label_names), "identity": run}
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **stored, **origin)  # type: ignore[arg-type]


def _outputs(model: Any, arrays: Arrays, rows: np.ndarray, clipped: bool) -> dict[str, np.ndarray]:
    stored: dict[str, np.ndarray] = {}
    plain, mirrored = (predict(model, arrays, rows, flip=flip, clipped=clipped) for flip in (False, True))
    for name, value in plain.items():
        if name == "mask_logits":
            p = 1 / (1 + np.exp(-value.astype(np.float32)))
            q = 1 / (1 + np.exp(-mirrored[name].astype(np.float32)))
            stored["mask"], stored["mask_flip"] = (np.round(m * 255).astype(np.uint8) for m in (p, q))
        else:
            stored[name], stored[f"{name}_flip"] = value, mirrored[name]
    return stored
