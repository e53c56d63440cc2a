"""Pictures of a part with a network's logits, kept in a file so that a second call need not predict again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.datasets.base import UNREADABLE, DataSet, Item
from training.dermoscopy.scores import ViewLogits, score
from training.evaluation.scoring import Forward
from training.recipe import Recipe
from worker.pipelines.dermoscopy.lesion import reduced


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


def picture_width_px(dataset: DataSet, items: Sequence[Item], looked_at: int = 200) -> int | None:
    """Median width of the pictures that a network learns from, framed; None without a readable one."""
    widths = []
    for item in items[:: max(1, len(items) // looked_at)]:
        with suppress(*UNREADABLE):
            widths.append(dataset.pixels(item).shape[1])
    return int(np.median(widths)) if widths else None


def reader(dataset: DataSet, width_px: int | None) -> Callable[[Item], np.ndarray]:
    """What gives an item's picture as it is scored, reduced to the width that the network learnt from."""
    return lambda item: reduced(dataset.pixels(item), width_px)


def predicted(
    forward: Forward, dataset: DataSet, items: list[Item], recipe: Recipe, cache: Path, width_px: int | None = None
) -> Split:
    """Logits of the items that can be read, kept in a file; a file of other weights or items is not used."""

    pixels = reader(dataset, width_px)
    views = tuple(recipe.parameters.get("views", ["plain"]))
    cached = ViewLogits.read(cache) if cache.is_file() else None
    if cached is not None and {*cached.keys, *cached.left_out} == {item.key for item in items}:
        first = [item for item in items if item.key == cached.keys[0]]
        again = score(forward, first, pixels, recipe.input, views)
        if again.logits.shape == cached.logits[:, :1].shape and _alike(again, cached):
            return of_keys(items, cached)
    scores = score(forward, items, pixels, recipe.input, views)
    scores.save(cache)
    return of_keys(items, scores)


def _alike(first: ViewLogits, cached: ViewLogits) -> bool:
    """Whether the first row of kept scores is what the network says now."""
    masks = (first.p_mask is None) == (cached.p_mask is None) and (
        first.p_mask is None or cached.p_mask is None or np.allclose(first.p_mask[0], cached.p_mask[0], atol=0.01)
    )
    return bool(masks and np.allclose(first.logits[:, 0], cached.logits[:, 0], atol=1e-3))


def of_keys(items: list[Item], scores: ViewLogits) -> Split:
    """The items that could be scored, in the order of their scores."""
    by_key = {item.key: item for item in items}
    return Split([by_key[key] for key in scores.keys], scores)
