"""A split by slice beside one by patient: how much of a published figure is patients seen in training.

``firstread head split RECIPE --data DIR --out DIR``. The recipe's network is trained on four fifths of the slices and
measured on the fifth, once with the patients of that fifth held back, once with slices dealt whatever patient they are
of, as many publications do. ``--parts 5`` measures every fifth in turn, so that the difference is of the same slices.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from firstread.logs import log_to_terminal
from training.datasets.arrays import Arrays, open_arrays
from training.evaluation import metrics
from training.evaluation.figures import binary
from training.evaluation.pictures import Miss, run_curves
from training.evaluation.report import write_report, write_table
from training.files import written_whole
from training.fit.callbacks import INITIAL
from training.fit.crossval import is_written_by, one_to_one, usable
from training.fit.loop import train
from training.fit.model import predict
from training.fit.run import Run, identity
from training.options import EXISTING_FOLDER, FOLDER, THREADS, settle_tensorflow
from training.package.order import Order
from training.package.plain import HeldBack, package_of
from training.recipe import Recipe, RecipeError, load_recipe, sized

log = logging.getLogger(__name__)

PARTS = 5
UNITS = ("patient", "slice")
PUBLISHED = {"accuracy": 0.928, "false_negative_share_of_positives": 0.0476, "initial_loss": 0.69}
"""Of the set-up on RSNA 2019 (validation slices of a split by slice, 1:1)."""
CALLED = 0.5


@click.command("split")
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the recipe's data sets.")
@click.option("--out", type=FOLDER, required=True, help="Folder of table, page, runs and package.")
@click.option("--weights", default="none", show_default=True, help="First weights: a PATH, imagenet, or none.")
@click.option(
    "--parts", type=click.IntRange(1, PARTS), default=1, show_default=True, help="Fifths that are measured in turn."
)
@click.option("--frozen-base", is_flag=True, help="Train the head alone, on what the base gives once.")
@click.option("--steps", type=click.IntRange(min=1), default=None, help="Steps instead of the recipe's.")
@click.option("--cache", type=FOLDER, default=None, help="Keep decoded arrays here.")
@THREADS
def split(
    recipe_name: str,
    data: Path,
    out: Path,
    weights: str,
    parts: int,
    frozen_base: bool,
    steps: int | None,
    cache: Path | None,
    threads: int,
) -> None:
    """Train RECIPE on a split 4:1 by patient and on one by slice, and measure both; goes on where it ended."""
    log_to_terminal()
    settle_tensorflow(threads)
    recipe = load_recipe(recipe_name)
    if frozen_base:
        recipe = recipe.model_copy(update={"frozen_base": True})
    if steps is not None:
        schedule = recipe.schedule.model_copy(update={"steps": steps, "steps_per_epoch": steps, "epochs": 0})
        recipe = recipe.model_copy(update={"schedule": schedule})
    path = measure_splits(Order(recipe=recipe, data=data, out=out, weights=weights, cache=cache), parts)
    click.echo(path.read_text(encoding="utf-8"))


def measure_splits(order: Order, parts: int) -> Path:
    """Train both splits, write table, page and the package of the split by patient; give back the table's path.

    Raises
    ------
    RecipeError
        If the recipe's first label is not its only one.
    """
    recipe, out = order.recipe, order.out
    if len(recipe.labels) != 1:
        raise RecipeError(f"recipe {recipe.name} has {len(recipe.labels)} labels: a split is measured of one")
    arrays = open_arrays(recipe, order.data, order.cache)
    rows = np.asarray([i for i, item in enumerate(arrays.items) if item.usable and arrays.labels[i, 0] >= 0])
    if recipe.parameters.get("undersample"):
        rows = one_to_one(arrays, rows, recipe.seed)
    found: dict[str, Found] = {}
    for unit in UNITS:
        place = dealt(arrays, rows, unit, recipe.seed)
        pieces = [_trained(order, arrays, rows, place == part, out / f"{unit}_{part}") for part in range(parts)]
        found[unit] = Found.joined(pieces)
    table = [{"split": f"by {unit}", **row_of(found[unit], arrays, out / f"{unit}_0")} for unit in UNITS]
    gap = gap_of(found, arrays)
    budget = (
        f"{len(rows)} slices, {PARTS - 1} of {PARTS} parts to train on, {parts} of {PARTS} measured, "
        f"{recipe.schedule.epochs or recipe.schedule.steps} {'epochs' if recipe.schedule.epochs else 'steps'} of "
        f"{recipe.schedule.batch_size} a batch, "
        f"{'from scratch' if order.weights == 'none' else f'starting from {Path(order.weights).name}'}"
        f"{', base frozen' if recipe.frozen_base else ''}"
    )
    path = write_table(out, "split", _title(recipe), budget, [*table, gap])
    _write_page(order, arrays, found, table, gap)
    return path


def _title(recipe: Recipe) -> str:
    return f"{recipe.name}{', base frozen' if recipe.frozen_base else ''}: a split by patient and one by slice"


def dealt(arrays: Arrays, rows: np.ndarray, unit: str, seed: int) -> np.ndarray:
    """Part (n,), 0 to :data:`PARTS` - 1, of every row: patients, or slices, by turns in an order drawn by the seed.

    Those with a bleed are dealt first, so that every part has its share of them.
    """
    rng = np.random.default_rng(seed)
    names = arrays.patients[rows] if unit == "patient" else np.asarray([str(row) for row in rows])
    positive = arrays.labels[rows, 0] == 1
    bleeding = np.unique(names[positive])
    others = np.setdiff1d(names, bleeding)
    order = [*rng.permutation(bleeding), *rng.permutation(others)]
    place = {name: i % PARTS for i, name in enumerate(order)}
    return np.asarray([place[name] for name in names])


@dataclass(frozen=True)
class Found:
    """Logits (n,) of rows that were not trained on, and of rows that were."""

    rows: np.ndarray
    logits: np.ndarray
    seen_rows: np.ndarray
    seen_logits: np.ndarray

    @classmethod
    def joined(cls, pieces: Sequence[Found]) -> Found:
        """The parts one after the other."""
        names = ("rows", "logits", "seen_rows", "seen_logits")
        return cls(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


def _trained(order: Order, arrays: Arrays, rows: np.ndarray, tested: np.ndarray, out: Path) -> Found:
    """Train without a part and predict it; one that was predicted before is read. The first by patient is packed."""
    teaching, held = rows[~tested], rows[tested]
    recipe = sized(order.recipe, usable(arrays, teaching))
    run = Run(
        recipe,
        arrays,
        teaching,
        out,
        recipe.schedule.steps,
        held,
        order.weights,
        cache=order.cache or order.out,
        on_epoch=lambda step, values: log.info("%s step %d: loss %.4f", out.name, step, values.get("loss", 0.0)),
    )
    path = out / "predictions.npz"
    if not is_written_by(path, identity(run)):
        log.info("%s: %d slices to train on, %d to predict", out.name, len(teaching), len(held))
        model = train(run)
        found = Found(held, _logits(model, arrays, held), teaching, _logits(model, arrays, teaching))
        if out.name == f"{UNITS[0]}_0":
            _pack(order, arrays, model, found)
        with written_whole(path) as partial, partial.open("wb") as file:
            np.savez(file, identity=identity(run), **vars(found))
    with np.load(path) as stored:
        return Found(*(stored[name] for name in ("rows", "logits", "seen_rows", "seen_logits")))


def _logits(model: Any, arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    return np.asarray(predict(model, arrays, rows)["logits"][:, 0])


def _pack(order: Order, arrays: Arrays, model: Any, found: Found) -> None:
    """The network as a package, calibrated on the part that it was not trained on."""
    place = sorted(
        range(len(found.rows)), key=lambda i: (arrays.items[found.rows[i]].study, arrays.items[found.rows[i]].order)
    )
    rows = found.rows[place]
    held = HeldBack(
        found.logits[place][:, None],
        arrays.labels[rows],
        arrays.patients[rows],
        np.asarray([f"{arrays.items[row].dataset}/{arrays.items[row].study}" for row in rows]),
        np.ones(len(rows), dtype=bool),
        np.zeros(len(rows), dtype=bool),
        rows,
    )
    counts = {"trained": len(found.seen_rows), "held_back": len(rows)}
    package_of(replace(order, out=order.out / "packed"), model, held, counts, arrays.inputs, {})


def row_of(found: Found, arrays: Arrays, first_run: Path) -> dict[str, Any]:
    """Figures of one split, its accuracy on what it was trained on, and what it showed before training."""
    figures = figures_of(found, arrays)
    initial = json.loads((first_run / INITIAL).read_text(encoding="utf-8"))
    names = ("accuracy", "false_negative_share_of_positives", "precision", "sensitivity", "f1", "auc")
    return {
        "slices": figures["n"],
        "patients": figures["patients"],
        **{name: figures[name] for name in names},
        "accuracy_on_trained_slices": float(np.mean(_right(arrays, found.seen_rows, found.seen_logits))),
        "loss_before_training": initial.get("val_loss"),
        "accuracy_before_training": initial.get("val_accuracy"),
    }


def figures_of(found: Found, arrays: Arrays) -> dict[str, Any]:
    """Figures of slices that were not trained on, called at a probability of a half."""
    p = 1.0 / (1.0 + np.exp(-found.logits.astype(np.float64)))
    return binary(arrays.labels[found.rows, 0], p, arrays.patients[found.rows], p >= CALLED)


def _right(arrays: Arrays, rows: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return np.asarray((logits >= 0) == (arrays.labels[rows, 0] == 1))


def gap_of(found: dict[str, Found], arrays: Arrays) -> dict[str, Any]:
    """What the split by slice shows above the one by patient, on the slices that both measured; drawn by patient."""
    by_patient, by_slice = (
        dict(zip(found[unit].rows.tolist(), found[unit].logits.tolist(), strict=True)) for unit in UNITS
    )
    both = np.asarray(sorted(by_patient.keys() & by_slice.keys()), dtype=np.int64)
    row: dict[str, Any] = {"split": "by slice minus by patient", "slices": len(both)}
    if not len(both):
        return row
    own = [np.asarray([of[int(i)] for i in both]) for of in (by_slice, by_patient)]
    patients, y = arrays.patients[both], arrays.labels[both, 0]
    right = [(logits >= 0) == (y == 1) for logits in own]
    row["patients"] = len(np.unique(patients))
    row["accuracy"] = metrics.mean(right[0].astype(float) - right[1].astype(float), patients).as_dict()
    row["auc"] = metrics.bootstrap(
        lambda labels, a, b: metrics.auc(labels, a) - metrics.auc(labels, b), patients, y, *own
    ).as_dict()
    return row


def _write_page(
    order: Order, arrays: Arrays, found: dict[str, Found], table: list[dict[str, Any]], gap: dict[str, Any]
) -> None:
    recipe, out = order.recipe, order.out
    figures: dict[str, Any] = {f"by_{unit}": figures_of(found[unit], arrays) for unit in UNITS}
    figures |= {"compared": {row["split"]: row for row in (*table, gap)}, "published": PUBLISHED}
    pictures: dict[str, list[Miss]] = {}
    for unit in UNITS:
        pictures |= {f"{heading}, by {unit}": shown for heading, shown in run_curves(out / f"{unit}_0").items()}
    notes = [
        "Both splits hold one slice with a bleed to one without. Intervals are 95 %: Wilson for proportions, bootstrap "
        "by patient for the rest; those of a split by slice say nothing of patients who are new.",
        "The epoch with the lowest loss on the measured part was kept, as the published set-up has it: that flatters.",
    ]
    write_report(out, _title(recipe), notes, figures, pictures)
