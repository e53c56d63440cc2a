"""One model on a folder that ``firstread prepare`` wrote, calibrated and measured on what it was not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.arrays import Arrays, open_arrays
from training.datasets.base import Item, first_places, gathered, place_of
from training.datasets.registry import open_datasets
from training.fit.feeds import record_batches
from training.fit.loop import train
from training.fit.model import predict_batch
from training.fit.run import Run
from training.fit.structure import save_structure
from training.package.order import Order
from training.package.pictures import TRAINING_BATCH
from training.package.plain import HeldBack, NothingHeldBackError, package_of
from training.recipe import mask_size, sized
from training.shards.pictures import batch_pictures
from training.shards.prepared import Prepared, open_prepared, with_copies
from training.shards.records import Keep

if TYPE_CHECKING:
    import keras


SAMPLE = 2000
"""Items of the training part that are decoded beside the held-back ones, about: accuracy is measured on them too."""


def train_on_shards(order: Order, folder: Path, package: Packager | None = None, **options: Any) -> Path | None:
    """Train, and write the package; everything that can be refused is refused before the first step.

    With ``package`` the held-back parts of ``order.data`` are decoded for it: labels that exclude each other and
    outlines are calibrated, measured and shown as a training from ``--data`` does it.

    Raises
    ------
    RecordsError
        If the shards do not fit the recipe.
    NothingHeldBackError
        If neither the recipe nor the data keep anything back.
    """
    prepared = open_prepared(folder, order.recipe)
    if not prepared.count(prepared.validated()):
        raise NothingHeldBackError(
            f"recipe {order.recipe.name} holds nothing of these shards back: set [folds] validation, or a split val"
        )
    held = None if package is None else package.held_back(order)
    recipe = sized(order.recipe, prepared.count(prepared.taught()))
    shards = with_copies(Prepared(recipe, prepared.shards, prepared.report, prepared.index), order.cache)
    steps = recipe.final_steps or recipe.schedule.steps
    rows = np.zeros(0, dtype=np.int64)
    empty = Arrays.empty(recipe.input, recipe.labels)
    model = train(Run(recipe, empty, rows, order.out / "final", steps, weights=order.weights, shards=shards, **options))
    save_structure(model, order.out / "final")
    if package is not None and held is not None:
        return package.write(order, held, model)
    return _plain(order, shards, model, steps)


def _plain(order: Order, shards: Prepared, model: keras.Model, steps: int) -> Path:
    """The package of labels that are findings of their own, measured on the shards' own records."""
    tested = shards.tested()
    held = _predicted(model, shards, shards.validated(), measured=False)
    if shards.count(tested):
        held = held.with_more(_predicted(model, shards, tested, measured=True))
    counts = {
        "trained": shards.count(shards.taught()),
        "held_back": len(held.labels),
        "shards": len(shards.shards),
        "split": "train, val and test of the data set" if shards.count(tested) else "patients held back",
        "steps": steps,
    }
    batch = {TRAINING_BATCH: batch_pictures(shards)}
    return package_of(order, model, held, counts, partial(_inputs, shards), batch, _drawn(shards))


@dataclass(frozen=True)
class Packager:
    """How a pipeline makes packages of arrays."""

    write: Callable[[Order, Arrays, Any], Path | None]
    require: Callable[[Order, Arrays], None] | None
    looked_at: int | None
    """Items of each part that are decoded; None for all that are held back."""

    def held_back(self, order: Order) -> Arrays:
        """The parts of the data that are not trained on, decoded, with a sample of what is; asked what is needed."""
        recipe = order.recipe
        items = gathered(open_datasets(recipe, order.data), recipe.leave_out, recipe.validation_share)
        count = Counter(item.split for item in items)

        def keep(item: Item) -> bool:
            most = SAMPLE if item.split == "train" and self.looked_at is None else self.looked_at
            return most is None or place_of(item) < first_places(min(1.0, most / count[item.split]))

        arrays = open_arrays(recipe, order.data, order.cache, keep)
        if self.require is not None:
            self.require(order, arrays)
        return arrays


def _drawn(shards: Prepared) -> bool:
    """Whether anybody drew a bleed for the network to learn from."""
    if mask_size(shards.recipe) is None:
        return True
    return any(float(row["mask"].max()) > 0 for row in record_batches(shards, shards.taught()))


def _inputs(shards: Prepared, keys: np.ndarray) -> np.ndarray:
    """Network input (n, H, W, C) of the records of these keys; reads on only until all are found."""
    wanted = {key: place for place, key in enumerate(keys.tolist())}
    found: dict[int, np.ndarray] = {}
    validated, tested = shards.validated(), shards.tested()
    for row in record_batches(shards, lambda rows: validated(rows) | tested(rows)):
        found |= {wanted[key]: row["image"][i] for i, key in enumerate(_keys(row)) if key in wanted}
        if len(found) == len(wanted):
            break
    return np.stack([found[place] for place in range(len(keys))])


def _keys(row: dict[str, np.ndarray]) -> list[str]:
    """Data set and key of a batch's records."""
    return [b"/".join(pair).decode() for pair in zip(row["dataset"], row["key"], strict=True)]


def _predicted(model: keras.Model, shards: Prepared, keep: Keep, measured: bool) -> HeldBack:
    """Predictions for the records that are wanted, in the order of their studies."""
    logits, columns, keys = [], [], []
    for row in record_batches(shards, keep):
        logits.append(predict_batch(model, row["image"]))
        columns.append({name: row[name] for name in ("labels", "patient", "study", "order", "balanced")})
        keys += _keys(row)
    joined = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    place = np.lexsort((joined["order"], joined["study"]))
    text = {name: np.asarray([value.decode() for value in joined[name]]) for name in ("patient", "study")}
    return HeldBack(
        np.concatenate(logits)[place],
        joined["labels"][place],
        text["patient"][place],
        text["study"][place],
        joined["balanced"][place] == 1,
        np.full(len(place), measured),
        np.asarray(keys)[place],
    )
