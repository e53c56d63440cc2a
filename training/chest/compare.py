"""Networks, heads, schedules and inputs against each other, on one split and one stated budget.

``firstread chest compare SUITE --data DIR --out DIR``. Without ``--full`` every variant is trained to the end of a
small budget (few films and steps, small pictures); the table says so. ``--full`` takes the recipes as they stand, which
wants a GPU.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from training.augmentation.films import lower_resolution
from training.chest.calibration import softmax_p
from training.chest.figures import fit_figures, four_class_figures, four_class_truth
from training.datasets.arrays import Arrays, open_arrays
from training.datasets.base import label_matrix
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.fit.loop import train
from training.fit.model import predict
from training.fit.run import Run
from training.fit.transfer import WeightsError
from training.recipe import Recipe, load_recipe
from worker.packages.card import Calibration

if TYPE_CHECKING:
    import keras

SIZES = (64, 96, 128, 224)
SEEN_FILMS = 400
"""Training films of which a row tells the accuracy."""

BIG = ("pneumonia4_resnet50", "pneumonia4_inceptionresnetv2", "pneumonia4_efficientnetb7")


@dataclass(frozen=True)
class Variant:
    """One row of the table: a recipe with changes, starting weights, and whether the base stays frozen.

    ``sizes_px`` are sides to which the test films are reduced for further columns of accuracy.
    """

    name: str
    recipe: str
    changes: dict[str, Any]
    weights: str = "none"
    frozen: bool = False
    sizes_px: tuple[int, ...] = ()


@dataclass(frozen=True)
class Budget:
    """What every variant of a small run gets."""

    films: int = 240
    test_films: int = 200
    steps: int = 12
    batch_size: int = 8
    size: int = 64

    def __str__(self) -> str:
        told = (f"{self.films} training films, {self.steps} steps of {self.batch_size}, {self.size} x {self.size}, "
                f"{self.test_films} test films")  # fmt: skip
        passes = self.steps * self.batch_size / self.films
        return told if passes >= 1 else f"{told}: it shows that each runs to the end, not which is best"


BUDGETS = {"networks": Budget(test_films=80, steps=6, size=96), "resolution": Budget(size=128)}
"""Where a suite's small budget is not the usual one: InceptionResNetV2 takes no film below 75 pixels."""


def _usual(name: str) -> str:
    """A number of the small budget, and those of the suites that have another."""
    usual = getattr(Budget(), name)
    others = [f"{suite_name} {value}" for suite_name, b in BUDGETS.items() if (value := getattr(b, name)) != usual]
    return ", ".join([f"default {usual}", *others])


def suite(name: str, weights: str, lite_weights: str) -> list[Variant]:
    """The variants of a suite; the big networks start from ``weights``, EfficientNet-Lite0 from ``lite_weights``."""
    if name == "networks":
        rows = [
            Variant(f"{recipe} ({'frozen' if frozen else 'unfrozen'}, {_word(start)})", recipe, {}, start, frozen)
            for recipe in BIG
            for start in dict.fromkeys(("none", start_of(recipe, weights)))
            for frozen in (True, False)
        ]
        lite = [Variant(f"pneumonia4 ({_word(start)})", "pneumonia4", {}, start)
                for start in dict.fromkeys(("none", lite_weights))]  # fmt: skip
        return rows + lite
    sizes_px = SIZES if name == "resolution" else ()
    return [
        Variant(row, recipe, changes, start_of(recipe, weights) if recipe in BIG else lite_weights, sizes_px=sizes_px)
        for row, (recipe, changes) in SUITES[name].items()
    ]


def start_of(recipe: str, weights: str) -> str:
    """Where one of the big networks starts: ``weights``, or of a folder the file with the network in its name.

    A file is for the network that it names (``efficientnetb7_notop.h5``), and for each if it names none; the others
    then have ``none``.
    """
    if weights in ("none", "imagenet"):
        return weights
    path, network = Path(weights), recipe.removeprefix("pneumonia4_")
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and network in _plain(file.name))
        return str(found[0]) if found else "none"
    named = [other for other in BIG if other.removeprefix("pneumonia4_") in _plain(path.name)]
    return weights if not named or recipe in named else "none"


def _plain(name: str) -> str:
    """A file name without capitals and signs: ``ResNet-50.h5`` is ``resnet50h5``."""
    return "".join(c for c in name.lower() if c.isalnum())


def _word(weights: str) -> str:
    return "from scratch" if weights == "none" else "pre-trained"


def _small_head(kind: str) -> dict[str, Any]:
    return {"architecture": {"builder": "keras_transfer", "classes": 4, "base": "ResNet50", "head": kind,
                             "softmax_groups": [[0, 1, 2, 3]]}}  # fmt: skip


WITHOUT_LOW_RESOLUTION: dict[str, Any] = {"augment": {"low_res": 0.0}}

SUITES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "head": {
        "published head": (BIG[0], _small_head("authors")),
        "plain head": (BIG[0], _small_head("plain")),
        "batch normalization alone": (BIG[0], _small_head("norm_only")),
        "dropout alone": (BIG[0], _small_head("dropout_only")),
    },
    "schedule": {
        "cosine": ("pneumonia4", {"schedule": {"decay": "cosine"}}),
        "constant rate": ("pneumonia4", {"schedule": {"decay": "none"}}),
    },
    "augmentation": {
        "all": ("pneumonia4", {}),
        "without low resolution": ("pneumonia4", WITHOUT_LOW_RESOLUTION),
        "without objects, borders and erasing": (
            "pneumonia4", {"augment": {"objects": 0.0, "border": 0.0, "erase": 0.0}}),
        "none": ("pneumonia4", {"augment": dict.fromkeys(
            ("flip", "rotate_deg", "zoom", "shift", "aspect", "gamma", "contrast", "low_res", "noise", "border",
             "objects", "erase"), 0.0)}),
    },
    "resolution": {
        "films of few pixels among those trained on": ("pneumonia4", {}),
        "none of them": ("pneumonia4", WITHOUT_LOW_RESOLUTION),
    },
    "adults": {
        "adults without COVID as hard negatives": ("pneumonia4", {}),
        "adults without COVID as often as they come": ("pneumonia4", {"shares": {
            "kermany:normal=1": 0.27, "kermany:bacterial=1": 0.35, "kermany:viral=1": 0.29,
            "covid_chestxray:covid19=1": 0.075, "covid_chestxray:covid19=0": 0.015}}),
        "cropped to the lungs": ("pneumonia4", {"input": {"crop": "lungs"}}),
        "histogram made flat": ("pneumonia4", {"input": {"equalise": "global"}}),
    },
}  # fmt: skip


@click.command("compare")
@click.argument("suite_name", metavar="SUITE", type=click.Choice(["networks", *SUITES, "all"]))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder of the recipes' data sets.")  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of table and runs."
)
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
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), default=None, help="Keep arrays here.")
def compare(
    suite_name: str, data: Path, out: Path, weights: str, lite_weights: str, films: int | None, test_films: int | None,
    steps: int | None, size: int | None, full: bool, cache: Path | None,
) -> None:  # fmt: skip
    """Train every variant of SUITE (or of every one) on one budget and print the comparison, time included."""
    asked = {"films": films, "test_films": test_films, "steps": steps, "size": size}
    given = {name: value for name, value in asked.items() if value is not None}
    kept: dict[str, Arrays] = {}
    for name in ("networks", *SUITES) if suite_name == "all" else (suite_name,):
        budget = None if full else replace(BUDGETS.get(name, Budget()), **given)
        folder = out / "runs" / name if suite_name == "all" else out / "runs"
        rows = []
        for variant in suite(name, weights, lite_weights):
            rows.append(_row(variant, budget, data, folder, cache, kept))
            path = write_table(out, name, f"Comparison: {name}", str(budget or "the recipes in full"), rows)
            told = rows[-1].get("note") or f"{rows[-1]['accuracy']['value']:.3f}"
            click.echo(f"{variant.name}: {told}")
        click.echo(path.read_text(encoding="utf-8"))


def _row(
    variant: Variant, budget: Budget | None, data: Path, folder: Path, cache: Path | None, kept: dict[str, Arrays]
) -> dict[str, Any]:
    """:func:`run_variant`; a row that says so where the starting weights do not fit, so that the others are run."""
    try:
        return run_variant(variant, budget, data, folder, cache, kept)
    except WeightsError as error:
        return {"network": variant.name, "note": str(error)}


def recipe_of(variant: Variant, budget: Budget | None) -> Recipe:
    """The variant's recipe, cut down to the budget."""
    recipe = load_recipe(variant.recipe)
    parts: dict[str, Any] = {"name": variant.name.replace(" ", "_")}
    for key, value in variant.changes.items():
        old = getattr(recipe, key)
        if key in ("input", "schedule"):
            parts[key] = old.model_copy(update=value)
        else:
            parts[key] = {**old, **value} if key == "augment" else value
    recipe = recipe.model_copy(update=parts)
    if budget is not None:
        spec = recipe.input.model_copy(update={"height": budget.size, "width": budget.size})
        # an average over hundreds of steps would still be the first weights after a dozen
        small = {"ema": 0.0, "steps": budget.steps, "steps_per_epoch": budget.steps, "batch_size": budget.batch_size,
                 "warmup_steps": min(recipe.schedule.warmup_steps, budget.steps // 4), "early_stopping": 0,
                 "best": False}  # fmt: skip
        recipe = recipe.model_copy(update={"input": spec, "schedule": recipe.schedule.model_copy(update=small)})
    if variant.weights == "none":
        recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"frozen": ()})})
    if variant.frozen:
        frozen = recipe.schedule.model_copy(update={"freeze_steps": recipe.schedule.steps})
        recipe = recipe.model_copy(update={"schedule": frozen})
    return recipe


def run_variant(
    variant: Variant,
    budget: Budget | None,
    data: Path,
    out: Path,
    cache: Path | None = None,
    kept: dict[str, Arrays] | None = None,
) -> dict[str, Any]:
    """Train one variant and measure it on test films: a row of the table.

    ``kept`` holds the decoded films from one variant to the next, as long as they want the same input.
    """
    recipe = recipe_of(variant, budget)
    arrays = _opened(recipe, data, cache, {} if kept is None else kept)
    train_rows, val_rows, test_rows = rows_of(arrays, budget)
    started = time.monotonic()
    folder = out / "".join(c if c.isalnum() else "_" for c in variant.name)
    run = Run(recipe, arrays, train_rows, folder, recipe.schedule.steps, val_rows=val_rows, weights=variant.weights)
    model = train(run)
    seconds = time.monotonic() - started
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    rows = {"network": variant.name, "parameters": model.count_params(),
            "trainable": trainable, "seconds": round(seconds, 1)}  # fmt: skip
    if budget is not None:
        # hundreds of megabytes each, and from them a second call would tell the time of loading for that of training
        (folder / "checkpoint.npz").unlink(missing_ok=True)
    seen = thinned(arrays, train_rows, min(SEEN_FILMS, len(train_rows)))
    fitted = fit_figures([arrays.items[i] for i in seen], predict(model, arrays, seen)["logits"], None)
    logits = predict(model, arrays, test_rows)["logits"]
    items = [arrays.items[i] for i in test_rows]
    found = four_class_figures(items, softmax_p(logits, Calibration(), recipe.labels).astype(np.float64), repeats=200)
    return rows | {
        "train_accuracy": fitted["accuracy"],
        "accuracy": found["four_classes"]["accuracy"],
        "macro_f1": found["four_classes"]["macro_f1"],
        "covid_recall": found["by_class"]["covid19"]["recall"],
        "adults_called_covid": found["adults_without_covid"]["called_covid"],
        **{f"accuracy_at_{side}_px": accuracy_at(model, arrays, test_rows, side).as_dict()
           for side in variant.sizes_px if side < arrays.spec.height},
    }  # fmt: skip


def accuracy_at(model: keras.Model, arrays: Arrays, rows: np.ndarray, side_px: int) -> metrics.Estimate:
    """Four-class accuracy on films that were reduced to ``side_px`` squared and enlarged again."""
    few = [lower_resolution(plane[..., 0].astype(np.float32), side_px) for plane in arrays.planes[rows]]
    reduced = replace(arrays, planes=np.stack(few)[..., None])
    guess = predict(model, reduced, np.arange(len(rows)))["logits"].argmax(axis=1)
    truth = four_class_truth([arrays.items[i] for i in rows])
    return metrics.wilson(int((guess == truth).sum()), int((truth >= 0).sum()))


def _opened(recipe: Recipe, data: Path, cache: Path | None, kept: dict[str, Arrays]) -> Arrays:
    wanted = f"{recipe.datasets} {recipe.labels} {recipe.input.model_dump_json()}"
    if wanted not in kept:
        kept.clear()
        kept[wanted] = open_arrays(recipe, data, cache)
    return kept[wanted]


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
    kept = []
    for pattern in np.unique(patterns):
        inside = rows[patterns == pattern]
        wanted = max(1, round(count * len(inside) / len(rows)))
        kept.append(inside[np.linspace(0, len(inside) - 1, min(wanted, len(inside))).round().astype(int)])
    return np.sort(np.concatenate(kept))


if __name__ == "__main__":
    compare()
