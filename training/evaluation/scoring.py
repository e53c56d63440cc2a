"""A labelled data set scored with a package as it serves, and measured picture by picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import UNKNOWN, UNREADABLE, DataSet, DataSetError, Item, label_matrix, studies
from training.evaluation import figures, metrics
from training.evaluation.cases import DOUBT, MISSES, SUREST, finding_cases
from training.evaluation.heat import HEAT, heat_on, with_heat
from training.evaluation.pictures import Miss
from training.evaluation.report import write_report
from training.progress import progress
from worker.packages.card import Card
from worker.packages.operating_points import OperatingPointByAge
from worker.packages.patient_score import mask_areas
from worker.packages.preprocessing import compose, crops
from worker.packages.probabilities import slice_probabilities, softmax_groups
from worker.packages.runtimes.base import Runtime
from worker.pipelines.dermoscopy.pipeline import VIEWS
from worker.pipelines.ensemble import FALLBACK_THRESHOLD

Forward = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Outputs by name of composed input, float32 (n, H, W, C)."""

FLATTERED = "Where the package was trained on these patients, these figures flatter it: the card says on which."


@dataclass(frozen=True)
class EvaluationOrder:
    """What ``firstread evaluate PACKAGE`` was asked for."""

    package: Runtime
    dataset: DataSet
    split: str | None
    """Part of the data; None for the pipeline's own choice."""
    out: Path
    """Folder of the page and its JSON."""
    beside: Path
    """Folder of packages in which a partner is looked for before the installed ones."""
    partner: str | None = None
    """The four-class package that joins the score of a binary chest package."""

    def refuse_partner(self) -> None:
        """Raise :class:`DataSetError` if a partner is named: for packages that join their score with no other."""
        if self.partner is not None:
            raise DataSetError(f"{self.package.key} joins its score with no other package")


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
    mask_areas: np.ndarray | None = None
    """Of :func:`worker.packages.patient_score.mask_areas`, for packages with a mask."""

    def rows(self, chosen: np.ndarray) -> Scored:
        """Items by their numbers (k,), any of them more than once."""
        return Scored(
            [self.items[i] for i in chosen],
            self.labels[chosen],
            self.p[chosen],
            self.dice[chosen],
            self.area[chosen],
            self.left_out,
            None if self.mask_areas is None else self.mask_areas[chosen],
        )


@dataclass(frozen=True)
class Measured:
    """What a package says of the cases of a data set, and the figures of any patients of it.

    Attributes
    ----------
    patients : ndarray (n,)
        Patient of each case, or lesion.
    p : ndarray (n, labels)
    figures : callable
        Takes the cases of each patient who was drawn, by number, a patient perhaps more than once; gives figures
        without intervals.
    flags : tuple of str
        Places of the sensitivities at the flag in the figures, names joined by slashes.
    """

    patients: np.ndarray
    p: np.ndarray
    figures: Callable[[Sequence[np.ndarray]], dict[str, Any]]
    flags: tuple[str, ...]


def evaluate_pictures(order: EvaluationOrder) -> Path:
    """Score and measure a package of a pipeline without figures of its own; give back the page's path."""
    order.refuse_partner()
    scored = score(order.package, order.dataset, order.split)
    return write_scores(order, scored, package_figures(order.package.card, scored))


def write_scores(
    order: EvaluationOrder,
    scored: Scored,
    result: dict[str, Any],
    intervals: str = "Wilson for proportions, bootstrap by patient for the rest.",
    read: Callable[[Item], np.ndarray] | None = None,
) -> Path:
    """Write the page of figures with its cases, and its JSON; give back the page's path.

    ``read`` gives the picture of an item as it was scored, where that is not as the data set has it.
    """
    card, name = order.package.card, order.dataset.name
    notes = [
        f"Package {order.package.key}, data set {name}" + (f", split {order.split}." if order.split else "."),
        f"Intervals are 95 %: {intervals}",
        FLATTERED,
    ]
    shown = scored_cases(order.package, read or order.dataset.pixels, scored) if card.labels else {}
    if shown:
        notes.append(HEAT)
    return write_report(order.out, f"{order.package.key} on {name}", notes, result, shown)


def score(package: Runtime, dataset: DataSet, split: str | None = None) -> Scored:
    """Score every study of a data set whole, so that neighbours are what they will be in service."""
    spec = package.card.input
    views = package.card.parameters.get("views", ["plain"])
    items = dataset.items()
    scored_rows: list[int] = []
    p, overlap, areas, left_out = [], [], [], {}
    wanted = [[i for i in members if split is None or items[i].split == split] for members in studies(items).values()]
    for members in _shown(wanted):
        pixels, rows = [], []
        for i in members:
            try:
                pixels.append(dataset.pixels(items[i]))
                rows.append(i)
            except UNREADABLE as error:
                left_out[items[i].key] = f"{type(error).__name__}: {error}"
        for shape in {image.shape for image in pixels}:
            chosen = [k for k, image in enumerate(pixels) if image.shape == shape]
            stack = np.stack([pixels[k] for k in chosen])
            outputs = over_views(package.predict, compose.compose(stack, spec), views)
            scored_rows += [rows[k] for k in chosen]
            p.append(slice_probabilities(outputs, package.card.parameters, package.card.labels))
            if "mask" in outputs:
                areas.append(mask_areas(outputs["mask"]))
            overlap.append(_dice(package.card, dataset, [items[rows[k]] for k in chosen], stack, outputs))
    if not scored_rows:
        raise DataSetError("nothing to score: no readable item" + (f" in split {split}" if split else ""))
    chosen_items = [items[i] for i in scored_rows]
    labels = label_matrix(chosen_items, package.card.labels)
    labels[[not item.usable for item in chosen_items]] = UNKNOWN
    dice, area = np.concatenate(overlap).T
    all_areas = np.concatenate(areas) if areas else None
    return Scored(chosen_items, labels, np.concatenate(p), dice, area, left_out, all_areas)


def over_views(predict: Forward, x: np.ndarray, views: Sequence[str]) -> dict[str, np.ndarray]:
    """Mean over views of ``p`` (n, labels) and ``mask`` (n, h, w), as the pipeline takes it.

    Parameters
    ----------
    predict : callable
        :meth:`worker.packages.runtimes.base.Runtime.predict`.
    x : float32 (n, H, W, C)
    """
    sums: dict[str, np.ndarray] = {}
    for name in views:
        down, right = VIEWS[name]
        for key, value in predict(np.ascontiguousarray(x[:, ::down, ::right])).items():
            undone = value[:, ::down, ::right] if key == "mask" else value
            sums[key] = sums.get(key, 0.0) + undone / len(views)
    return sums


def _shown(parts: list[list[int]]) -> Iterator[list[int]]:
    """The parts, with a progress bar over what is in them."""
    with progress("scoring", sum(len(part) for part in parts)) as advance:
        for part in parts:
            yield part
            advance(len(part))


def measured_pictures(order: EvaluationOrder) -> Measured:
    """What a package of a pipeline without figures of its own says, for a comparison."""
    card, scored = order.package.card, score(order.package, order.dataset, order.split)

    def of_drawn(drawn: Sequence[np.ndarray]) -> dict[str, Any]:
        return package_figures(card, scored.rows(np.concatenate(drawn)), repeats=0)

    flags = tuple(f"pictures/{label}/sensitivity" for label in card.labels if card.point(label) is not None)
    return Measured(np.asarray([item.patient for item in scored.items]), scored.p, of_drawn, flags)


def package_figures(
    card: Card, scored: Scored, own: Mapping[str, Any] | None = None, repeats: int | None = None
) -> dict[str, Any]:
    """Figures of pictures, the pipeline's ``own``, and those of groups of exclusive labels and of masks."""
    patients = np.asarray([item.patient for item in scored.items])
    result: dict[str, Any] = {"package": f"{card.name}/{card.version}", "left_out": len(scored.left_out)}
    pictures: dict[str, Any] = {}
    for column, label in enumerate(card.labels):
        y, p = scored.labels[:, column], scored.p[:, column]
        if (y >= 0).any():
            pictures[label] = figures.binary(y, p, patients, p >= threshold_of(card, label), repeats)
    result["pictures"] = pictures
    result |= own or {}
    for number, group in enumerate(softmax_groups(card), start=1):
        truth = scored.labels[:, group]
        y = np.where(truth.min(axis=1) >= 0, truth.argmax(axis=1), -1)
        if (y >= 0).any():
            names = tuple(card.labels[i] for i in group)
            result[f"classes_{number}"] = figures.multiclass(y, scored.p[:, group], names, patients, repeats)
    known = np.isfinite(scored.dice)
    if known.any():
        estimate = metrics.mean(scored.dice[known], patients[known], repeats)
        result["dice_positive"] = {**estimate.as_dict(), "pictures": int(known.sum())}
    return result


def threshold_of(card: Card, label: str) -> float:
    """The operating point of a label, 0.5 where the card has none; ``ValueError`` for one by age.

    That of a hint is where its figures were measured.
    """
    point = card.point(label)
    if isinstance(point, OperatingPointByAge):
        raise ValueError(f"{label} has a threshold for each age group")
    return FALLBACK_THRESHOLD if point is None else point.threshold


def _dice(
    card: Card, dataset: DataSet, items: Sequence[Item], stack: np.ndarray, outputs: dict[str, np.ndarray]
) -> np.ndarray:
    """Dice where the true mask has a pixel, and its area, at the source's size: (n, 2)."""
    dice_and_area = np.full((len(items), 2), np.nan)
    if "mask" not in outputs:
        return dice_and_area
    boxes = compose.locate(compose.to_unit(stack, card.input), card.input)
    threshold = float(card.parameters.get("mask_threshold", 0.5))
    for i, (item, box) in enumerate(zip(items, boxes, strict=True)):
        truth = dataset.mask(item)
        if truth is not None:
            dice_and_area[i, 1] = truth.sum()
        if truth is not None and truth.any():
            called = crops.restore(outputs["mask"][i], box, stack[i].shape[:2]) > threshold
            dice_and_area[i, 0] = metrics.dice(truth, called)
    return dice_and_area


def scored_cases(
    package: Runtime, read: Callable[[Item], np.ndarray], scored: Scored, count: int = 8
) -> dict[str, list[Miss]]:
    """Pictures to show by heading, each beside what speaks for its label, at most so many a heading.

    The worst misses are those of any label. The surest right calls and the doubtful ones are of the first, half of them
    with it and half without.
    """
    card = package.card
    called = scored.p >= np.asarray([threshold_of(card, label) for label in card.labels])
    false_alarms = np.where((scored.labels == 0) & called, scored.p, 0.0)
    missed = np.where((scored.labels == 1) & ~called, 1 - scored.p, false_alarms)
    worst = np.argsort(-missed.max(axis=1))[: min(count, int(missed.any(axis=1).sum()))]
    y, patients = scored.labels[:, 0], np.asarray([item.patient for item in scored.items])
    rows = finding_cases(y, scored.p[:, 0], patients, count // 2, called[:, 0] == (y == 1))
    cases = {MISSES: [(int(row), int(missed[row].argmax())) for row in worst]}
    cases |= {heading: [(row, 0) for row in rows.get(heading, [])] for heading in (SUREST, DOUBT)}
    of_study = studies(scored.items)

    def picture(row: int, column: int) -> Miss:
        item = scored.items[row]
        members = [row] if card.input.alone else of_study[item.dataset, item.study]
        pixels = {i: read(scored.items[i]) for i in members}
        same = [i for i in members if pixels[i].shape == pixels[row].shape]
        stack = np.stack([pixels[i] for i in same])
        unit = compose.to_unit(stack, card.input)[same.index(row)]
        below = (unit if card.input.kind == "rgb" else unit[..., 0]) * 255
        wanted = "positive" if scored.labels[row, column] == 1 else "negative"
        heat = heat_on(package, stack, same.index(row), card.labels[column])
        caption = f"{card.labels[column]}: {wanted}, p {scored.p[row, column]:.3f}"
        return Miss(with_heat(below.astype(np.uint8), heat), caption)

    return {heading: [picture(*case) for case in of_heading] for heading, of_heading in cases.items()}
