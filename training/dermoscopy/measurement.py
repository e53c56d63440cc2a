"""Figures of a dermoscopy network: on the test part whole and by subgroup, and on pictures that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.datasets.base import DataSet, Item, label_matrix
from training.dermoscopy import figures as fig
from training.dermoscopy import operating
from training.dermoscopy.predictions import Split, of_keys, reader
from training.dermoscopy.scores import score
from training.dermoscopy.traits import traits_of
from training.evaluation.scoring import Forward
from training.recipe import Recipe

PUBLISHED_CUT: dict[str, Any] = {"mask_threshold": 0.4, "mask_largest": False, "mask_fill": False}
"""How the published U-Net's mask is cut."""


SEEN = 400
"""Training pictures, about, on which the network is measured beside the test pictures."""


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


def seen_figures(
    recipe: Recipe,
    forward: Forward,
    dataset: DataSet,
    items: Sequence[Item],
    chosen: operating.ValidationChoices,
    width_px: int | None,
) -> dict[str, Any]:
    """Accuracy and overlap on pictures that were trained on: what the test figures are below is overfit."""

    sample = list(items[:: max(1, len(items) // SEEN)])
    seen = of_keys(sample, score(forward, sample, reader(dataset, width_px), recipe.input, ("plain",)))
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
