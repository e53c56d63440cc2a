"""Packages of tasks without evaluation of their own: calibration and thresholds from held-back patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from firstread.errors import FirstreadError
from firstread.pipelines import flags_by_itself
from training.datasets.arrays import Arrays
from training.evaluation import fitting, metrics
from training.evaluation.cases import finding_cases
from training.evaluation.figures import binary, without_curves
from training.evaluation.heat import HEAT, heat_of, with_heat
from training.evaluation.pictures import Miss
from training.evaluation.report import write_report
from training.fit.crossval import fold_rows
from training.fit.model import predict
from training.package.order import Order
from training.package.pictures import batch_pictures, grey_levels
from training.package.postprocess import FLAG_SENSITIVITY, Postprocess, Predictions, fit
from training.package.writing import write_package
from training.recipe import Recipe
from worker.packages.card import Calibration, Card
from worker.packages.operating_points import OperatingPoint, Prevalence
from worker.packages.probabilities import activate, calibration_vectors
from worker.packages.runtimes.tensorflow import Package

SHOWN = 4
"""Cases of a page below a heading, of those with the finding and of those without."""

if TYPE_CHECKING:
    import keras


class NothingHeldBackError(FirstreadError):
    """The recipe holds no patients back, so nothing can be calibrated or measured."""


class PackagerError(FirstreadError):
    """Packages of the recipe's task are not made this way."""


class HeldBack(NamedTuple):
    """Predictions for patients that were not trained on, in the order of (study, position).

    ``logits`` and ``labels`` (n, labels); ``patients``, ``studies``; ``balanced``: whether undersampling would have
    kept the row; ``measured``: rows that nothing is chosen on; ``keys``: what names a row where its picture is.
    """

    logits: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    studies: np.ndarray
    balanced: np.ndarray
    measured: np.ndarray
    keys: np.ndarray

    def part(self, keep: np.ndarray) -> HeldBack:
        """The rows where ``keep`` (bool, n) holds."""
        return HeldBack(*(column[keep] for column in self))

    def with_more(self, other: HeldBack) -> HeldBack:
        """These rows and then the other's."""
        return HeldBack(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


def is_plain(recipe: Recipe) -> bool:
    """Whether every label is a finding of its own, calibrated alone."""
    loss = recipe.losses.get("logits")
    return bool(recipe.labels and loss is not None and loss.name == "masked_bce")


def package_run(order: Order, arrays: Arrays, model: keras.Model) -> Path:
    """Fit calibration and thresholds on the held-back patients, measure, and write the package.

    Raises
    ------
    NothingHeldBackError
        If the recipe holds nobody back, or none of them has a known label.
    """
    recipe = order.recipe
    _, rows = fold_rows(arrays, recipe, None)
    rows = np.asarray([row for row in rows if arrays.items[row].usable], dtype=np.int64)
    if not len(rows):
        raise NothingHeldBackError(f"recipe {recipe.name} holds no patients back: set [folds] validation")
    items = [arrays.items[row] for row in rows]
    place = sorted(range(len(rows)), key=lambda i: (items[i].dataset, items[i].study, items[i].order))
    rows, items = rows[place], [items[i] for i in place]
    held = HeldBack(
        predict(model, arrays, rows)["logits"],
        arrays.labels[rows],
        arrays.patients[rows],
        np.asarray([f"{item.dataset}/{item.study}" for item in items]),
        np.ones(len(rows), dtype=bool),
        np.asarray([item.split == "test" for item in items]),
        rows,
    )
    counts = {"items": len(arrays), "patients": len(np.unique(arrays.patients)), "held_back": len(rows)}
    return package_of(order, model, held, counts, arrays.inputs, batch_pictures(recipe, arrays))


def package_of(
    order: Order,
    model: keras.Model,
    held: HeldBack,
    counts: dict[str, Any],
    inputs: Callable[[np.ndarray], np.ndarray],
    batch: Mapping[str, Sequence[Miss]],
    outlines: bool = True,
) -> Path:
    """Calibrate, measure and write; see :func:`package_run`.

    ``inputs`` gives the network's input of the rows of these keys, and ``batch`` is of the training, for the page.
    Without ``outlines`` nobody drew what a network with masks should outline: it then shows none.

    Calibration and thresholds are chosen on the rows that are not ``measured``, and figures are of those that are,
    where there are both.
    """
    recipe, text = order.recipe, order.recipe.card
    apart = 0 < held.measured.sum() < len(held.measured)
    chosen_on = held.part(~held.measured) if apart else held
    chosen = _of_studies(recipe, chosen_on) or _of_pictures(recipe, chosen_on)
    shown = held.part(held.measured) if apart else held
    figures = chosen.figures(recipe, shown)
    card = Card(
        name=str(text.get("name", recipe.name)),
        version=order.version,
        pipeline=recipe.pipeline,
        task=recipe.task,
        labels=list(recipe.labels),
        input=recipe.input,
        architecture=recipe.architecture,
        calibration=chosen.calibration,
        operating_points=chosen.points,
        parameters={**chosen.parameters, **({} if outlines else {"outlines": False})},
        training_data={**counts, "sources": text.get("sources", [])},
        population=dict(text.get("population", {})),
        metrics={"test" if apart else "held_back": without_curves(figures)},
        intended_use=str(text.get("intended_use", "")),
        limits=list(text.get("limits", [])),
        licence=str(text.get("licence", "")),
    )
    notes = ["Intervals are 95 %: Wilson for proportions, bootstrap by patient for the rest.", HEAT]
    if not apart:
        notes.append("Calibration and thresholds were fitted on these very patients: these figures flatter a little.")
    write_report(
        order.out / "evaluation",
        f"{recipe.name}: patients not trained on",
        notes,
        figures,
        {**batch, **_cases(Package(card, model), shown, chosen.p(recipe, shown)[:, 0], inputs)},
        order.out,
    )
    directory = order.out / "package" / card.name / card.version
    write_package(directory, model, card, str(text.get("licence_text", "")))
    return directory


def _cases(
    package: Package, held: HeldBack, p: np.ndarray, inputs: Callable[[np.ndarray], np.ndarray]
) -> dict[str, list[Miss]]:
    """Pictures of the first label by heading, called at a half as the figures are, each beside its heat map."""
    y, label = held.labels[:, 0], package.card.labels[0]
    shown = finding_cases(y, p, held.patients, SHOWN, (p >= 0.5) == (y == 1))
    wanted = np.asarray(sorted({row for rows in shown.values() for row in rows}), dtype=np.int64)
    x = dict(zip(wanted.tolist(), inputs(held.keys[wanted]), strict=True)) if len(wanted) else {}

    def picture(row: int) -> Miss:
        seen = grey_levels(x[row], package.card.input)
        said = f"{label if y[row] == 1 else f'no {label}'}, p {p[row]:.3f}"
        return Miss(with_heat(seen, heat_of(package, x[row][None], label)), said)

    return {heading: [picture(row) for row in rows] for heading, rows in shown.items()}


@dataclass(frozen=True)
class PlainFit:
    """What was chosen on held-back patients, as it goes into the card."""

    calibration: Calibration
    points: dict[str, OperatingPoint]
    parameters: dict[str, Any]
    study: Postprocess | None = None

    def figures(self, recipe: Recipe, held: HeldBack) -> dict[str, Any]:
        """Pictures by label (of undersampled data also as it was trained on), and studies where the flag is theirs."""
        result: dict[str, Any] = {"pictures": self._pictures(recipe, held)}
        if not held.balanced.all():
            result["pictures_undersampled"] = self._pictures(recipe, held.part(held.balanced))
        if self.study is not None:
            table = _table(recipe, held)
            p, y = self.study.p_studies(table), table.study_labels()
            patients = np.asarray([table.patients[rows[0]] for rows in table.study_rows()])
            result["studies_at_flag"] = binary(y, p, patients, p >= self.study.flag)
            result["studies_at_balanced"] = binary(y, p, patients, p >= self.study.balanced)
        return result

    def p(self, recipe: Recipe, held: HeldBack) -> np.ndarray:
        """Calibrated probabilities (n, labels)."""
        bias, temperature = calibration_vectors(self.calibration, recipe.labels)
        return np.asarray(activate((held.logits - bias) / temperature, []))

    def _pictures(self, recipe: Recipe, held: HeldBack) -> dict[str, Any]:
        p = self.p(recipe, held)
        return {
            name: binary(held.labels[:, column], p[:, column], held.patients, p[:, column] >= 0.5)
            for column, name in enumerate(recipe.labels)
            if (held.labels[:, column] >= 0).any()
        }


def _table(recipe: Recipe, held: HeldBack) -> Predictions:
    """The rows whose first label is known, as one fold."""
    known = held.part(held.labels[:, 0] >= 0)
    folds = np.full(len(known.labels), "held back")
    return Predictions(recipe.labels, known.logits, known.labels, known.studies, known.patients, folds)


def _of_studies(recipe: Recipe, held: HeldBack) -> PlainFit | None:
    """Of a head CT: aggregation and thresholds at the level of studies; None where they are of one class alone."""
    table = _table(recipe, held)
    y = table.study_labels()
    if recipe.pipeline != "head_ct" or not 0 < y.sum() < len(y):
        return None
    fitted = fit(table)
    p = fitted.p_studies(table)
    points = {}
    for name, threshold, why in (
        (
            "flag",
            fitted.flag,
            f"highest with sensitivity of at least {FLAG_SENSITIVITY} on held-back studies",
        ),
        ("balanced", fitted.balanced, "highest sensitivity + specificity on held-back studies"),
    ):
        prevalence = recipe.prevalence if name == "flag" else None
        points[name] = _point(recipe.labels[0], y, p, threshold, why, prevalence)
    return PlainFit(fitted.calibration, points, {"aggregation": fitted.aggregation}, fitted)


def _of_pictures(recipe: Recipe, held: HeldBack) -> PlainFit:
    """Platt calibration of every label, and a flag where both classes are there."""
    temperature, bias, points = {}, {}, {}
    for column, name in enumerate(recipe.labels):
        known = held.labels[:, column] >= 0
        y = held.labels[known, column]
        temperature[name], bias[name] = fitting.fit_platt(y, held.logits[known, column])
        p = activate((held.logits[known, column : column + 1] - bias[name]) / temperature[name], [])[:, 0]
        if 0 < y.sum() < len(y):
            why = f"highest threshold with sensitivity of at least {FLAG_SENSITIVITY} on pictures of held-back patients"
            prevalence = recipe.prevalence if flags_by_itself(recipe.pipeline, name) else None
            threshold = fitting.highest_threshold(y, p, FLAG_SENSITIVITY)
            points[f"flag_{name}"] = _point(name, y, p, threshold, why, prevalence)
    return PlainFit(Calibration(temperature=temperature, bias=bias), points, {})


def _point(
    finding: str, y: np.ndarray, p: np.ndarray, threshold: float, why: str, prevalence: Prevalence | None
) -> OperatingPoint:
    c = metrics.confusion(y, p >= threshold)
    return OperatingPoint(
        finding=finding,
        threshold=threshold,
        chosen_for=why,
        sensitivity=c["true_positive"] / float((y == 1).sum()),
        specificity=c["true_negative"] / float((y == 0).sum()),
        n=len(y),
        prevalence=prevalence,
    )
