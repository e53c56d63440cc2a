"""One training, and the identity by which a run that goes on is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.arrays import Arrays
from training.recipe import Recipe
from training.shards.prepared import Prepared
from worker.packages.package import sha256_of


@dataclass(frozen=True)
class Features:
    """What a frozen base gives for every row of arrays: float16, one array a tensor."""

    tensors: tuple[np.ndarray, ...]

    def of(self, rows: np.ndarray) -> Any:
        """Input of the head for rows: float32, a tuple where it takes several tensors."""
        parts = tuple(np.asarray(tensor[rows], dtype=np.float32) for tensor in self.tensors)
        return parts[0] if len(parts) == 1 else parts


@dataclass
class Run:
    """One training: a recipe on some rows of the arrays, in a folder of its own."""

    recipe: Recipe
    arrays: Arrays
    train_rows: np.ndarray
    out: Path
    steps: int
    val_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    weights: str = "none"
    mixed_precision: bool = False
    distribute: bool = False
    wandb: bool = False
    shards: Prepared | None = None
    """Shards to train on; the arrays' rows then count for nothing."""
    cache: Path | None = None
    """Folder for what a frozen base gives."""
    features: Features | None = None
    """In place of pictures, where the base is frozen."""
    on_epoch: Callable[[int, dict[str, float]], None] | None = None


NOT_TRAINED = ("card", "description", "packages")
"""Of a recipe, what the weights do not depend on."""


def identity(run: Run) -> str:
    """Everything that a run's weights depend on, as JSON: the recipe first, without cards and packages."""
    recipe = run.recipe.model_dump(mode="json", exclude=set(NOT_TRAINED))
    if run.shards is not None:
        columns = [run.shards.index[name] for name in ("key", "split", "place", "balanced", "labels")]
    else:
        keys = [f"{item.dataset}/{item.key}/{item.usable}" for item in run.arrays.items]
        columns = [np.asarray(keys), run.arrays.labels, run.train_rows, run.val_rows]
    data = hashlib.sha256()
    for column in columns:
        data.update(np.ascontiguousarray(column).tobytes())
    path = Path(run.weights)
    weights = sha256_of(path) if path.is_file() else run.weights
    return json.dumps([recipe, run.steps, weights, run.mixed_precision, data.hexdigest()], sort_keys=True)
