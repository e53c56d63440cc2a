"""Out-of-fold predictions as the folds wrote them, joined with the items that they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from firstread.errors import FirstreadError
from training.datasets.arrays import Arrays
from training.datasets.base import Item
from training.fit.crossval import CLIPPED
from training.package.postprocess import EVIDENCE, Predictions
from worker.packages.patient_score import HEIGHTS, mask_areas
from worker.packages.probabilities import mask_evidence


class PredictionsError(FirstreadError):
    """The files of predictions do not cover the data, or belong to other data."""


class _Row(NamedTuple):
    logits: np.ndarray
    mask: np.ndarray | None
    fold: str


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for every item of the folds' data set: the items, the table, and mask probabilities uint8."""

    items: list[Item]
    predictions: Predictions
    masks: np.ndarray | None


def read_out_of_fold(
    paths: Sequence[Path],
    items: Sequence[Item],
    labels: np.ndarray,
    label_names: Sequence[str],
    dataset: str,
    flip: bool = True,
    clipped: bool = False,
) -> OutOfFold:
    """Join the folds' files; with ``flip`` the mean of the plain and the mirrored picture.

    ``clipped`` reads what the networks say of slices without their wide windows.

    Raises
    ------
    PredictionsError
        If an item of the data set has no prediction, or two, or the folds are of different recipes.
    """
    rows_by_key: dict[str, _Row] = {}
    _require_one_recipe(paths)
    splits = {f"{item.dataset}/{item.key}": item.split for item in items if item.dataset == dataset}
    for path in paths:
        with np.load(path) as stored:
            fold = str(stored["fold"])
            end = CLIPPED if clipped else ""
            logits = stored[f"logits{end}"].astype(np.float32)
            masks = stored[f"mask{end}"] if f"mask{end}" in stored.files else None
            if flip:
                logits = 0.5 * (logits + stored[f"logits_flip{end}"])
                if masks is not None:
                    masks = ((masks.astype(np.uint16) + stored[f"mask_flip{end}"] + 1) // 2).astype(np.uint8)
            for i, key in enumerate(stored["keys"]):
                if splits.get(str(key)) == fold:
                    if str(key) in rows_by_key:
                        raise PredictionsError(f"{key} has two predictions")
                    rows_by_key[str(key)] = _Row(logits[i], None if masks is None else masks[i], fold)
    return _join(rows_by_key, items, labels, label_names, dataset, set(_folds(paths)))


def _require_one_recipe(paths: Sequence[Path]) -> None:
    """Folds of one run differ in rows and steps and in nothing else."""
    recipes = set()
    for path in paths:
        with np.load(path) as stored:
            if "identity" in stored.files:
                recipe = json.loads(str(stored["identity"]))[0]
                recipes.add(json.dumps({k: v for k, v in recipe.items() if k != "schedule"}, sort_keys=True))
    if len(recipes) > 1:
        raise PredictionsError(f"the folds in {paths[0].parent.name} are of different recipes")


def _folds(paths: Sequence[Path]) -> list[str]:
    folds = []
    for path in paths:
        with np.load(path) as stored:
            folds.append(str(stored["fold"]))
    return folds


def _join(
    rows_by_key: dict[str, _Row],
    items: Sequence[Item],
    labels: np.ndarray,
    label_names: Sequence[str],
    dataset: str,
    folds: set[str],
) -> OutOfFold:
    rows = [i for i, item in enumerate(items) if item.dataset == dataset and item.split in folds]
    keys = [f"{items[i].dataset}/{items[i].key}" for i in rows]
    missing = [key for key in keys if key not in rows_by_key]
    if missing:
        raise PredictionsError(f"{len(missing)} items of {dataset} have no prediction, the first is {missing[0]}")
    masks = [rows_by_key[key].mask for key in keys]
    known = [mask for mask in masks if mask is not None]
    stack = np.stack(known) if len(known) == len(masks) else None
    studies = [items[i].study for i in rows]
    evidence = None if stack is None else mask_ways(stack, studies)
    table = Predictions(
        tuple(label_names),
        np.stack([rows_by_key[key].logits for key in keys]),
        labels[rows],
        np.asarray([items[i].study for i in rows]),
        np.asarray([items[i].patient for i in rows]),
        np.asarray([rows_by_key[key].fold for key in keys]),
        evidence,
        None if stack is None else areas_of(stack, studies),
    )
    return OutOfFold([items[i] for i in rows], table, stack)


def mask_ways(masks: np.ndarray, studies: Sequence[str]) -> np.ndarray:
    """Evidence of masks uint8 (n, h, w) in every way of ``postprocess.EVIDENCE``, study by study."""
    names = np.asarray(studies)
    evidence = np.zeros((len(masks), len(EVIDENCE)))
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        p = masks[rows].astype(np.float32) / 255.0
        evidence[rows] = np.column_stack([mask_evidence(p, neighbour, top) for neighbour, top in EVIDENCE])
    return evidence


def areas_of(masks: np.ndarray, studies: Sequence[str]) -> np.ndarray:
    """Areas of masks uint8 (n, h, w) by :func:`worker.packages.patient_score.mask_areas`, study by study."""
    names = np.asarray(studies)
    areas = np.zeros((len(masks), 2 * len(HEIGHTS)))
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        areas[rows] = mask_areas(masks[rows].astype(np.float32) / 255.0)
    return areas


def of_arrays(paths: Sequence[Path], arrays: Arrays, dataset: str, flip: bool = True) -> OutOfFold:
    """:func:`read_out_of_fold` for a run's own arrays."""
    return read_out_of_fold(paths, arrays.items, arrays.labels, arrays.label_names, dataset, flip)
