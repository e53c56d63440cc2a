"""Slices without bleed that an earlier run takes for bleeding, so that the next one sees them more often."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.datasets.arrays import Arrays
from training.fit.model import build_model, predict
from training.recipe import Recipe
from worker.packages.package import sha256_of

log = logging.getLogger(__name__)

LOGITS = "hard.npz"
HARD = "hard"
"""Attribute of the items, ``1`` for those that are hard: shares of a recipe may name it (``*:any=0,hard=1``)."""


def with_hard_negatives(recipe: Recipe, arrays: Arrays, rows: np.ndarray, checkpoint: Path) -> Arrays:
    """The arrays with the attribute ``hard`` on ``rows`` without bleed; the given arrays stay as they are.

    Hard are, in each data set, the share of the recipe's ``hard`` with the highest logits of the first label by the
    earlier run's network, which must not have seen the fold in test (:func:`training.fit.teacher.checkpoint_of`).
    """
    if recipe.hard is None:
        return arrays
    negative = np.asarray([row for row in rows if arrays.items[row].usable and arrays.labels[row, 0] == 0], dtype=int)
    logits = _logits(recipe, arrays, negative, checkpoint)
    names = np.asarray([arrays.items[row].dataset for row in negative])
    hard: set[int] = set()
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        count = round(recipe.hard.share * len(own))
        hard.update(negative[own[np.argsort(-logits[own], kind="stable")[:count]]].tolist())
    log.info("%d of %d slices without bleed are hard", len(hard), len(negative))
    items = list(arrays.items)
    for row in negative:
        attributes = {**items[row].attributes, HARD: str(int(int(row) in hard))}
        items[row] = replace(items[row], attributes=attributes)
    return replace(arrays, items=items)


def _logits(recipe: Recipe, arrays: Arrays, rows: np.ndarray, checkpoint: Path) -> np.ndarray:
    """Logits (n,) of the first label; kept beside the checkpoint, since the next fold asks for most of them again."""
    keys = [f"{arrays.items[row].dataset}/{arrays.items[row].key}" for row in rows]
    origin = f"{sha256_of(checkpoint)} {arrays.spec.model_dump_json()}"
    path = checkpoint.with_name(LOGITS)
    known: dict[str, float] = {}
    if path.is_file():
        with np.load(path) as stored:
            if str(stored["origin"]) == origin:
                known = dict(zip(stored["keys"].tolist(), stored["logits"].tolist(), strict=True))
    asked = np.asarray([row for row, key in zip(rows, keys, strict=True) if key not in known], dtype=int)
    if len(asked):
        fresh = predict(build_model(recipe, str(checkpoint)), arrays, asked)["logits"][:, 0]
        names = [key for key in keys if key not in known]
        known |= dict(zip(names, fresh.tolist(), strict=True))
        partial = path.with_suffix(f".{os.getpid()}.part.npz")
        np.savez(partial, origin=origin, keys=np.asarray(list(known)), logits=np.asarray(list(known.values())))
        os.replace(partial, path)
    return np.asarray([known[key] for key in keys])
