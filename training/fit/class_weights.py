"""Classes weighed in the loss inversely to their counts among the rows that are trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.fit.run import Run
from training.recipe import LossSpec, Recipe, RecipeError


def with_class_weights(run: Run) -> Recipe:
    """The run's recipe, with the weights of classes in the options of its loss on ``logits`` where it asks for them.

    Weights of the two classes of a label are n / (2 n_class), those of labels that exclude each other n / (k n_class),
    as Keras and scikit-learn call balanced.

    Raises
    ------
    RecipeError
        If the loss takes no weights of classes, or a class has no row to train on.
    """
    recipe = run.recipe
    if not recipe.class_weight:
        return recipe
    spec = recipe.losses.get("logits")
    labels = _labels(run)
    if spec is None or spec.name not in ("masked_bce", "softmax_groups"):
        raise RecipeError(f"recipe {recipe.name}: class_weight is for masked_bce and softmax_groups on logits")
    own = _of_two(labels) if spec.name == "masked_bce" else _of_groups(labels, spec)
    weighed = spec.model_copy(update={"options": {**spec.options, **own}})
    return recipe.model_copy(update={"losses": {**recipe.losses, "logits": weighed}})


def _labels(run: Run) -> np.ndarray:
    """Labels (n, labels) of what teaches."""
    if run.shards is not None:
        index = run.shards.index
        return np.asarray(index["labels"][run.shards.taught()(index)])
    usable = np.asarray([run.arrays.items[row].usable for row in run.train_rows], dtype=bool)
    return np.asarray(run.arrays.labels[run.train_rows[usable]])


def _of_two(labels: np.ndarray) -> dict[str, Any]:
    """How much more a positive of each label counts than a negative."""
    counts = [((column == 0).sum(), (column == 1).sum()) for column in labels.T]
    _require(all(min(pair) for pair in counts))
    return {"positive_weight": [round(float(negative / positive), 6) for negative, positive in counts]}


def _of_groups(labels: np.ndarray, spec: LossSpec) -> dict[str, Any]:
    weights = [1.0] * labels.shape[1]
    for group in spec.options["groups"]:
        part = labels[:, list(group)]
        counts = part[part.min(axis=1) >= 0].sum(axis=0)
        _require(bool((counts > 0).all()))
        for column, count in zip(group, counts, strict=True):
            weights[column] = round(float(counts.sum() / (len(group) * count)), 6)
    return {"class_weights": weights}


def _require(every_class: bool) -> None:
    if not every_class:
        raise RecipeError("class_weight: a class has no row to train on")
