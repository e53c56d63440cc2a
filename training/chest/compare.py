"""Networks, heads, schedules and inputs against each other, on one split and one stated budget.

``firstread chest compare SUITE --data DIR --out DIR``. Without ``--full`` every variant is trained to the end of a
small budget (few films and steps, small pictures); the table says so. ``--full`` takes the recipes as they stand, which
wants a GPU.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from training.augmentation.films import lower_resolution
from training.chest.calibration import softmax_p
from training.chest.figures import fit_figures, four_class_figures, four_class_truth
from training.chest.suites import BUDGETS, SUITES, Budget, Variant, recipe_of, suite
from training.datasets.arrays import Arrays, open_arrays
from training.datasets.base import label_matrix
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.fit.loop import train
from training.fit.model import predict
from training.fit.run import Run
from training.fit.transfer import WeightsError
from training.options import EXISTING_FOLDER, FOLDER
from training.recipe import Recipe
from worker.packages.card import Calibration

if TYPE_CHECKING:
    import keras

SEEN_FILMS = 400
"""Training films whose accuracy a row shows."""


def _usual(name: str) -> str:
    """A number of the small budget, and those of the suites that have another."""
    usual = getattr(Budget(), name)
    others = [f"{suite_name} {value}" for suite_name, b in BUDGETS.items() if (value := getattr(b, name)) != usual]
    return ", ".join([f"default {usual}", *others])


@click.command("compare")
@click.argument("suite_name", metavar="SUITE", type=click.Choice(["networks", *SUITES, "all"]))
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the recipes' data sets.")
@click.option("--out", type=FOLDER, required=True, help="Folder of table and runs.")
@click.option(
    "--weights",
    default="none",
    show_default=True,
    help="Start of the big networks: imagenet, none, a file, or a folder with a file for each network.",
)
@click.option("--lite-weights", default="none", show_default=True, help="Start of EfficientNet-Lite0: PATH or none.")
@click.option("--films", type=int, default=None, help=f"Training films of the small budget ({_usual('films')}).")
@click.option("--test-films", type=int, default=None, help=f"Its test films ({_usual('test_films')}).")
@click.option("--steps", type=int, default=None, help=f"Its steps of {Budget.batch_size} films ({_usual('steps')}).")
@click.option("--size", type=int, default=None, help=f"The side of its pictures in pixels ({_usual('size')}).")
@click.option("--full", is_flag=True, help="The recipes as they stand, on all films.")
@click.option("--cache", type=FOLDER, default=None, help="Keep arrays here.")
def compare(
    suite_name: str,
    data: Path,
    out: Path,
    weights: str,
    lite_weights: str,
    films: int | None,
    test_films: int | None,
    steps: int | None,
    size: int | None,
    full: bool,
    cache: Path | None,
) -> None:
    """Train every variant of SUITE (or of every one) on one budget and print the comparison, time included."""
    asked = {"films": films, "test_films": test_films, "steps": steps, "size": size}
    given = {name: value for name, value in asked.items() if value is not None}
    opened: dict[str, Arrays] = {}
    for name in ("networks", *SUITES) if suite_name == "all" else (suite_name,):
        budget = None if full else replace(BUDGETS.get(name, Budget()), **given)
        folder = out / "runs" / name if suite_name == "all" else out / "runs"
        rows = []
        for variant in suite(name, weights, lite_weights):
            rows.append(_row(variant, budget, data, folder, cache, opened))
            path = write_table(out, name, f"Comparison: {name}", str(budget or "the recipes in full"), rows)
            outcome = rows[-1].get("note") or f"{rows[-1]['accuracy']['value']:.3f}"
            click.echo(f"{variant.name}: {outcome}")
        click.echo(path.read_text(encoding="utf-8"))


def _row(
    variant: Variant, budget: Budget | None, data: Path, folder: Path, cache: Path | None, opened: dict[str, Arrays]
) -> dict[str, Any]:
    """:func:`run_variant`; a row that says so where the starting weights do not fit, so that the others are run."""
    try:
        return run_variant(variant, budget, data, folder, cache, opened)
    except WeightsError as error:
        return {"network": variant.name, "note": str(error)}


def run_variant(
    variant: Variant,
    budget: Budget | None,
    data: Path,
    out: Path,
    cache: Path | None = None,
    opened: dict[str, Arrays] | None = None,
) -> dict[str, Any]:
    """Train one variant and measure it on test films: a row of the table.

    ``opened`` holds the decoded films from one variant to the next, as long as they want the same input.
    """
    recipe = recipe_of(variant, budget)
    arrays = _opened(recipe, data, cache, {} if opened is None else opened)
    train_rows, val_rows, test_rows = rows_of(arrays, budget)
    started = time.monotonic()
    folder = out / "".join(c if c.isalnum() else "_" for c in variant.name)
    run = Run(recipe, arrays, train_rows, folder, recipe.schedule.steps, val_rows=val_rows, weights=variant.weights)
    model = train(run)
    seconds = time.monotonic() - started
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    rows = {
        "network": variant.name,
        "parameters": model.count_params(),
        "trainable": trainable,
        "seconds": round(seconds, 1),
    }
    if budget is not None:
        # hundreds of megabytes each, and from them a second call would tell the time of loading for that of training
        (folder / "checkpoint.npz").unlink(missing_ok=True)
    seen = thinned(arrays, train_rows, min(SEEN_FILMS, len(train_rows)))
    fitted = fit_figures([arrays.items[i] for i in seen], predict(model, arrays, seen)["logits"], None)
    logits = predict(model, arrays, test_rows)["logits"]
    items = [arrays.items[i] for i in test_rows]
    figures = four_class_figures(items, softmax_p(logits, Calibration(), recipe.labels).astype(np.float64), repeats=200)
    return rows | {
        "train_accuracy": fitted["accuracy"],
        "accuracy": figures["four_classes"]["accuracy"],
        "macro_f1": figures["four_classes"]["macro_f1"],
        "covid_recall": figures["by_class"]["covid19"]["recall"],
        "adults_called_covid": figures["adults_without_covid"]["called_covid"],
        **{
            f"accuracy_at_{side}_px": accuracy_at(model, arrays, test_rows, side).as_dict()
            for side in variant.sizes_px
            if side < arrays.spec.height
        },
    }


def accuracy_at(model: keras.Model, arrays: Arrays, rows: np.ndarray, side_px: int) -> metrics.Estimate:
    """Four-class accuracy on films that were reduced to ``side_px`` squared and enlarged again."""
    few = [lower_resolution(plane[..., 0].astype(np.float32), side_px) for plane in arrays.planes[rows]]
    reduced = replace(arrays, planes=np.stack(few)[..., None])
    guess = predict(model, reduced, np.arange(len(rows)))["logits"].argmax(axis=1)
    truth = four_class_truth([arrays.items[i] for i in rows])
    return metrics.wilson(int((guess == truth).sum()), int((truth >= 0).sum()))


def _opened(recipe: Recipe, data: Path, cache: Path | None, opened: dict[str, Arrays]) -> Arrays:
    wanted = f"{recipe.datasets} {recipe.labels} {recipe.input.model_dump_json()}"
    if wanted not in opened:
        opened.clear()
        opened[wanted] = open_arrays(recipe, data, cache)
    return opened[wanted]


def rows_of(arrays: Arrays, budget: Budget | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to validate and to test; the small budget takes each class's films in turn, evenly spaced."""
    split = np.asarray([item.split for item in arrays.items])
    train, val, test = (np.flatnonzero(split == part) for part in ("train", "val", "test"))
    if budget is None:
        return train, val, test
    return thinned(arrays, train, budget.films), val[:0], thinned(arrays, test, budget.test_films)


def thinned(arrays: Arrays, rows: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` of the rows, the same share of each pattern of labels, at least one of each."""
    labels = label_matrix([arrays.items[i] for i in rows], arrays.label_names)
    patterns = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    picked = []
    for pattern in np.unique(patterns):
        inside = rows[patterns == pattern]
        wanted = max(1, round(count * len(inside) / len(rows)))
        picked.append(inside[np.linspace(0, len(inside) - 1, min(wanted, len(inside))).round().astype(int)])
    return np.sort(np.concatenate(picked))
