"""``firstread evaluate`` of a dermoscopy package: its own points, views and outlines, and figures by lesion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import UNREADABLE, DataSet, DataSetError, Item, label_matrix
from training.dermoscopy import figures as fig
from training.dermoscopy.measurement import overlap_of, rows_of
from training.dermoscopy.predictions import reader
from training.dermoscopy.report import finding_figures
from training.evaluation.scoring import (
    EvaluationOrder,
    Measured,
    Scored,
    evaluate_pictures,
    measured_pictures,
    over_views,
    write_scores,
)
from worker.packages.card import Card
from worker.packages.operating_points import OperatingPoint
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.base import Runtime
from worker.pipelines.dermoscopy.lesion import CLASSES, reduced

BATCH = 32


def evaluate_order(order: EvaluationOrder) -> Path:
    """Score and measure; figures by lesion where the data set knows lesions. Give back the page's path."""
    order.refuse_partner()
    if order.dataset.name != "ham10000":
        return evaluate_pictures(order)
    card = order.package.card
    scored, table = score_lesions(order.package, order.dataset, order.split)
    result = lesion_figures(card, scored, table) | finding_figures(table, points_of(card))
    read = reader(order.dataset, card.parameters.get("picture_width_px"))
    return write_scores(order, scored, result, "bootstrap by lesion.", read)


def measured_lesions(order: EvaluationOrder) -> Measured:
    """What a package says of the pictures of a data set, for a comparison."""
    if order.dataset.name != "ham10000":
        return measured_pictures(order)
    card = order.package.card
    scored, table = score_lesions(order.package, order.dataset, order.split)
    points = points_of(card)

    def of_drawn(drawn: Sequence[np.ndarray]) -> dict[str, Any]:
        rows = np.concatenate(drawn)
        part, items = table.part(rows), [scored.items[i] for i in rows]
        return fig.figures(part, points, repeats=0) | {"subgroups": fig.subgroups(part, items, repeats=0)}

    flags = tuple(f"{name}/recall" for name in points if name.startswith("flag"))
    return Measured(table.lesions, scored.p, of_drawn, flags)


def evaluate_lesions(package: Runtime, dataset: DataSet, split: str | None = None) -> tuple[Scored, dict[str, Any]]:
    """What a package says of a data set's pictures, and the figures of it; raises as :func:`score_lesions`."""
    scored, table = score_lesions(package, dataset, split)
    return scored, lesion_figures(package.card, scored, table)


def lesion_figures(card: Card, scored: Scored, table: fig.MeasuredRows) -> dict[str, Any]:
    """Figures of scored pictures, whole and by subgroup."""
    result: dict[str, Any] = {"package": f"{card.name}/{card.version}", "left_out": len(scored.left_out)}
    return result | fig.figures(table, points_of(card)) | {"subgroups": fig.subgroups(table, scored.items)}


def score_lesions(package: Runtime, dataset: DataSet, split: str | None = None) -> tuple[Scored, fig.MeasuredRows]:
    """A data set's pictures scored as the pipeline does it.

    Raises
    ------
    DataSetError
        If no picture can be read.
    """
    card = package.card
    views = card.parameters.get("views", ["plain"])
    scored: list[Item] = []
    p: list[np.ndarray] = []
    overlaps: list[tuple[float, float]] = []
    left_out: dict[str, str] = {}
    wanted = [item for item in dataset.items() if item.usable and (split is None or item.split == split)]
    for start in range(0, len(wanted), BATCH):
        rows, items = [], []
        for item in wanted[start : start + BATCH]:
            try:
                picture = reduced(dataset.pixels(item), card.parameters.get("picture_width_px"))
                rows.append(compose(picture[None], card.input))
                items.append(item)
            except UNREADABLE as error:
                left_out[item.key] = f"{type(error).__name__}: {error}"
        if not rows:
            continue
        outputs = over_views(package.predict, np.concatenate(rows), views)
        scored += items
        p.append(outputs["p"] if card.labels else np.zeros((len(items), 0), np.float32))
        if "mask" in outputs:
            overlaps += [
                overlap_of(dataset, item, mask, card.parameters)
                for item, mask in zip(items, outputs["mask"], strict=True)
            ]
    if not scored:
        raise DataSetError("nothing to score: no readable picture" + (f" in split {split}" if split else ""))
    overlap = np.asarray(overlaps) if overlaps else None
    table = rows_of(card.labels, np.concatenate(p), dataset, scored, overlap, prior_of(card))
    dice = np.full(len(scored), np.nan) if overlap is None else 2 * overlap[:, 0] / (1 + overlap[:, 0])
    unknown = np.full(len(scored), np.nan)
    return Scored(scored, label_matrix(scored, card.labels), table.p, dice, unknown, left_out), table


def points_of(card: Card) -> dict[str, OperatingPoint]:
    """Operating points of one threshold, by name."""
    return {name: point for name, point in card.operating_points.items() if isinstance(point, OperatingPoint)}


def prior_of(card: Card) -> tuple[float, ...]:
    """Shares of the three classes to which the card's probabilities are calibrated; even where it does not say."""
    counts = card.training_data.get("pictures", {}).get("val", {}).get("classes", {})
    given = np.asarray([float(counts.get(name, 0)) + 1 for name in CLASSES])
    return tuple(float(v) for v in given / given.sum())
