"""Packages of tasks without evaluation of their own: calibration and thresholds from held-back patients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from firstread.errors import FirstreadError
from training import metrics
from training.arrays import Arrays
from training.crossval import fold_rows
from training.evaluation.figures import binary, without_curves
from training.evaluation.report import write_report
from training.loop import predict
from training.packaging import write_package
from training.postprocess import FLAG_SENSITIVITY
from worker.packages.activation import activate
from worker.packages.card import Calibration, Card, OperatingPoint

if TYPE_CHECKING:
    import keras

    from training.order import Order


class NothingHeldBackError(FirstreadError):
    """The recipe holds no patients back, so nothing can be calibrated or measured."""


class HeldBack(NamedTuple):
    """Predictions for patients that were not trained on: logits and labels (n, labels), patients (n,)."""

    logits: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


def finish(order: Order, arrays: Arrays, model: keras.Model) -> Path:
    """Fit calibration (Platt) and flag thresholds on the held-back patients, measure on them, and write the package.

    Raises
    ------
    NothingHeldBackError
        If the recipe holds nobody back, or none of them has a known label.
    """
    recipe = order.recipe
    _, rows = fold_rows(arrays, recipe, None)
    rows = np.asarray([row for row in rows if arrays.items[row].usable], dtype=np.int64)
    if not len(rows):
        raise NothingHeldBackError(f"recipe {recipe.name} holds no patients back: set [folds] validation")
    counts = {"items": len(arrays), "patients": len(np.unique(arrays.patients)), "held_back": len(rows)}
    held = HeldBack(predict(model, arrays, rows)["logits"], arrays.labels[rows], arrays.patients[rows])
    return package_of(order, model, held, counts)


def package_of(order: Order, model: keras.Model, held: HeldBack, counts: dict[str, int]) -> Path:
    """Calibrate, measure and write; see :func:`finish`."""
    recipe, logits, labels, patients = order.recipe, held.logits, held.labels, held.patients
    temperature, bias, points, figures = {}, {}, {}, {}
    for column, name in enumerate(recipe.labels):
        known = labels[:, column] >= 0
        y = labels[known, column]
        temperature[name], bias[name] = metrics.fit_platt(y, logits[known, column])
        p = activate((logits[known, column : column + 1] - bias[name]) / temperature[name], [])[:, 0]
        if not 0 < y.sum() < len(y):
            continue
        threshold = metrics.highest_threshold(y, p, FLAG_SENSITIVITY)
        c = metrics.confusion(y, p >= threshold)
        points[f"flag_{name}"] = OperatingPoint(
            finding=name,
            threshold=threshold,
            chosen_for="highest threshold with sensitivity of at least 0.95 on pictures of held-back patients",
            sensitivity=c["true_positive"] / float(y.sum()),
            specificity=c["true_negative"] / float((y == 0).sum()),
            n=len(y),
        )
        figures[name] = binary(y, p, patients[known], p >= 0.5)
    notes = ["Calibration and thresholds were fitted on these very patients, so these figures flatter them a little."]
    write_report(order.out / "evaluation", f"{recipe.name}: held-back patients", notes, figures)
    text = recipe.card
    card = Card(
        name=str(text.get("name", recipe.name)),
        version=order.version,
        pipeline=recipe.pipeline,
        task=recipe.task,
        labels=list(recipe.labels),
        input=recipe.input,
        architecture=recipe.architecture,
        calibration=Calibration(temperature=temperature, bias=bias),
        operating_points=points,
        training_data=dict(counts),
        population=dict(text.get("population", {})),
        metrics={"held_back": without_curves(figures)},
        intended_use=str(text.get("intended_use", "")),
        limits=list(text.get("limits", [])),
        licence=str(text.get("licence", "")),
    )
    directory = order.out / "package" / card.name / card.version
    write_package(directory, model, card, str(text.get("licence_text", "")))
    return directory
