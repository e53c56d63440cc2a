"""From trained weights to a dermoscopy package: predict, choose on validation, measure on test, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.arrays import Arrays
from training.datasets import open_dataset
from training.datasets.base import DataSet, Item, label_matrix
from training.dermoscopy import figures as fig
from training.dermoscopy import operating
from training.dermoscopy.hair import is_hairy
from training.dermoscopy.lesions import class_shares
from training.dermoscopy.scores import Forward, Scores, forward_of, score
from training.packaging import write_package
from training.recipe import Recipe
from worker.packages.card import Card
from worker.pipelines.lesion import framing as framing_of
from worker.pipelines.lesion import outlined, unframed

if TYPE_CHECKING:
    import keras

    from training.order import Order


@dataclass(frozen=True)
class Split:
    """Items of one split with their scores."""

    items: list[Item]
    scores: Scores


def splits(dataset: DataSet) -> dict[str, list[Item]]:
    """Usable items by split."""
    found: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for item in dataset.items():
        if item.usable and item.split in found:
            found[item.split].append(item)
    return found


def predicted(forward: Forward, dataset: DataSet, items: list[Item], recipe: Recipe, cache: Path) -> Split:
    """Scores of items, kept in a file."""
    views = tuple(recipe.parameters.get("views", ["plain"]))
    if cache.is_file():
        scores = Scores.read(cache)
        if scores.keys == tuple(item.key for item in items):
            return Split(items, scores)
    scores = score(forward, items, dataset.pixels, recipe.input, views)
    scores.save(cache)
    return Split(items, scores)


def maps_at_source(dataset: DataSet, split: Split) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Mask probabilities at each picture's own size, true masks, and the rows that have one."""
    maps, truths, rows = [], [], []
    assert split.scores.p_mask is not None
    for row, item in enumerate(split.items):
        truth = dataset.mask(item)
        if truth is not None:
            maps.append(unframed(split.scores.p_mask[row], framing_of(*truth.shape), (truth.shape[0], truth.shape[1])))
            truths.append(truth)
            rows.append(row)
    return maps, truths, np.asarray(rows, dtype=np.int64)


def choose(recipe: Recipe, dataset: DataSet, validation: Split) -> operating.Chosen:
    """Calibration, operating points and mask cutting from the validation rows."""
    labels = list(recipe.labels)
    bias, temperature, points = np.zeros(len(labels)), 1.0, {}
    prior = (1.0, 1.0, 1.0)
    if labels:
        truth = operating.truth_columns(labels, label_matrix(validation.items, labels))
        trained = trained_shares(recipe, dataset)
        bias = operating.prior_bias(labels, trained, truth)
        temperature = operating.fit_temperature(validation.scores, bias, truth)
        p = validation.scores.p(bias, temperature)
        prior = tuple(np.bincount(fig.truth_of_three(labels, truth), minlength=3) / len(truth))
        points = operating.operating_points(
            labels, p, truth, float(recipe.parameters.get("melanoma_recall", 0.9)),
            float(recipe.parameters.get("warning_recall", 0.8)),
        )  # fmt: skip
    mask: dict[str, Any] = {}
    if validation.scores.p_mask is not None:
        maps, truths, _ = maps_at_source(dataset, validation)
        mask = operating.choose_mask(maps, truths) if maps else {}
    return operating.Chosen(tuple(labels), bias, temperature, points, mask, prior)


def trained_shares(recipe: Recipe, dataset: DataSet) -> dict[str, float]:
    """Share of each label in a training batch: the recipe's, or else the training rows'."""
    named = {key.partition(":")[2].partition("=")[0]: share for key, share in recipe.shares.items()}
    if all(label in named for label in recipe.labels):
        return {label: named[label] for label in recipe.labels}
    items = splits(dataset)["train"]
    return {label: 1.0 + sum(item.labels.get(label, 0.0) for item in items) for label in recipe.labels}


def measure(chosen: operating.Chosen, dataset: DataSet, test: Split, repeats: int = 1000) -> dict[str, Any]:
    """Figures on the test rows, whole and by subgroup."""
    n = len(test.items)
    overlap = None
    if test.scores.p_mask is not None:
        maps, truths, rows = maps_at_source(dataset, test)
        found = [cut(p, chosen.mask) for p in maps]
        if len(rows) == n:
            overlap = fig.outlines_iou(truths, found)
    lesions = np.asarray([item.patient for item in test.items])
    if not chosen.labels:
        empty = np.zeros((n, 0))
        return outline_only(fig.Rows((), empty, np.zeros(n, int), lesions, overlap))
    hairy = np.asarray([is_hairy(dataset.pixels(item).astype(np.uint8)) for item in test.items])
    truth = operating.truth_columns(chosen.labels, label_matrix(test.items, chosen.labels))
    table = fig.Rows(chosen.labels, chosen.p(test.scores), truth, lesions, overlap, hairy, chosen.prior)
    return fig.figures(table, chosen.points, repeats) | {"subgroups": fig.subgroups(table, test.items)}


def outline_only(rows: fig.Rows) -> dict[str, Any]:
    """Figures of a package that names nothing."""
    from training import metrics

    if rows.iou is None:
        return {"n": len(rows.lesions)}
    return {
        "n": len(rows.iou),
        "outline": {
            "mean_iou": metrics.bootstrap(lambda v: float(v.mean()), rows.lesions, rows.iou).as_dict(),
            "share_below_065": metrics.wilson(int((rows.iou < fig.LOW_IOU).sum()), len(rows.iou)).as_dict(),
        },
    }


def cut(p_mask: np.ndarray, mask: dict[str, Any]) -> np.ndarray:
    """The outline as the pipeline cuts it."""
    return outlined(
        p_mask, mask.get("mask_threshold", 0.5), mask.get("mask_largest", True), mask.get("mask_fill", True)
    )


def card_of(recipe: Recipe, version: str, chosen: operating.Chosen, dataset: DataSet, found: dict[str, Any]) -> Card:
    """The card: what goes in and out, what was chosen, on which data, and how well it does."""
    parameters: dict[str, Any] = {"views": list(recipe.parameters.get("views", ["plain"]))}
    parameters |= {name: value for name, value in chosen.mask.items() if name != "tried"}
    parameters["chosen_on_validation"] = {"mask": chosen.mask.get("tried", {}), "temperature": chosen.temperature}
    return Card(
        name=recipe.name,
        version=version,
        pipeline=recipe.pipeline,
        task=recipe.task,
        labels=list(recipe.labels),
        input=recipe.input,
        architecture=recipe.architecture,
        calibration=chosen.calibration,
        operating_points=chosen.points,
        parameters=parameters,
        training_data={
            "sources": list(recipe.card.get("sources", [])),
            "split": "by lesion: weights from the training part, calibration and thresholds from the validation part, "
            "figures from the test part",
            "pictures": class_shares(dataset.items()),
        },
        population=dict(recipe.card.get("population", {})),
        metrics={"test": found},
        intended_use=str(recipe.card.get("intended_use", "")),
        limits=[str(line) for line in recipe.card.get("limits", [])],
        licence=str(recipe.card.get("licence", "")),
    )


def finish(order: Order, arrays: Arrays, model: keras.Model) -> Path:
    """What ``firstread train`` does with a trained dermoscopy network: the package below the run's folder."""
    recipe = order.recipe
    (name, sub), *_ = recipe.datasets.items()
    build(recipe, model, open_dataset(name, order.data / sub), order.out / "package", order.version,
          forward_of(model), order.out)  # fmt: skip
    return order.out / "package" / recipe.name / order.version


def build(
    recipe: Recipe, model: Any, dataset: DataSet, out: Path, version: str, forward: Forward, work: Path,
    only: Sequence[str] = ("val", "test"),
) -> dict[str, Any]:  # fmt: skip
    """Predict, choose, measure, write ``out/<name>/<version>``; give back the figures.

    Parameters
    ----------
    forward : callable
        Network of the same weights, as :func:`training.dermoscopy.scores.forward_of` gives it.
    work : Path
        Folder for predictions and the figures as JSON.
    """
    work.mkdir(parents=True, exist_ok=True)
    items = splits(dataset)
    parts = {name: predicted(forward, dataset, items[name], recipe, work / f"{name}.npz") for name in only}
    chosen = choose(recipe, dataset, parts["val"])
    found = measure(chosen, dataset, parts["test"])
    (work / "figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    directory = out / recipe.name / version
    directory.parent.mkdir(parents=True, exist_ok=True)
    text = str(recipe.card.get("licence_text", recipe.card.get("licence", "unknown")))
    write_package(directory, model, card_of(recipe, version, chosen, dataset, found), text)
    return found
