"""The chest packages: calibration and thresholds from validation films, figures from test films, card and report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.chest import figures as evaluation
from training.chest.by_source import Said, by_source, said_at
from training.chest.calibration import binary_points, fit_softmax, flag_by_age, softmax_p
from training.chest.cases import binary_cases, four_class_cases
from training.chest.labels import CLASSES
from training.chest.left_out import left_out_cards, with_left_out
from training.chest.suites import PUBLISHED_ROWS
from training.datasets.arrays import Arrays
from training.datasets.base import EXTERNAL, Item
from training.evaluation.figures import without_curves
from training.evaluation.fitting import fit_platt
from training.evaluation.heat import HEAT, Heat, heat_of
from training.evaluation.pictures import Miss
from training.evaluation.report import write_report
from training.fit.model import predict
from training.fit.teacher import earlier_recipe
from training.package.order import Order
from training.package.pictures import batch_pictures
from training.package.writing import write_package
from training.recipe import Recipe
from worker.packages.card import Calibration, Card
from worker.packages.operating_points import OperatingPoint, OperatingPointByAge, Prevalence
from worker.packages.probabilities import sigmoid
from worker.packages.runtimes.tensorflow import Package

if TYPE_CHECKING:
    import keras

INTERVALS = "Intervals are 95 %, from resampling patients (Wilson by patient where all or none hit)."
UNCALLED = (
    "Films without a threshold, at whose age nothing flags, count for what the score alone tells (AUC, losses, curves, "
    "calibration) and for nothing that was called; the pictures show them by their likelier answer."
)

ADULT_COVID_SHARE = 0.25
"""Of the adults in the calibration of four classes: at a half many normals of a hospital would be called COVID-19."""

PUBLISHED = ("kermany", "covid_chestxray")
"""Data sets of the published four-class comparison (accuracy 0.8957)."""

FITTED_FILMS = 2000
"""Training films whose accuracy is reported, evenly spaced."""


def package_run(order: Order, arrays: Arrays, model: keras.Model) -> Path:
    """Calibrate on the validation part, measure on the test part, and write the package and its report."""
    recipe = order.recipe
    split = np.asarray([item.split for item in arrays.items])
    rows = {part: np.flatnonzero(split == part) for part in ("train", "val", "test", EXTERNAL)}
    if not len(rows[EXTERNAL]):
        del rows[EXTERNAL]
    rows["train"] = rows["train"][:: max(1, -(-len(rows["train"]) // FITTED_FILMS))]
    logits = {part: flipped_logits(model, arrays, part_rows) for part, part_rows in rows.items()}
    items = {part: [arrays.items[i] for i in part_rows] for part, part_rows in rows.items()}
    films = arrays.planes[rows["test"]][..., 0].astype(np.float32)
    if recipe.task == "pneumonia":
        calibration, points, figures, cases = _binary(items, logits, films, recipe.prevalence)
    else:
        calibration, points, figures, cases = _four(recipe, items, logits, films)
    card = card_of(
        recipe,
        arrays,
        calibration,
        points,
        figures,
        baseline(logits["val"], calibration, recipe, arrays),
        order.version,
        earlier_stage(order),
    )
    if order.external:
        card = with_left_out(card, left_out_cards(order.external))
    package = Package(card, model)

    def heat(row: int, label: str) -> np.ndarray | None:
        return heat_of(package, arrays.inputs(rows["test"][row : row + 1]), label)

    report(recipe, figures, cases(heat), order.out, arrays)
    directory = order.out / "package" / card.name / card.version
    write_package(directory, model, card, str(recipe.card.get("licence_text", card.licence)))
    return directory


def flipped_logits(model: keras.Model, arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    """Mean of the logits of films and mirrored films (n, labels): what a package with ``flip`` gives."""
    plain, mirrored = predict(model, arrays, rows)["logits"], predict(model, arrays, rows, flip=True)["logits"]
    return np.asarray(0.5 * (plain + mirrored), dtype=np.float32)


Points = dict[str, OperatingPoint | OperatingPointByAge]
Fitted = tuple[Calibration, Points, dict[str, Any], Callable[[Heat], dict[str, list[Miss]]]]
"""What goes into the card, and what gives the test films to show, by heading."""


def _binary(
    items: dict[str, list[Item]],
    logits: dict[str, np.ndarray],
    films: np.ndarray,
    prevalence: Prevalence | None = None,
) -> Fitted:
    """The flag is one of each age group, or one for all where no validation film's age is known."""
    y = {part: np.asarray([item.labels.get("pneumonia", -1.0) for item in of_part]) for part, of_part in items.items()}
    known = y["val"] >= 0
    temperature, bias = fit_platt(y["val"][known], logits["val"][known, 0])
    calibration = Calibration(temperature={"pneumonia": round(temperature, 5)}, bias={"pneumonia": round(bias, 5)})
    p = {part: sigmoid((of_part[:, 0] - bias) / temperature).astype(np.float64) for part, of_part in logits.items()}
    points: Points = {**binary_points(y["val"][known], p["val"][known])}
    by_age = flag_by_age(items["val"], p["val"], prevalence)
    if by_age is not None:
        points["flag"] = by_age
    limits = {part: evaluation.thresholds_of(points["flag"], of_part) for part, of_part in items.items()}
    figures: dict[str, Any] = _by_source(items, {part: said_at(of_part, limits[part]) for part, of_part in p.items()})
    figures |= {
        f"{part}_at_flag": evaluation.binary_figures(items[part], p[part], limits[part]) for part in ("test", "val")
    }
    figures["train"] = evaluation.fit_figures(items["train"], p["train"], limits["train"])
    return calibration, points, figures, partial(binary_cases, items["test"], films, p["test"], limits["test"])


def _four(recipe: Recipe, items: dict[str, list[Item]], logits: dict[str, np.ndarray], films: np.ndarray) -> Fitted:
    allowed = np.asarray([[item.labels.get(name, 0.0) for name in CLASSES] for item in items["val"]])
    usable = allowed.any(axis=1)
    weights = _adult_weights(items["val"], allowed)
    calibration = fit_softmax(logits["val"][usable], allowed[usable], weights[usable], recipe.labels)
    p = {part: softmax_p(of_part, calibration, recipe.labels) for part, of_part in logits.items()}
    figures: dict[str, Any] = _by_source(items, {part: Said(p_four=of_part) for part, of_part in p.items()})
    figures |= {
        part: evaluation.four_class_figures(items[part], p[part].astype(np.float64)) for part in ("test", "val")
    }
    figures["train"] = evaluation.fit_figures(items["train"], p["train"], None)
    normal = list(CLASSES).index("normal")
    figures["pneumonia_as_one_minus_normal"] = evaluation.binary_figures(items["test"], 1 - p["test"][:, normal], 0.5)
    figures["published_part"] = _published_part(items["test"], p["test"])
    return calibration, {}, figures, partial(four_class_cases, items["test"], films, p["test"])


def _published_part(items: list[Item], p: np.ndarray) -> dict[str, Any]:
    """Accuracy of four classes on the collections of the published comparison alone."""
    truth = evaluation.four_class_truth(items)
    rows = (truth >= 0) & np.asarray([item.dataset in PUBLISHED for item in items])
    right = p.argmax(axis=1)[rows] == truth[rows]
    return {"accuracy": evaluation.share_of(right, evaluation.patients_of(items)[rows])} if rows.any() else {}


def _adult_weights(items: list[Item], allowed: np.ndarray) -> np.ndarray:
    """Weight of each film in calibration: of adults, :data:`ADULT_COVID_SHARE` have COVID-19."""
    adult, covid = evaluation.is_adult(items), allowed[:, CLASSES.index("covid19")] > 0
    without = adult & ~covid & allowed.any(axis=1)
    odds = (1.0 - ADULT_COVID_SHARE) / ADULT_COVID_SHARE
    return (
        np.where(without, odds * (adult & covid).sum() / max(1, without.sum()), 1.0)
        if (adult & covid).any()
        else np.ones(len(items))
    )


def _by_source(items: dict[str, list[Item]], said: dict[str, Said]) -> dict[str, Any]:
    """Films of hospitals that were left out, first of all, and those of the test part."""
    return {f"{part}_by_source": by_source(items[part], said[part]) for part in (EXTERNAL, "test") if part in items}


def card_of(
    recipe: Recipe,
    arrays: Arrays,
    calibration: Calibration,
    points: Points,
    figures: dict[str, Any],
    histograms: dict[str, Any],
    version: str,
    earlier: dict[str, Any] | None = None,
) -> Card:
    """The card: text from the recipe, numbers from the films, ``earlier`` from the run that this one goes on from."""
    text, steps = recipe.card, recipe.final_steps or recipe.schedule.steps
    return Card(
        name=str(text.get("name", recipe.name)),
        version=version,
        pipeline=recipe.pipeline,
        task=recipe.task,
        labels=list(recipe.labels),
        input=recipe.input,
        architecture=recipe.architecture,
        calibration=calibration,
        operating_points=points,
        parameters={"flip": True, **dict(recipe.parameters)},
        training_data={
            **training_counts(arrays),
            "split": "by patient: weights from the training part, calibration and thresholds from the validation part, "
            "figures from the test part",
            "sources": text.get("sources", []),
            **({"steps": steps} if steps else {}),  # joined packages took none of their own
            **(earlier or {}),
            "left_out": len(arrays.left_out),
        },
        population=population(text.get("population", {}), arrays),
        baseline=histograms,
        metrics=without_curves(figures),
        intended_use=str(text.get("intended_use", "")),
        limits=list(text.get("limits", [])),
        licence=str(text.get("licence", "")),
    )


def earlier_stage(order: Order) -> dict[str, Any]:
    """Recipe and steps of the run whose weights this one began with; nothing where there is none."""
    if order.start is None:
        return {}
    earlier = earlier_recipe(order.start)
    return {"began_with": {"recipe": earlier.name, "steps": earlier.final_steps or earlier.schedule.steps}}


def population(text: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """The recipe's words, and ``age_ranges`` in years: those it states, and that of the training films with an age."""
    ages = [
        float(item.attributes["age"])
        for item in (*arrays.items, *arrays.undecoded)
        if item.split == "train" and "age" in item.attributes
    ]
    measured = [[int(min(ages)), int(max(ages))]] if ages else []
    return {**text, "age_ranges": [*text.get("age_ranges", []), *measured], "films_with_age": len(ages)}


def training_counts(arrays: Arrays) -> dict[str, Any]:
    """Films and patients of each part and data set, and films of each finding."""
    counts: dict[str, Any] = {}
    everything = [*arrays.items, *arrays.undecoded]
    for name in dict.fromkeys(item.dataset for item in everything):
        for part in ("train", "val", "test"):
            items = [item for item in everything if item.dataset == name and item.split == part]
            findings = sorted({item.attributes.get("finding", "") for item in items})
            counts[f"{name}_{part}"] = {
                "films": len(items),
                "patients": len({item.patient for item in items}),
                **{kind: sum(i.attributes.get("finding") == kind for i in items) for kind in findings},
            }
    return counts


def baseline(logits: np.ndarray, calibration: Calibration, recipe: Recipe, arrays: Arrays) -> dict[str, Any]:
    """Histograms for drift: probability of pneumonia on validation films, mean grey value of films."""
    if recipe.task == "pneumonia":
        p = sigmoid((logits[:, 0] - calibration.bias["pneumonia"]) / calibration.temperature["pneumonia"])
    else:
        p = 1 - softmax_p(logits, calibration, recipe.labels)[:, list(CLASSES).index("normal")]
    means = arrays.planes[:: max(1, len(arrays) // 800)].astype(np.float32).mean(axis=(1, 2, 3))
    counts_of = {
        "score": np.histogram(p, bins=10, range=(0, 1))[0],
        "intensity": np.histogram(means, bins=10, range=(0, 1))[0],
    }
    edges = np.linspace(0, 1, 11).round(2).tolist()
    return {name: {"edges": edges, "counts": counts.tolist()} for name, counts in counts_of.items()}


def _published() -> str:
    two, four = PUBLISHED_ROWS["blocks"], PUBLISHED_ROWS["networks"]
    return (
        f"Published on Kermany's test set: accuracy {two['accuracy']}, AUC {two['auc']}; four classes: accuracy "
        f"{four['accuracy']}, {four['train_accuracy']:.4f} on the training films (their splits differ from ours)."
    )


def report(recipe: Recipe, figures: dict[str, Any], cases: dict[str, list[Miss]], out: Path, arrays: Arrays) -> Path:
    """Page and JSON below ``out/evaluation``: a batch as the network saw it, curves, confusions, cases by heading."""
    uncalled = any("without_threshold" in figures.get(f"{part}_at_flag", {}).get("all", {}) for part in ("test", "val"))
    return write_report(
        out / "evaluation",
        f"{recipe.name}: films of the test part",
        [
            "Patients of the test part were not trained or calibrated on; `train` is the accuracy on those that were.",
            INTERVALS,
            HEAT,
            *([UNCALLED] if uncalled else []),
            _published(),
        ],
        figures,
        batch_pictures(recipe, arrays) | cases,
        out,
    )
