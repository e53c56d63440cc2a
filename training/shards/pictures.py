"""Pictures of a preparation: its classes and values, what was left out, composed records, and a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from training.augmentation.kinds import augment_from
from training.datasets.base import UNKNOWN, UNREADABLE, DataSet, Item
from training.evaluation.pictures import Miss, drawn
from training.recipe import Recipe, mask_size
from training.shards.prepared import Prepared
from training.shards.records import RecordsError, read_records, training_pipeline
from worker.packages.card import InputSpec
from worker.packages.preprocessing import compose

EXAMPLES = 6
A_REASON = 4
MEASURED = 48
"""Items whose values the histogram counts, spread over the data set."""
BATCH, SHUFFLED = 16, 256
SIDE_PX = 160


@dataclass(frozen=True)
class Seen:
    """What a data set gave: its usable items, and by reason those that do not stand in the shards."""

    dataset: DataSet
    usable: Sequence[Item]
    removed: Mapping[str, Sequence[Item]]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most so many of the items, from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def class_chart(report: Mapping[str, Any]) -> list[Miss]:
    """Items with and without each label before and after selection and undersampling; none without labels."""
    labels = list(report["before"]["labels"])
    if not labels:
        return []
    names = [text for label in labels for text in (label, f"not {label}")]
    before, after = (
        [report[stage]["labels"][label][side] for label in labels for side in ("positive", "negative")]
        for stage in ("before", "after_selection_and_undersampling")
    )
    place = np.arange(len(names))

    def draw(axes: Any) -> None:
        bars = [
            axes.barh(place - 0.2, before, 0.4, color="#b5c4dc", label="before"),
            axes.barh(place + 0.2, after, 0.4, color="#2d5c9e", label="after"),
        ]
        for drawn_bars in bars:
            axes.bar_label(drawn_bars, fontsize=7, padding=2)
        axes.set(yticks=place, xlabel="items")
        axes.set_yticklabels(names, fontsize=8)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.legend()

    return [Miss(drawn(draw), "classes before and after selection and undersampling")]


def value_chart(seen: Seen, spec: InputSpec) -> list[Miss]:
    """How often each Hounsfield unit (of pictures: stored value) is, with the windows; of usable items over the set."""
    values = [pixels.ravel() for _, pixels in _read(seen.dataset, spread(seen.usable, MEASURED))]
    if not values:
        return []
    joined = np.concatenate(values).astype(np.float32)
    low, high = float(joined.min()), float(joined.max())
    if spec.kind == "hu":
        low, high = max(low, -1100.0), min(high, 3100.0)
    counts, edges = np.histogram(np.clip(joined, low, high), bins=128, range=(low, max(high, low + 1.0)))

    def draw(axes: Any) -> None:
        axes.stairs(np.maximum(counts, 0.5), edges, fill=True, color="#5577aa", baseline=0.5)
        for n, (bottom, top) in enumerate((*spec.windows, *spec.wide_windows)):
            axes.axvspan(bottom, top, alpha=0.18, color=f"C{n + 1}", label=f"window {bottom:g} to {top:g}")
        axes.set(yscale="log", xlabel="Hounsfield units" if spec.kind == "hu" else "stored value", ylabel="pixels")
        if spec.windows:
            axes.legend(fontsize=7)

    return [Miss(drawn(draw), f"values of {len(values)} items")]


def removed_pictures(seen: Seen, spec: InputSpec) -> list[Miss]:
    """A few items of each reason, whole, through the first window; one that cannot be read is a grey field."""
    shown = []
    for why, items in seen.removed.items():
        picked = spread(items, A_REASON)
        read = {item.key: pixels for item, pixels in _read(seen.dataset, picked)}
        for item in picked:
            picture = _whole(read[item.key], spec) if item.key in read else np.full((64, 64), 128, dtype=np.uint8)
            shown.append(Miss(picture, f"{why}: {item.key}"))
    return shown


def _read(dataset: DataSet, items: Sequence[Item]) -> Iterator[tuple[Item, np.ndarray]]:
    """Items with their pixels, those that cannot be read left out."""
    for item in items:
        try:
            yield item, dataset.pixels(item)
        except UNREADABLE:
            continue


def _whole(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    try:
        unit = compose.to_unit(pixels[None], spec)[0]
    except ValueError:  # of one value alone there are no percentiles
        unit = np.zeros((*pixels.shape[:2], 1), dtype=np.float32)
    return _small(_bytes(unit if spec.kind == "rgb" else unit[..., 0]))


def composed_pictures(prepared: Prepared) -> list[Miss]:
    """A few records of either class of the first label, of the first, middle and last shard, as they are trained on.

    Of each every channel (a window, or a neighbouring slice), and of three what they are together.
    """
    recipe, shards = prepared.recipe, prepared.shards
    near = list(dict.fromkeys(shards[i] for i in (0, len(shards) // 2, -1)))
    left = dict.fromkeys((1.0, 0.0) if recipe.labels else (None,), EXAMPLES // (2 if recipe.labels else 1))
    shown: list[Miss] = []
    for row in read_records(near, recipe.input, len(recipe.labels)).as_numpy_iterator():
        value = float(row["labels"][0]) if recipe.labels else None
        if left.get(value, 0):
            left[value] -= 1
            shown += _channels(_bytes(row["image"]), label_text(recipe, row["labels"]), recipe.input)
        if not any(left.values()):
            break
    return shown


def _channels(image: np.ndarray, labels: str, spec: InputSpec) -> list[Miss]:
    if spec.kind == "rgb":
        return [Miss(image, labels)]
    shown = [Miss(image[..., c], name) for c, name in enumerate(channel_names(spec))]
    if image.shape[-1] == 3:
        shown.append(Miss(image, f"together; {labels}"))
    elif labels:
        shown[-1] = Miss(shown[-1].picture, f"{shown[-1].caption}; {labels}")
    return shown


def channel_names(spec: InputSpec) -> list[str]:
    """What each channel of grey or Hounsfield input shows."""
    wide = [f"window {low:g} to {high:g}" for low, high in spec.wide_windows]
    if not spec.neighbours:
        return ([f"window {low:g} to {high:g}" for low, high in spec.windows] or ["whole range"]) + wide
    places = range(-spec.neighbours, spec.neighbours + 1)
    return [f"slice {place:+d}" if place else "the slice" for place in places] + wide


def batch_pictures(prepared: Prepared) -> list[Miss]:
    """Pictures of a batch with augmentation, as training draws it, with labels and outlines."""
    recipe = prepared.recipe
    try:
        groups = prepared.groups()
    except RecordsError:
        return []
    stream = training_pipeline(
        prepared.shards,
        recipe.input,
        len(recipe.labels),
        min(BATCH, recipe.schedule.batch_size),
        recipe.seed,
        mask_size(recipe),
        augment_from(recipe.augment, recipe.input),
        shuffle=SHUFFLED,
        groups=groups,
    )
    x, targets = next(iter(stream.as_numpy_iterator()))
    spec = recipe.input
    together = spec.kind == "rgb" or (not spec.neighbours and x.shape[-1] == 3)
    images = x if together else x[..., spec.neighbours]
    images = (images - images.min()) / max(float(images.max() - images.min()), 1e-6)
    masks = targets.get("mask_logits", [None] * len(images))
    return [
        Miss(_outlined(_bytes(image), mask), label_text(recipe, labels))
        for image, mask, labels in zip(images, masks, targets["logits"], strict=True)
    ]


def label_text(recipe: Recipe, labels: np.ndarray) -> str:
    """``any 1, subdural 0``; what is not known is said."""
    return ", ".join(
        f"{name} {'unknown' if value == UNKNOWN else format(float(value), 'g')}"
        for name, value in zip(recipe.labels, labels, strict=True)
    )


def _outlined(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The picture with the mask's border, or without it where the mask is unknown."""
    if mask is None or float(mask.max()) < 0.5:
        return image
    size = (image.shape[1], image.shape[0])
    inside = cv2.resize((mask >= 0.5).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    coloured = np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))
    return np.asarray(cv2.drawContours(coloured, contours, -1, (255, 160, 0), 1))


def _bytes(unit: np.ndarray) -> np.ndarray:
    return np.asarray(np.round(unit * 255), dtype=np.uint8)


def _small(image: np.ndarray) -> np.ndarray:
    share = SIDE_PX / max(image.shape[:2])
    if share >= 1:
        return image
    size = (max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
