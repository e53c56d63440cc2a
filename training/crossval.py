"""Folds, one after the other: train without the fold in test, predict it, write the predictions, go on."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from training.arrays import Arrays
from training.datasets.base import first_places, place_of
from training.loop import Run, predict, train
from training.recipe import Recipe
from training.teacher import checkpoint_of, with_taught_masks

log = logging.getLogger(__name__)


def held_back(arrays: Arrays, recipe: Recipe) -> np.ndarray:
    """Bool (n,): rows of patients that no fold trains on, a fixed share of some data sets by hash of the patient."""
    rows = np.zeros(len(arrays), dtype=bool)
    for i, item in enumerate(arrays.items):
        rows[i] = place_of(item) < first_places(recipe.folds.validation.get(item.dataset, 0.0))
    return rows


def fold_rows(arrays: Arrays, recipe: Recipe, fold: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to predict. ``fold`` None is the final model: only what is held back is predicted.

    A recipe without folds, on data that name their training part (``train``), trains on that part alone.
    """
    away = held_back(arrays, recipe)
    train = np.asarray([item.split == "train" for item in arrays.items])
    if fold is None and not recipe.folds.names and train.any():
        return np.flatnonzero(train & ~away), np.flatnonzero(~train | away)
    test = np.asarray([fold is not None and i.dataset == recipe.folds.dataset and i.split == fold
                       for i in arrays.items])  # fmt: skip
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
    """
    found = []
    for fold in recipe.folds.names if folds is None else folds:
        path = out / f"oof_{fold}.npz"
        if not path.is_file():
            train_rows, test_rows = fold_rows(arrays, recipe, fold)
            log.info("fold %s: %d rows to train on, %d to predict", fold, len(train_rows), len(test_rows))
            begin, taught = _started(recipe, arrays, train_rows, start, f"fold_{fold}", weights)
            run = Run(recipe, taught, train_rows, out / f"fold_{fold}", recipe.schedule.steps, weights=begin,
                      **options)  # fmt: skip
            write_predictions(path, train(run), arrays, test_rows, fold)
        found.append(path)
    return found


def _started(
    recipe: Recipe, arrays: Arrays, rows: np.ndarray, start: Path | None, part: str, weights: str
) -> tuple[str, Arrays]:
    """First weights and arrays of one training: of the earlier run's same part where there is one."""
    if start is None:
        return weights, arrays
    checkpoint = checkpoint_of(start, part)
    return str(checkpoint), with_taught_masks(recipe, arrays, rows, checkpoint)


def train_final(
    recipe: Recipe, arrays: Arrays, out: Path, weights: str, start: Path | None = None, **options: Any
) -> Any:
    """The model on all folds, whose weights are shipped; items of a split ``val`` decide on early stopping."""
    train_rows, _ = fold_rows(arrays, recipe, None)
    steps = recipe.final_steps or recipe.schedule.steps
    validation = np.flatnonzero([not recipe.folds.names and item.split == "val" for item in arrays.items])
    if not len(validation):
        validation = np.flatnonzero(held_back(arrays, recipe) & np.asarray([i.usable for i in arrays.items]))
    begin, taught = _started(recipe, arrays, train_rows, start, "final", weights)
    return train(Run(recipe, taught, train_rows, out / "final", steps, validation, begin, **options))


def write_predictions(path: Path, model: Any, arrays: Arrays, rows: np.ndarray, fold: str) -> None:
    """Logits, plain and mirrored, and mask probabilities (uint8, plain) of rows, with their keys."""
    plain, mirrored = predict(model, arrays, rows), predict(model, arrays, rows, flip=True)
    stored: dict[str, np.ndarray] = {}
    for name, value in plain.items():
        if name == "mask_logits":
            p = 1 / (1 + np.exp(-value.astype(np.float32)))
            q = 1 / (1 + np.exp(-mirrored[name].astype(np.float32)))
            stored["mask"], stored["mask_flip"] = (np.round(m * 255).astype(np.uint8) for m in (p, q))
        else:
            stored[name], stored[f"{name}_flip"] = value, mirrored[name]
    keys = [f"{arrays.items[row].dataset}/{arrays.items[row].key}" for row in rows]
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(partial, keys=np.asarray(keys), fold=fold, labels=json.dumps(arrays.label_names), **stored)  # type: ignore[arg-type]
    os.replace(partial, path)
