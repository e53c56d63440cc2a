"""From trained weights to a dermoscopy package: predict, choose on validation, measure on test, write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.arrays import Arrays
from training.datasets.base import DataSet, DataSetError, Item, label_matrix
from training.datasets.registry import open_dataset
from training.dermoscopy import figures as fig
from training.dermoscopy import operating
from training.dermoscopy.readers import class_shares
from training.dermoscopy.report import write_page
from training.dermoscopy.scores import ViewLogits, forward_of, score
from training.dermoscopy.traits import traits_of
from training.evaluation.pictures import Miss
from training.evaluation.scoring import Forward
from training.package.order import Order
from training.package.pictures import batch_pictures
from training.package.writing import write_package
from training.recipe import Recipe
from worker.packages.card import Card
from worker.pipelines.dermoscopy.lesion import reduced

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Split:
    """Items of one split with their scores."""

    items: list[Item]
    scores: ViewLogits


def splits(dataset: DataSet) -> dict[str, list[Item]]:
    """Usable items by split."""
    by_split: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for item in dataset.items():
        if item.usable and item.split in by_split:
            by_split[item.split].append(item)
    return by_split


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


def picture_width_px(dataset: DataSet, items: Sequence[Item], looked_at: int = 200) -> int | None:
    """Median width of the pictures that a network learns from, framed; None without a readable one."""
    widths = []
    for item in items[:: max(1, len(items) // looked_at)]:
        with suppress(OSError, ValueError, DataSetError):
            widths.append(dataset.pixels(item).shape[1])
    return int(np.median(widths)) if widths else None


def predicted(
    forward: Forward, dataset: DataSet, items: list[Item], recipe: Recipe, cache: Path, width_px: int | None = None
) -> Split:
    """Logits of the items that can be read, kept in a file; a file of other weights or items is not used."""

    def pixels(item: Item) -> np.ndarray:
        return reduced(dataset.pixels(item), width_px)

    views = tuple(recipe.parameters.get("views", ["plain"]))
    cached = ViewLogits.read(cache) if cache.is_file() else None
    if cached is not None and {*cached.keys, *cached.left_out} == {item.key for item in items}:
        first = [item for item in items if item.key == cached.keys[0]]
        again = score(forward, first, pixels, recipe.input, views)
        if again.logits.shape == cached.logits[:, :1].shape and _alike(again, cached):
            return _split(items, cached)
    scores = score(forward, items, pixels, recipe.input, views)
    scores.save(cache)
    return _split(items, scores)


def _alike(first: ViewLogits, cached: ViewLogits) -> bool:
    """Whether the first row of kept scores is what the network says now."""
    masks = (first.p_mask is None) == (cached.p_mask is None) and (
        first.p_mask is None or cached.p_mask is None or np.allclose(first.p_mask[0], cached.p_mask[0], atol=0.01)
    )
    return bool(masks and np.allclose(first.logits[:, 0], cached.logits[:, 0], atol=1e-3))


def _split(items: list[Item], scores: ViewLogits) -> Split:
    by_key = {item.key: item for item in items}
    return Split([by_key[key] for key in scores.keys], scores)


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


SEEN = 400
"""Training pictures, about, on which the network is measured beside the test pictures."""


def seen_figures(
    recipe: Recipe,
    forward: Forward,
    dataset: DataSet,
    items: Sequence[Item],
    chosen: operating.ValidationChoices,
    width_px: int | None,
) -> dict[str, Any]:
    """Accuracy and overlap on pictures that were trained on: what the test figures are below is overfit."""

    def pixels(item: Item) -> np.ndarray:
        return reduced(dataset.pixels(item), width_px)

    sample = list(items[:: max(1, len(items) // SEEN)])
    seen = _split(sample, score(forward, sample, pixels, recipe.input, ("plain",)))
    lesions = np.asarray([item.patient for item in seen.items])
    rows: dict[str, Any] = {"n": len(seen.items)}
    if chosen.labels:
        called = operating.fold_to_three(chosen.labels, chosen.p(seen.scores)).argmax(axis=1)
        rows["accuracy"] = fig.share(called == fig.truth_of_three(seen.items), lesions)
    if seen.scores.p_mask is not None:
        overlap = [
            overlap_of(dataset, item, p, chosen.mask)[0] for item, p in zip(seen.items, seen.scores.p_mask, strict=True)
        ]
        rows["mean_iou"] = fig.mean_iou(np.asarray(overlap), lesions)
    return rows


PUBLISHED_CUT: dict[str, Any] = {"mask_threshold": 0.4, "mask_largest": False, "mask_fill": False}
"""How the published U-Net's mask is cut."""


def measure(
    chosen: operating.ValidationChoices,
    dataset: DataSet,
    test: Split,
    repeats: int = 1000,
    rows: fig.MeasuredRows | None = None,
) -> dict[str, Any]:
    """Figures on the test rows, whole and by subgroup; of outlines also at the published threshold.

    ``rows`` are those of :func:`measured_rows`, where they have been made.
    """
    table = measured_rows(chosen, dataset, test) if rows is None else rows
    left_out = {"unreadable": len(test.scores.left_out)} if test.scores.left_out else {}
    figures = fig.figures(table, chosen.points, repeats)
    if test.scores.p_mask is not None and "outline" in figures:
        at_published = [
            overlap_of(dataset, item, p, PUBLISHED_CUT)[0]
            for item, p in zip(test.items, test.scores.p_mask, strict=True)
        ]
        figures["outline"]["mean_iou_at_0.4"] = fig.mean_iou(np.asarray(at_published), table.lesions, repeats)
    return figures | left_out | {"subgroups": fig.subgroups(table, test.items)}


def measured_rows(chosen: operating.ValidationChoices, dataset: DataSet, test: Split) -> fig.MeasuredRows:
    """Everything that figures need of the test rows, with what was chosen on validation."""
    overlap = None
    if test.scores.p_mask is not None:
        overlap = np.asarray(
            [overlap_of(dataset, item, p, chosen.mask) for item, p in zip(test.items, test.scores.p_mask, strict=True)]
        )
    p = chosen.p(test.scores) if chosen.labels else np.zeros((len(test.items), 0))
    return rows_of(chosen.labels, p, dataset, test.items, overlap, chosen.prior)


def overlap_of(dataset: DataSet, item: Item, p_mask: np.ndarray, chosen: Mapping[str, Any]) -> tuple[float, float]:
    """:func:`training.dermoscopy.operating.overlap` with the drawn mask at its own size; NaN twice without one."""
    drawn = dataset.mask(item)
    return (float("nan"), float("nan")) if drawn is None else operating.overlap(drawn, p_mask, chosen)


def rows_of(
    labels: Sequence[str],
    p: np.ndarray,
    dataset: DataSet,
    items: Sequence[Item],
    overlap: np.ndarray | None,
    prior: tuple[float, ...],
) -> fig.MeasuredRows:
    """Everything that the figures need of items with their scores: truth, lesions, and traits seen in the pictures.

    ``overlap`` (n, 2) has the columns of :func:`overlap_of`.
    """
    matrix = label_matrix(items, labels)
    diagnoses = operating.truth_columns(labels, matrix) if labels else np.full(len(items), -1)
    return fig.MeasuredRows(
        tuple(labels),
        p,
        fig.truth_of_three(items),
        np.asarray([item.patient for item in items]),
        diagnoses,
        None if overlap is None else overlap[:, 0],
        traits_of(dataset.pixels(item) for item in items),
        prior,
        None if overlap is None else overlap[:, 1],
    )


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
    )
    directory = out / recipe.name / version
    directory.parent.mkdir(parents=True, exist_ok=True)
    text = str(recipe.card.get("licence_text", recipe.card.get("licence", "unknown")))
    write_package(directory, model, card_of(recipe, version, chosen, dataset, figures, width_px), text)
    return figures
