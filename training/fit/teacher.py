"""An earlier run as the teacher of the next: first weights by fold, and masks where only a slice's label is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from training.datasets.arrays import MASK_UNKNOWN, Arrays
from training.datasets.base import EXTERNAL, Item
from training.fit.model import build_model, predict
from training.fit.transfer import WeightsError
from training.recipe import Recipe, Teacher

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

CHECKPOINT, RECIPE_COPY = "checkpoint.npz", "recipe.json"
LEAST_SHARE = 0.001
"""Share of the mask's pixels; smaller parts are specks."""
SHARE_OF_LARGEST = 0.2
SLIVER = 0.015
"""Half a part's width, as a share of the mask's height, below which it is a sliver."""
AT_BONE = 0.03
"""Reach of partial volume round bone, as a share of the mask's height."""
BRAIN = (0.2, 0.75)
DENSER = 0.08
"""How much denser than the median of the brain blood is, as a share of the window (0..80 HU: 6.4 HU)."""
CALCIUM = 0.93
"""Share of the window from which a spot is calcium or bone rather than blood (74 HU)."""


def checkpoint_of(earlier: Path, part: str, *folded: str) -> Path:
    """The earlier run's checkpoint of ``fold_<name>`` or ``final``: the model that saw the same patients, no others.

    An earlier run without folds that opened none of the data sets ``folded`` has one model for every part.

    Raises
    ------
    WeightsError
        If the earlier run has none.
    """
    path = earlier / part / CHECKPOINT
    if not path.is_file() and folded and not set(folded).intersection(opened_by(earlier)):
        path = earlier / "final" / CHECKPOINT
    if not path.is_file():
        raise WeightsError(f"the earlier run has no {part}/{CHECKPOINT}")
    return path


def opened_by(run: Path) -> tuple[str, ...]:
    """Names of the data sets that a run opened, as its recipe's copy says.

    Raises
    ------
    WeightsError
        If the folder holds no run.
    """
    return tuple(earlier_recipe(run).datasets)


def earlier_recipe(run: Path) -> Recipe:
    """The recipe that a run was of. Raises :class:`WeightsError` if the folder holds no run."""
    path = run / RECIPE_COPY
    if not path.is_file():
        raise WeightsError(f"{run.name} holds no {RECIPE_COPY}: it is no run, or of an older Firstread")
    return Recipe.model_validate_json(path.read_text(encoding="utf-8"))


def require_unseen(earlier: Path, items: Sequence[Item], leave_out: Sequence[str] = ()) -> None:
    """Raise :class:`WeightsError` where an earlier run opened data sets of items that are external to this one.

    One that left the same hospitals out (``leave_out``) did not train on them.
    """
    if leave_out and set(leave_out) <= set(earlier_recipe(earlier).leave_out):
        return
    external = {item.dataset for item in items if item.split == EXTERNAL}
    if seen := sorted(external.intersection(opened_by(earlier))):
        raise WeightsError(f"{earlier.name} has seen {', '.join(seen)}, of which a hospital is left out here")


def with_taught_masks(recipe: Recipe, arrays: Arrays, rows: np.ndarray, checkpoint: Path) -> Arrays:
    """The arrays with the teacher's masks on positive rows of unknown mask; the given arrays stay as they are.

    What the teacher gives between ``recipe.teacher.low`` and ``high`` is stretched to 0 and 1, so that its doubt stays
    doubt. A positive slice in which it sees nothing keeps its unknown mask.
    """
    teacher = recipe.teacher
    if arrays.masks is None or teacher is None:
        return arrays
    unknown = [
        row
        for row in rows
        if arrays.items[row].usable and arrays.labels[row, 0] == 1 and arrays.masks[row].flat[0] == MASK_UNKNOWN
    ]
    wanted = np.asarray(unknown, dtype=np.int64)
    model = build_model(recipe, str(checkpoint))
    p = p_masks(model, arrays, wanted)
    p = np.stack([bleed_only(one, arrays.planes[row][..., 0], teacher) for one, row in zip(p, wanted, strict=True)])
    seen = p.reshape(len(p), -1).max(axis=1) >= teacher.high
    masks = arrays.masks.copy()
    masks[wanted[seen]] = stretched(p[seen], teacher)
    log.info("the teacher drew %d of %d unknown masks", int(seen.sum()), len(wanted))
    return replace(arrays, masks=masks)


def p_masks(model: keras.Model, arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    """Mask probabilities (n, h, w), the mean of the slice and its mirror image."""
    maps = [predict(model, arrays, rows, flip=flip)["mask_logits"] for flip in (False, True)]
    return np.asarray(sum(1.0 / (1.0 + np.exp(-m.astype(np.float32))) for m in maps) / len(maps))


def bleed_only(p: np.ndarray, plane: np.ndarray, teacher: Teacher) -> np.ndarray:
    """The teacher's map (h, w) of one slice where it can be blood: denser than the brain, not calcium, not at the bone.

    A teacher that learnt a data set by slice labels alone may light up whole slices of it; what its map and the
    Hounsfield units agree on is kept, without specks and slivers.

    Parameters
    ----------
    plane : ndarray, shape (H, W)
        The slice as shares of the window.
    """
    seen = cv2.GaussianBlur(
        cv2.resize(plane.astype(np.float32), p.shape[::-1], interpolation=cv2.INTER_AREA), (0, 0), 0.8
    )
    brain = seen[(seen > BRAIN[0]) & (seen < BRAIN[1])]
    reach = 2 * max(1, round(AT_BONE * p.shape[0])) + 1
    bone = cv2.dilate((seen > CALCIUM).astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    dense = seen >= (float(np.median(brain)) if brain.size else 1.0) + DENSER
    sure = ((p >= (teacher.low + teacher.high) / 2) & dense & ~bone).astype(np.uint8)
    n, places = cv2.connectedComponents(sure)
    areas = np.bincount(places.ravel(), minlength=n)
    depth = cv2.distanceTransform(np.pad(sure, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    least = max(LEAST_SHARE * p.size, SHARE_OF_LARGEST * max(areas[1:], default=0))
    widths = np.asarray([float(depth[places == i].max()) for i in range(n)])
    thick = max(SLIVER * p.shape[0], 0.5 * max(widths[1:], default=0.0))
    parts = [i for i in range(1, n) if areas[i] >= least and widths[i] >= thick]
    near = cv2.dilate(np.isin(places, parts).astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.asarray(p * near, dtype=np.float32)


def stretched(p: np.ndarray, teacher: Teacher) -> np.ndarray:
    """Probabilities as masks: uint8, 0 at ``low`` and below, 254 at ``high`` and above."""
    share = np.clip((p - teacher.low) / (teacher.high - teacher.low), 0.0, 1.0)
    return np.round(share * 254).astype(np.uint8)
