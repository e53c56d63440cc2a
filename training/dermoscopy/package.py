"""From trained weights to a dermoscopy package: predict, choose on validation, measure on test, write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.arrays import Arrays
from training.datasets.base import DataSet, DataSetError, label_matrix
from training.datasets.registry import open_dataset
from training.dermoscopy import figures as fig
from training.dermoscopy import operating
from training.dermoscopy.measurement import measure, measured_rows, seen_figures
from training.dermoscopy.predictions import Split, picture_width_px, predicted, reader, splits
from training.dermoscopy.readers import class_shares
from training.dermoscopy.report import write_page
from training.dermoscopy.scores import forward_of
from training.evaluation.heat import heat_on
from training.evaluation.pictures import Miss
from training.evaluation.scoring import Forward
from training.package.order import Order
from training.package.pictures import batch_pictures
from training.package.writing import write_package
from training.recipe import Recipe
from worker.packages.card import Card
from worker.packages.runtimes.tensorflow import Package

if TYPE_CHECKING:
    import keras


def require_parts(order: Order, arrays: Arrays) -> None:
    """What the package will need of validation and test pictures, asked before hours of training.

    Raises
    ------
    DataSetError
        If a part has no readable picture, or what an outline or the flag is learnt from and chosen on is missing.
    """
    recipe = order.recipe
    rows = {
        part: [i for i, item in enumerate(arrays.items) if item.usable and item.split == part]
        for part in ("train", "val", "test")
    }
    empty = [part for part, part_rows in rows.items() if not part_rows]
    if empty:
        raise DataSetError(f"no readable picture for {', '.join(empty)}: every one of train, val and test needs some")
    if recipe.labels:
        truth = fig.truth_of_three([arrays.items[i] for i in rows["val"]])
        if not (truth == 0).any() or (truth == 0).all():
            raise DataSetError("the validation pictures must hold melanomas and others: the flag is chosen on them")
    if "mask_logits" in recipe.losses:
        for part in ("train", "val"):
            if np.isnan(arrays.mask_shares[rows[part]]).all():
                raise DataSetError(f"no picture for {part} has a drawn mask, and {recipe.name} learns outlines")


def choose(recipe: Recipe, dataset: DataSet, validation: Split) -> operating.ValidationChoices:
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
        prior = tuple((np.bincount(fig.truth_of_three(validation.items), minlength=3) + 1) / (len(truth) + 3))
        points = operating.operating_points(
            labels,
            p,
            truth,
            float(recipe.parameters.get("melanoma_recall", 0.88)),
            float(recipe.parameters.get("warning_recall", 0.8)),
            recipe.prevalence,
        )
    mask: dict[str, Any] = {}
    if validation.scores.p_mask is not None:
        maps, truths = [], []
        for item, p_mask in zip(validation.items, validation.scores.p_mask, strict=True):
            drawn = dataset.mask(item)
            if drawn is not None:
                maps.append(operating.at_source(p_mask, drawn))
                truths.append(drawn)
        mask = operating.choose_mask(maps, truths) if maps else {}
    return operating.ValidationChoices(tuple(labels), bias, temperature, points, mask, prior)


def trained_shares(recipe: Recipe, dataset: DataSet) -> dict[str, float]:
    """Share of each label in a training batch: the recipe's, or else the training rows'."""
    named: dict[str, float] = {}
    for key, share in recipe.shares.items():
        label = key.partition(":")[2].partition("=")[0]
        named[label] = named.get(label, 0.0) + share
    if all(label in named for label in recipe.labels):
        return {label: named[label] for label in recipe.labels}
    items = splits(dataset)["train"]
    return {label: 1.0 + sum(item.labels.get(label, 0.0) for item in items) for label in recipe.labels}


def card_of(
    recipe: Recipe,
    version: str,
    chosen: operating.ValidationChoices,
    dataset: DataSet,
    figures: dict[str, Any],
    width_px: int | None = None,
) -> Card:
    """The card: what goes in and out, what was chosen, on which data, and how well it does."""
    parameters: dict[str, Any] = {"views": list(recipe.parameters.get("views", ["plain"]))}
    if width_px is not None:
        parameters["picture_width_px"] = width_px
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
            "split": f"{getattr(dataset, 'split_rule', 'by lesion')}: weights from the training part, calibration and "
            "thresholds from the validation part, figures from the test part",
            "pictures": class_shares(dataset.items()),
            **({"steps": steps} if (steps := recipe.final_steps or recipe.schedule.steps) else {}),
        },
        population=dict(recipe.card.get("population", {})),
        metrics={
            "test": {name: value for name, value in figures.items() if name != "train"},
            **{name: value for name, value in figures.items() if name == "train"},
        },
        intended_use=str(recipe.card.get("intended_use", "")),
        limits=[str(line) for line in recipe.card.get("limits", [])],
        licence=str(recipe.card.get("licence", "")),
    )


def package_run(order: Order, arrays: Arrays, model: keras.Model) -> Path:
    """What ``firstread train`` does with a trained dermoscopy network: the package below the run's folder."""
    recipe = order.recipe
    (name, sub), *_ = recipe.datasets.items()
    build(
        recipe,
        model,
        open_dataset(name, order.data / sub),
        order.out / "package",
        order.version,
        forward_of(model),
        order.out,
        pictures=batch_pictures(recipe, arrays),
    )
    return order.out / "package" / recipe.name / order.version


def build(
    recipe: Recipe,
    model: Any,
    dataset: DataSet,
    out: Path,
    version: str,
    forward: Forward,
    work: Path,
    only: Sequence[str] = ("val", "test"),
    pictures: Mapping[str, Sequence[Miss]] | None = None,
) -> dict[str, Any]:
    """Predict, choose, measure, write ``out/<name>/<version>`` and the page; give back the figures.

    Parameters
    ----------
    forward : callable
        Network of the same weights, as :func:`training.dermoscopy.scores.forward_of` gives it.
    work : Path
        Folder for predictions, the figures as JSON, and the page (``evaluation``).
    pictures : mapping, optional
        Pictures for the page, by heading.
    """
    work.mkdir(parents=True, exist_ok=True)
    items = splits(dataset)
    width_px = picture_width_px(dataset, items["train"])
    parts = {name: predicted(forward, dataset, items[name], recipe, work / f"{name}.npz", width_px) for name in only}
    chosen = choose(recipe, dataset, parts["val"])
    tested = parts["test"]
    rows = measured_rows(chosen, dataset, tested)
    figures = measure(chosen, dataset, tested, rows=rows)
    figures["train"] = seen_figures(recipe, forward, dataset, items["train"], chosen, width_px)
    (work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    card = card_of(recipe, version, chosen, dataset, figures, width_px)
    package, read = Package(card, model), reader(dataset, width_px)

    def heat(row: int, label: str) -> np.ndarray | None:
        return heat_on(package, read(tested.items[row])[None], 0, label)

    write_page(
        work / "evaluation",
        f"{recipe.name}: pictures of the test part",
        figures,
        rows,
        chosen.points,
        dataset,
        tested.items,
        tested.scores.p_mask,
        chosen.mask,
        pictures,
        work,
        heat,
    )
    directory = out / recipe.name / version
    directory.parent.mkdir(parents=True, exist_ok=True)
    text = str(recipe.card.get("licence_text", recipe.card.get("licence", "unknown")))
    write_package(directory, model, card, text)
    return figures
