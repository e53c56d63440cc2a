"""``firstread evaluate PACKAGE``: score a labelled data set with a package as it serves, and measure it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstread.settings import Settings
from training.datasets import open_dataset
from training.datasets.base import UNKNOWN, DataSet, DataSetError, Item, label_matrix, studies
from training.datasets.folders import PICTURES, RANGE
from training.dermoscopy.scores import over_views
from training.evaluation import figures, metrics
from training.evaluation.published import PUBLISHED
from training.evaluation.report import Miss, write_report
from training.evaluation.sizes import by_size, by_subtype
from training.head_ct.readers import read_rows
from training.progress import progress
from worker.packages.activation import softmax_groups
from worker.packages.card import Card
from worker.packages.package import Package, load
from worker.packages.preprocessing import compose
from worker.packages.probabilities import slice_probabilities, study_probability
from worker.packages.store import find_package

DATASETS = {"bleed": "ct_ich", "lesion": "ham10000", "lesion_mask": "ham10000", "lesion_class": "ham10000",
            "pneumonia": "chest_films", "pneumonia4": "chest_films"}  # fmt: skip
"""Task -> reader that ``evaluate`` takes where none is named."""


@dataclass(frozen=True)
class Scored:
    """Items with what the package says: p (n, labels).

    ``labels`` are unknown where they are in doubt. ``dice`` (n,) is NaN where there is no mask to compare, and ``area``
    (n,), the true mask's pixels, where nothing is known of it.
    """

    items: list[Item]
    labels: np.ndarray
    p: np.ndarray
    dice: np.ndarray
    area: np.ndarray
    left_out: dict[str, str]


def evaluate_package(
    package: str, data: Path, dataset_name: str | None, split: str | None, out: Path, partner: str | None = None
) -> Path:
    """Score and measure; write the page and its JSON, and give back the page's path.

    ``partner`` is the four-class package that joins the score of a binary chest package.

    Raises
    ------
    PackageError
        If there is no such package, or it does not pass its self-test.
    DataSetError
        If no reader is named or known, or nothing is left to score.
    """
    directory = find_package(package, Settings())
    loaded = load(directory)
    name = dataset_name or reader_for(loaded.card.task, data)
    if name is None:
        raise DataSetError(f"name a data set reader for task {loaded.card.task}")
    dataset = open_dataset(name, data, loaded.card.input.kind)
    if loaded.card.pipeline == "chest_xray":
        from training.chest.evaluate import evaluate_films

        return evaluate_films(loaded, partner, dataset, split, out, directory.resolve().parents[1])
    if partner is not None:
        raise DataSetError(f"{loaded.key} joins its score with no other package")
    intervals = "Wilson for proportions, bootstrap by patient for the rest."
    if loaded.card.pipeline == "dermoscopy" and name == "ham10000":
        from training.dermoscopy.evaluate import evaluate_lesions

        scored, result = evaluate_lesions(loaded, dataset, split)
        intervals = "bootstrap by lesion."
    else:
        scored = score(loaded, dataset, split)
        result = package_figures(loaded.card, scored)
    notes = [
        f"Package {loaded.key}, data set {name}" + (f", split {split}." if split else "."),
        f"Intervals are 95 %: {intervals}",
        "Where the package was trained on these patients, these figures flatter it: the card says on which.",
    ]
    misses = _worst(loaded.card, dataset, scored) if loaded.card.labels else []
    return write_report(out, f"{loaded.key} on {name}", notes, result, misses)


def reader_for(task: str, data: Path) -> str | None:
    """The reader for data of a task where none is named: a hospital's own table is known by its columns.

    CT-ICH lists pictures whose Hounsfield units are known, with the columns ``mask`` and ``fold``; a hospital lists
    DICOM images, or says itself what black and white are in Hounsfield units.
    """
    table = data / "labels.csv"
    if DATASETS.get(task) != "ct_ich" or not table.is_file():
        return DATASETS.get(task)
    rows = read_rows(table)
    first = rows[0] if rows else {}
    pictures = Path(first.get("file") or "").suffix.lower() in PICTURES and not first.get(RANGE[0])
    return "ct_ich" if pictures and {"mask", "fold"} <= first.keys() else "plain_csv"


def score(package: Package, dataset: DataSet, split: str | None = None) -> Scored:
    """Score every study of a data set whole, so that neighbours are what they will be in service."""
    spec = package.card.input
    views = package.card.parameters.get("views", ["plain"])
    items = dataset.items()
    kept: list[int] = []
    p, overlap, left_out = [], [], {}
    wanted = [[i for i in members if split is None or items[i].split == split] for members in studies(items).values()]
    for members in _shown(wanted):
        pixels, rows = [], []
        for i in members:
            try:
                pixels.append(dataset.pixels(items[i]))
                rows.append(i)
            except (OSError, ValueError, DataSetError) as error:
                left_out[items[i].key] = f"{type(error).__name__}: {error}"
        for shape in {image.shape for image in pixels}:
            chosen = [k for k, image in enumerate(pixels) if image.shape == shape]
            stack = np.stack([pixels[k] for k in chosen])
            outputs = over_views(package.predict, compose.compose(stack, spec), views)
            kept += [rows[k] for k in chosen]
            p.append(slice_probabilities(outputs, package.card.parameters, package.card.labels))
            overlap.append(_dice(package.card, dataset, [items[rows[k]] for k in chosen], stack, outputs))
    if not kept:
        raise DataSetError("nothing to score: no readable item" + (f" in split {split}" if split else ""))
    chosen_items = [items[i] for i in kept]
    labels = label_matrix(chosen_items, package.card.labels)
    labels[[not item.usable for item in chosen_items]] = UNKNOWN
    dice, area = np.concatenate(overlap).T
    return Scored(chosen_items, labels, np.concatenate(p), dice, area, left_out)


def _shown(parts: list[list[int]]) -> Iterator[list[int]]:
    """The parts, with a progress bar over what is in them."""
    with progress("scoring", sum(len(part) for part in parts)) as advance:
        for part in parts:
            yield part
            advance(len(part))


def package_figures(card: Card, scored: Scored) -> dict[str, Any]:
    """Figures per picture, per study where studies have several, by group of exclusive labels, and of masks."""
    patients = np.asarray([item.patient for item in scored.items])
    result: dict[str, Any] = {"package": f"{card.name}/{card.version}", "left_out": len(scored.left_out)}
    result["pictures"] = {
        label: figures.binary(scored.labels[:, c], scored.p[:, c], patients, scored.p[:, c] >= _threshold(card, label))
        for c, label in enumerate(card.labels)
        if (scored.labels[:, c] >= 0).any()
    }
    groups = studies(scored.items)
    if card.pipeline == "head_ct":
        result |= head_ct_figures(card, scored, list(groups.values()))
    for number, group in enumerate(softmax_groups(card), start=1):
        truth = scored.labels[:, group]
        y = np.where(truth.min(axis=1) >= 0, truth.argmax(axis=1), -1)
        if (y >= 0).any():
            names = tuple(card.labels[i] for i in group)
            result[f"classes_{number}"] = figures.multiclass(y, scored.p[:, group], names, patients)
    known = np.isfinite(scored.dice)
    if known.any():
        estimate = metrics.bootstrap(lambda d: float(np.mean(d)), patients[known], scored.dice[known])
        result["dice_positive"] = {**estimate.as_dict(), "pictures": int(known.sum())}
    return result


def head_ct_figures(card: Card, scored: Scored, groups: Sequence[list[int]]) -> dict[str, Any]:
    """Studies by label, the flag by subtype and by size of bleed, and what calling nothing would give.

    A study with a bleed on any slice bleeds; one is free of it where every slice is known to be.
    """
    rows: dict[str, Any] = {}
    study_rows = [np.asarray(members) for members in groups]
    patients = np.asarray([scored.items[members[0]].patient for members in groups])
    flagged = np.zeros(len(groups), dtype=bool)
    compared: dict[str, Any] = {}
    for column, label in enumerate(card.labels):
        known = [scored.labels[members, column] for members in groups]
        y = np.asarray([1.0 if (values == 1).any() else float(values.min()) for values in known])
        p = np.asarray([study_probability(scored.p[members, column], card.parameters, label) for members in groups])
        called = p >= _threshold(card, label)
        if column == 0:
            flagged = called
            slices = scored.labels[:, 0], np.asarray([item.patient for item in scored.items])
            compared = {"always_normal": {"slices": _nothing(*slices), "studies": _nothing(y, patients)}}
        if (y >= 0).any():
            rows[label] = figures.binary(y, p, patients, called)
    called_slices = scored.p[:, 0] >= 0.5
    found = {
        "studies": rows,
        "compared": compared,
        "published": PUBLISHED,
        "studies_by_subtype": by_subtype(scored.labels, card.labels, flagged, study_rows),
    }
    if (scored.area > 0).any():
        found["by_size"] = by_size(scored.area, called_slices, flagged, study_rows)
    return found


def _nothing(y: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    """No score but the prevalence, and nothing called; empty where no label is known."""
    known = y >= 0
    if not known.any():
        return {}
    found = figures.binary(y, np.full(len(y), float(y[known].mean())), patients, np.zeros(len(y), dtype=bool))
    return {name: value for name, value in found.items() if name not in ("curves", "calibration")}


def _threshold(card: Card, label: str) -> float:
    found = card.threshold(label)
    return 0.5 if found is None else found


def _dice(
    card: Card, dataset: DataSet, items: Sequence[Item], stack: np.ndarray, outputs: dict[str, np.ndarray]
) -> np.ndarray:
    """Dice where the true mask has a pixel, and its area, at the source's size: (n, 2)."""
    found = np.full((len(items), 2), np.nan)
    if "mask" not in outputs:
        return found
    boxes = compose.locate(compose.to_unit(stack, card.input), card.input)
    threshold = float(card.parameters.get("mask_threshold", 0.5))
    for i, (item, box) in enumerate(zip(items, boxes, strict=True)):
        truth = dataset.mask(item)
        if truth is not None:
            found[i, 1] = truth.sum()
        if truth is not None and truth.any():
            called = compose.restore(outputs["mask"][i], box, stack[i].shape[:2]) > threshold
            found[i, 0] = metrics.dice(truth, called)
    return found


def _worst(card: Card, dataset: DataSet, scored: Scored, count: int = 8) -> list[Miss]:
    """The pictures whose true label got the least probability, over all labels."""
    truth = np.where(scored.labels == 1, 1 - scored.p, np.where(scored.labels == 0, scored.p, 0.0))
    misses = []
    for row in np.argsort(-truth.max(axis=1))[:count]:
        column = int(truth[row].argmax())
        wanted = "positive" if scored.labels[row, column] == 1 else "negative"
        unit = compose.to_unit(dataset.pixels(scored.items[row])[None], card.input)[0]
        picture = (unit[..., 0] if unit.shape[-1] != 3 or card.input.kind != "rgb" else unit) * 255
        caption = f"{card.labels[column]}: {wanted}, p {scored.p[row, column]:.3f}"
        misses.append(Miss(picture.astype(np.uint8), caption))
    return misses
