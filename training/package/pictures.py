"""A batch of a run as the network saw it, for its report."""

from __future__ import annotations

import cv2
import numpy as np

from training.augmentation.kinds import augment_from
from training.datasets.arrays import Arrays
from training.evaluation.pictures import Miss
from training.fit.batches import groups_by, train_batch
from training.fit.crossval import fold_rows
from training.recipe import Recipe
from worker.packages.card import InputSpec

COLUMNS, SIDE_PX = 8, 96
TRAINING_BATCH = "Training batch"
"""Heading of a batch."""


def batch_pictures(recipe: Recipe, arrays: Arrays) -> dict[str, list[Miss]]:
    """The first batch of a run, under its heading; nothing where the base is frozen and no picture is bent."""
    if recipe.frozen_base:
        return {}
    return {TRAINING_BATCH: [Miss(batch_picture(recipe, arrays), "the first batch, after augmentation")]}


def batch_picture(recipe: Recipe, arrays: Arrays) -> np.ndarray:
    """The first batch of the run, uint8 (H, W) or (H, W, 3): rows of eight pictures, each as :func:`grey_levels`."""
    rows, _ = fold_rows(arrays, recipe, None)
    groups = groups_by(arrays, rows, recipe.shares or {"*": 1.0}, recipe.patients_first)
    x, _ = train_batch(
        arrays, groups, augment_from(recipe.augment, recipe.input), recipe.schedule.batch_size, recipe.seed, 0
    )
    pictures = grey_levels(x, recipe.input)
    pictures = pictures[: max(COLUMNS, len(pictures) // COLUMNS * COLUMNS)]
    small = [cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for picture in pictures]
    small += [np.zeros_like(small[0])] * (-len(small) % COLUMNS)
    return np.vstack([np.hstack(small[i : i + COLUMNS]) for i in range(0, len(small), COLUMNS)])


def grey_levels(x: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Network input (..., H, W, c) as a person sees it: uint8 (..., H, W), or (..., H, W, 3) of colours.

    Of neighbouring slices it is the slice itself, and of windows the first.
    """
    shown = x if spec.kind == "rgb" else x[..., spec.neighbours]
    low, high = float(shown.min()), float(shown.max())
    return np.asarray(np.round((shown - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8))
