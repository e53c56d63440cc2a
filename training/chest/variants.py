"""One row of ``firstread chest compare``: a variant trained, timed and measured on test films."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.augmentation.films import lower_resolution
from training.chest.calibration import softmax_p
from training.chest.figures import (
    BINARY,
    binary_figures,
    fit_figures,
    four_class_figures,
    four_class_truth,
    patients_of,
)
from training.chest.suites import Budget, Variant, recipe_of
from training.datasets.arrays import Arrays, open_arrays
from training.datasets.base import Item, gathered, label_matrix, stamp
from training.datasets.registry import open_datasets
from training.evaluation import metrics
from training.evaluation.pictures import LOG, initial_figures, logged
from training.files import written_whole
from training.fit.budget import on_minutes, pace_of
from training.fit.checkpoint import BEST
from training.fit.loop import train
from training.fit.model import predict
from training.fit.run import Run
from training.recipe import Recipe, sized
from worker.packages.card import Calibration
from worker.packages.package import sha256_of
from worker.packages.probabilities import sigmoid

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

SEEN_FILMS = 400
"""Training films whose accuracy a row shows."""
VALIDATED, EPOCHS = 160, 6
"""Films that validate a variant on a wall-clock budget, and how often."""
FROZEN_PASSES = 60
"""Passes over the films that a head on a frozen base gets at most: a step of it takes milliseconds."""
ROW, MADE_OF = "row.json", "made_of.txt"


@dataclass(frozen=True)
class Calls:
    """Test films of known truth: which, of which patient, and whether each was called right."""

    films: list[str]
    patients: list[str]
    right: list[bool]

    @classmethod
    def of(cls, items: Sequence[Item], truth: np.ndarray, guess: np.ndarray) -> Calls:
        """Of films (n,) with the true class (n,), -1 where it is unknown, and the called one (n,)."""
        known = np.flatnonzero(truth >= 0).tolist()
        return cls(
            [f"{items[i].dataset}/{items[i].key}" for i in known],
            [str(patient) for patient in patients_of(items)[known]],
            (guess == truth)[known].tolist(),
        )

    def minus(self, other: Calls) -> dict[str, Any]:
        """Accuracy minus that of another row on the films that both called; interval by patient, film by film."""
        theirs = dict(zip(other.films, other.right, strict=True))
        both = [i for i, film in enumerate(self.films) if film in theirs]
        gaps = np.asarray([float(self.right[i]) - float(theirs[self.films[i]]) for i in both])
        return metrics.mean(gaps, np.asarray([self.patients[i] for i in both])).as_dict()


def run_variant(
    variant: Variant,
    budget: Budget | None,
    data: Path,
    out: Path,
    cache: Path | None = None,
    opened: dict[str, Arrays] | None = None,
) -> tuple[dict[str, Any], Calls]:
    """Train one variant and measure it on test films: a row of the table, and its calls. A finished one is read.

    ``opened`` holds the decoded films from one variant to the next, as long as they want the same input.
    """
    recipe, folder, made_of = recipe_of(variant, budget), _folder(out, variant), _made_of(variant, budget, data)
    if (finished := _finished(folder, made_of)) is not None:
        return finished
    _begin(folder, made_of)
    arrays = _opened(recipe, data, cache, {} if opened is None else opened)
    train_rows, val_rows, test_rows = rows_of(arrays, budget)
    recipe = sized(recipe, len(train_rows))
    run = Run(
        recipe,
        arrays,
        train_rows,
        folder,
        recipe.schedule.steps,
        val_rows=val_rows,
        weights=variant.weights,
        cache=out if cache is None else cache,
    )
    pace: dict[str, Any] = {}
    if budget is not None and budget.minutes:
        run, pace = _on_minutes(run, budget.minutes)
    started = time.monotonic()
    model = train(run)
    seconds = time.monotonic() - started
    rows = {
        "network": variant.name,
        "start": variant.start,
        "parameters": model.count_params(),
        "trainable": _trainable(model, recipe),
        **pace,
        **({"seconds_a_pass": median_seconds(folder)} if budget and budget.passes else {"seconds": round(seconds, 1)}),
    }
    if budget is not None:
        # hundreds of megabytes each, and from them a second call would tell the time of loading for that of training
        for name in ("checkpoint.npz", BEST):
            (folder / name).unlink(missing_ok=True)
    measured, calls = _measured(model, recipe, arrays, train_rows, test_rows)
    row = rows | _before(folder) | measured
    row |= {
        f"accuracy_at_{side}_px": accuracy_at(model, arrays, test_rows, side).as_dict()
        for side in variant.sizes_px
        if side < arrays.spec.height
    }
    kept = {"made_of": made_of, "row": row, "calls": asdict(calls)}
    with written_whole(folder / ROW) as partial:
        partial.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return row, calls


def finished_variant(
    variant: Variant, budget: Budget | None, data: Path, out: Path
) -> tuple[dict[str, Any], Calls] | None:
    """What an earlier call wrote for the same variant on the same budget, films and starting weights."""
    return _finished(_folder(out, variant), _made_of(variant, budget, data))


def _finished(folder: Path, made_of: str) -> tuple[dict[str, Any], Calls] | None:
    path = folder / ROW
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return (dict(kept["row"]), Calls(**kept["calls"])) if kept["made_of"] == made_of else None


def _folder(out: Path, variant: Variant) -> Path:
    return out / "".join(c if c.isalnum() else "_" for c in variant.name)


def _made_of(variant: Variant, budget: Budget | None, data: Path) -> str:
    """Changes with all that a row depends on; of the films with their names, sizes, labels and parts.

    Not with the times of files: a copy of the same films is no reason for hours of training.
    """
    recipe = recipe_of(variant, budget)
    items = gathered(open_datasets(recipe, data), recipe.leave_out, recipe.validation_share)
    films = [(i.dataset, i.key, stamp(i.path)[0], i.labels, i.split) for i in items]
    start = Path(variant.weights)
    weights = sha256_of(start) if start.is_file() else variant.weights
    text = json.dumps([recipe.model_dump(mode="json"), str(budget), variant.name, variant.sizes_px, weights, films])
    return hashlib.sha256(text.encode()).hexdigest()


def _begin(folder: Path, made_of: str) -> None:
    """Keep what the row is made of; what is left of a training of anything else goes."""
    path = folder / MADE_OF
    if path.is_file() and path.read_text(encoding="utf-8") != made_of:
        log.info("%s: another budget or other films than before, trained anew", folder.name)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(made_of, encoding="utf-8")


def _on_minutes(run: Run, minutes: float) -> tuple[Run, dict[str, Any]]:
    """The run with as many steps as the minutes give, and what a step takes."""
    timed = on_minutes(run, minutes, EPOCHS)
    if run.recipe.frozen_base:
        timed = replace(
            timed, steps=min(timed.steps, FROZEN_PASSES * len(run.train_rows) // run.recipe.schedule.batch_size)
        )
    own = {"steps": timed.steps, "steps_per_epoch": max(1, timed.steps // EPOCHS), "best": True, "early_stopping": 0}
    schedule = timed.recipe.schedule.model_copy(update=own)
    timed = replace(timed, recipe=timed.recipe.model_copy(update={"schedule": schedule}))
    return timed, {"steps": timed.steps, "seconds_a_step": pace_of(run)}


def median_seconds(run: Path) -> float:
    """What the median epoch of a run took: a run that was resumed, or had company for a while, says the same."""
    return round(float(np.median([row["seconds"] for row in logged(run / LOG) if "seconds" in row])), 1)


def _trainable(model: keras.Model, recipe: Recipe) -> int:
    """Parameters that were trained."""
    from training.fit.frozen import cut

    part = cut(model).head if recipe.frozen_base else model
    return sum(int(np.prod(v.shape)) for v in part.trainable_variables)


def _before(folder: Path) -> dict[str, Any]:
    """What the network showed before its first step."""
    initial: dict[str, Any] = next(iter(initial_figures(folder).values()), {})
    return {
        f"{name}_before_training": initial[own]
        for name, own in (("loss", "loss"), ("accuracy", "val_accuracy"))
        if own in initial
    }


def _measured(
    model: keras.Model, recipe: Recipe, arrays: Arrays, train_rows: np.ndarray, test_rows: np.ndarray
) -> tuple[dict[str, Any], Calls]:
    """Accuracy on films that were trained on, and figures of test films: of four classes, or of pneumonia or not."""
    seen = thinned(arrays, train_rows, min(SEEN_FILMS, len(train_rows)))
    seen_items, items = ([arrays.items[i] for i in rows] for rows in (seen, test_rows))
    seen_logits, logits = (predict(model, arrays, rows)["logits"] for rows in (seen, test_rows))
    if recipe.labels == (BINARY,):
        truth = np.asarray([item.labels.get(BINARY, -1.0) for item in items])
        calls = Calls.of(items, truth, (logits[:, 0] >= 0).astype(float))
        return _binary(seen_items, seen_logits[:, 0], items, logits[:, 0]), calls
    figures = four_class_figures(items, softmax_p(logits, Calibration(), recipe.labels).astype(np.float64), repeats=200)
    row = {
        "train_accuracy": fit_figures(seen_items, seen_logits, None)["accuracy"],
        "accuracy": figures["four_classes"]["accuracy"],
        "macro_f1": figures["four_classes"]["macro_f1"],
        "covid_recall": figures["by_class"]["covid19"]["recall"],
        "adults_called_covid": figures["adults_without_covid"]["called_covid"],
    }
    return row, Calls.of(items, four_class_truth(items), logits.argmax(axis=1))


def _binary(seen: list[Item], seen_logits: np.ndarray, items: list[Item], logits: np.ndarray) -> dict[str, Any]:
    """Figures at a probability of a half, as published ones are."""
    row = binary_figures(items, sigmoid(logits).astype(np.float64), 0.5, repeats=200)["all"]
    return {
        "train_accuracy": fit_figures(seen, sigmoid(seen_logits), 0.5)["accuracy"],
        "accuracy": row["accuracy"],
        "precision": row["precision"],
        "recall": row["sensitivity"],
        "f1": row["f1"],
        "auc": row["auc"],
    }


def accuracy_at(model: keras.Model, arrays: Arrays, rows: np.ndarray, side_px: int) -> metrics.Estimate:
    """Four-class accuracy on films that were reduced to ``side_px`` squared and enlarged again."""
    few = [lower_resolution(plane[..., 0].astype(np.float32), side_px) for plane in arrays.planes[rows]]
    reduced = replace(arrays, planes=np.stack(few)[..., None])
    guess = predict(model, reduced, np.arange(len(rows)))["logits"].argmax(axis=1)
    truth = four_class_truth([arrays.items[i] for i in rows])
    return metrics.wilson(int((guess == truth).sum()), int((truth >= 0).sum()))


def _opened(recipe: Recipe, data: Path, cache: Path | None, opened: dict[str, Arrays]) -> Arrays:
    wanted = f"{recipe.datasets} {recipe.labels} {recipe.validation_share} {recipe.input.model_dump_json()}"
    if wanted not in opened:
        opened.clear()
        opened[wanted] = open_arrays(recipe, data, cache)
    return opened[wanted]


def rows_of(arrays: Arrays, budget: Budget | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to validate and to test.

    The small budget takes each class's films in turn, evenly spaced; one of minutes or passes has all films to train
    and to test on, one of minutes :data:`VALIDATED` to validate.
    """
    split = np.asarray([item.split for item in arrays.items])
    train, val, test = (np.flatnonzero(split == part) for part in ("train", "val", "test"))
    if budget is None:
        return train, val, test
    if budget.all_films:
        return train, thinned(arrays, val, VALIDATED) if budget.minutes else val, test
    return thinned(arrays, train, budget.films), val[:0], thinned(arrays, test, budget.test_films)


def thinned(arrays: Arrays, rows: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` of the rows, the same share of each pattern of labels, at least one of each."""
    if not len(rows):
        return rows
    labels = label_matrix([arrays.items[i] for i in rows], arrays.label_names)
    patterns = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    picked = []
    for pattern in np.unique(patterns):
        inside = rows[patterns == pattern]
        wanted = max(1, round(count * len(inside) / len(rows)))
        picked.append(inside[np.linspace(0, len(inside) - 1, min(wanted, len(inside))).round().astype(int)])
    return np.sort(np.concatenate(picked))
