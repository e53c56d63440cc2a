"""What is measured while a network trains: loss and how often it is right, on what teaches and on what validates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.fit.feeds import validation_feed
from training.fit.losses import LOSSES
from training.fit.run import Run
from training.recipe import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Validated:
    """One pass over the validation rows: numbers by name, true and called class of the labelled ones, class names."""

    values: dict[str, float]
    truth: list[int]
    guess: list[int]
    names: list[str]


def training_metrics(recipe: Recipe) -> dict[str, list[Any]]:
    """Keras metrics by output: ``accuracy`` of the labels, or of a recipe without any ``iou`` of the outline at 0.5."""
    if recipe.labels and "logits" in recipe.losses:
        return {"logits": [_accuracy_of_classes if is_exclusive(recipe) else _accuracy_of_first]}
    return {"mask_logits": [_iou]} if "mask_logits" in recipe.losses else {}


def plain_name(name: str) -> str:
    """``accuracy`` or ``iou`` for what Keras calls a metric of :func:`training_metrics`; other names as they are."""
    return {"accuracy_of_classes": "accuracy", "accuracy_of_first": "accuracy", "iou": "iou"}.get(
        name.rsplit("logits", 1)[-1].strip("_"), name
    )


def is_exclusive(recipe: Recipe) -> bool:
    """Whether the labels are classes of which a picture has one."""
    return recipe.losses["logits"].name.startswith("softmax")


def _accuracy_of_first(y_true: Any, logits: Any) -> Any:
    from keras import ops

    known = ops.cast(y_true[:, 0] >= 0, "float32")
    right = ops.cast((y_true[:, 0] >= 0.5) == (logits[:, 0] >= 0), "float32")
    return ops.sum(right * known) / ops.maximum(ops.sum(known), 1.0)


def _accuracy_of_classes(y_true: Any, logits: Any) -> Any:
    from keras import ops

    known = ops.cast((ops.min(y_true, axis=1) >= 0) & (ops.max(y_true, axis=1) > 0), "float32")
    right = ops.cast(ops.argmax(y_true, axis=1) == ops.argmax(logits, axis=1), "float32")
    return ops.sum(right * known) / ops.maximum(ops.sum(known), 1.0)


def _iou(y_true: Any, logits: Any) -> Any:
    from keras import ops

    known, drawn, called = y_true >= 0, y_true >= 0.5, logits >= 0
    both = ops.sum(ops.cast(known & drawn & called, "float32"))
    return both / ops.maximum(ops.sum(ops.cast(known & (drawn | called), "float32")), 1.0)


def validate(model: keras.Model, run: Run) -> Validated:
    """Loss, and accuracy, precision and recall of labels or IoU of outlines, over the validation rows.

    The loss is the mean over batches, weighted by their size. IoU is that of all pixels together at a probability of
    0.5. A film with several labels counts by its first.
    """
    from keras import ops

    recipe = run.recipe
    losses = {name: (LOSSES[spec.name](**spec.options), spec.weight) for name, spec in recipe.losses.items()}
    total = count = both = either = 0.0
    truth: list[int] = []
    guess: list[int] = []
    for x, targets in validation_feed(run):
        raw = model.predict_on_batch(x)
        n = len(next(iter(targets.values())))
        # of several devices each gives the whole batch
        out = {name: np.asarray(ops.convert_to_numpy(value), dtype=np.float32)[:n] for name, value in raw.items()}
        batch = sum(weight * float(np.sum(loss(targets[k], out[k]))) for k, (loss, weight) in losses.items())
        total, count = total + batch * n, count + n
        if "mask_logits" in targets:
            known, drawn, called = targets["mask_logits"] >= 0, targets["mask_logits"] >= 0.5, out["mask_logits"] >= 0
            both += float((known & drawn & called).sum())
            either += float((known & (drawn | called)).sum())
        if recipe.labels and "logits" in targets:
            rows, calls = _classes(recipe, targets["logits"], out["logits"])
            truth += rows
            guess += calls
    values = {"val_loss": total / max(1.0, count)}
    names = [] if not recipe.labels or "logits" not in recipe.losses else class_names(recipe)
    values |= proportions(truth, guess, len(names))
    if either:
        values["val_iou"] = both / either
    return Validated(values, truth, guess, names)


def class_names(recipe: Recipe) -> list[str]:
    """Names of the classes that are counted: the labels, or the first one's absence and presence."""
    return list(recipe.labels) if is_exclusive(recipe) else [f"not {recipe.labels[0]}", recipe.labels[0]]


def _classes(recipe: Recipe, y: np.ndarray, logits: np.ndarray) -> tuple[list[int], list[int]]:
    """True and called class of the rows that are labelled; a single label is called at a probability of 0.5."""
    if is_exclusive(recipe):
        known = (y.min(axis=1) >= 0) & (y.sum(axis=1) == 1)
        rows, called = y.argmax(axis=1), logits.argmax(axis=1)
    else:
        known, rows, called = y[:, 0] >= 0, y[:, 0] == 1, logits[:, 0] >= 0
    return rows[known].astype(int).tolist(), called[known].astype(int).tolist()


def proportions(truth: Sequence[int], guess: Sequence[int], classes: int) -> dict[str, float]:
    """Accuracy, precision and recall of validation rows: of the second of two classes, the mean over more of them.

    A class that no row has, or none is called, is left out of the mean; empty without rows.
    """
    y, called = np.asarray(truth), np.asarray(guess)
    if not len(y):
        return {}
    wanted = (1,) if classes == 2 else range(classes)
    right = [np.sum((y == c) & (called == c)) for c in wanted]
    shares = {
        "val_precision": [hits / n for hits, c in zip(right, wanted, strict=True) if (n := np.sum(called == c))],
        "val_recall": [hits / n for hits, c in zip(right, wanted, strict=True) if (n := np.sum(y == c))],
    }
    means = {name: float(np.mean(values)) for name, values in shares.items() if values}
    return {"val_accuracy": float(np.mean(y == called)), **means}
