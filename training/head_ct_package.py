"""The head-CT package: what the folds say goes into the card, what all folds taught goes into the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training import metrics
from training.arrays import Arrays
from training.datasets import open_dataset
from training.evaluation import head_ct as head_ct_figures
from training.evaluation.figures import without_curves
from training.evaluation.report import write_report
from training.outoffold import OutOfFold, of_arrays
from training.packaging import write_package
from training.postprocess import Postprocess, fit
from training.recipe import Recipe
from worker.packages.card import Card, OperatingPoint

if TYPE_CHECKING:
    import keras

    from training.order import Order


def finish(order: Order, arrays: Arrays, model: keras.Model) -> Path:
    """Evaluate the run's folds, fit what the card holds on their pooled predictions, and write the package."""
    recipe = order.recipe
    paths = [order.out / f"oof_{fold}.npz" for fold in recipe.folds.names]
    found = of_arrays(paths, arrays, recipe.folds.dataset)
    figures, mask_threshold = evaluate_folds(recipe, found, order.data, order.out / "evaluation")
    fitted = fit(found.predictions)
    card = card_of(recipe, arrays, found, fitted, figures, mask_threshold, order.version)
    licence = str(recipe.card.get("licence_text", recipe.card.get("licence", "")))
    directory = order.out / "package" / card.name / card.version
    write_package(directory, model, card, licence)
    return directory


def evaluate_folds(recipe: Recipe, found: OutOfFold, data: Path, out: Path) -> tuple[dict[str, Any], float]:
    """Figures of the out-of-fold predictions, written as page and JSON; and the mask threshold for the card."""
    figures, p_any = head_ct_figures.out_of_fold_figures(found, recipe.folds.names)
    dataset = open_dataset(recipe.folds.dataset, data / recipe.datasets[recipe.folds.dataset])
    mask_threshold = 0.5
    if found.masks is not None:
        overlap = head_ct_figures.overlaps(found.items, found.masks, dataset, recipe.input)
        figures["segmentation"] = head_ct_figures.segmentation_figures(found, overlap, recipe.folds.names)
        mask_threshold = head_ct_figures.best_mask_threshold(overlap)
    write_report(
        out,
        f"{recipe.name}: out-of-fold predictions on {recipe.folds.dataset}",
        [
            f"Method: {figures['method']}.",
            "Intervals are 95 %: Wilson for proportions, bootstrap by patient for the rest.",
            "Published figures beside these come from other splits, often not by patient.",
        ],
        figures,
        head_ct_figures.worst_misses(found, recipe.input, dataset, p_any),
    )
    return figures, mask_threshold


def card_of(
    recipe: Recipe,
    arrays: Arrays,
    found: OutOfFold,
    fitted: Postprocess,
    figures: dict[str, Any],
    mask_threshold: float,
    version: str,
) -> Card:
    """The card: text from the recipe, numbers from the folds."""
    text = recipe.card
    return Card(
        name=str(text.get("name", recipe.name)),
        version=version,
        pipeline=recipe.pipeline,
        task=recipe.task,
        labels=list(recipe.labels),
        input=recipe.input,
        architecture=recipe.architecture,
        calibration=_rounded(fitted),
        operating_points=operating_points(found, fitted),
        parameters={
            "evidence": _short(fitted.evidence),
            "aggregation": _short(fitted.aggregation),
            "mask_threshold": mask_threshold,
            "flip": True,
            "slice_spacing_mm": text.get("slice_spacing_mm", 5.0),
        },
        training_data={
            **training_counts(arrays),
            "split": "weights: all folds; calibration, aggregation and thresholds: pooled out-of-fold predictions",
            "sources": text.get("sources", []),
            "steps": recipe.final_steps or recipe.schedule.steps,
            "left_out": len(arrays.left_out),
        },
        population=dict(text.get("population", {})),
        baseline=baseline(found, fitted, arrays),
        metrics={"out_of_fold": without_curves(figures)},
        intended_use=str(text.get("intended_use", "")),
        limits=list(text.get("limits", [])),
        licence=str(text.get("licence", "")),
    )


def operating_points(found: OutOfFold, fitted: Postprocess) -> dict[str, OperatingPoint]:
    """``flag`` and ``balanced`` for ``any``, with sensitivity and specificity where they were chosen."""
    y, p = found.predictions.study_labels(), fitted.p_studies(found.predictions)
    points = {}
    for name, threshold, why in (
        ("flag", fitted.flag, "highest threshold with patient sensitivity of at least 0.95, pooled out-of-fold"),
        ("balanced", fitted.balanced, "highest sensitivity + specificity of patients, pooled out-of-fold"),
    ):
        c = metrics.confusion(y, p >= threshold)
        points[name] = OperatingPoint(
            finding="any",
            threshold=round(threshold, 5),
            chosen_for=why,
            sensitivity=round(c["true_positive"] / max(1, int((y == 1).sum())), 4),
            specificity=round(c["true_negative"] / max(1, int((y == 0).sum())), 4),
            n=len(y),
        )
    return points


def training_counts(arrays: Arrays) -> dict[str, Any]:
    """Patients, slices and positives a data set."""
    counts: dict[str, Any] = {}
    for name in dict.fromkeys(item.dataset for item in arrays.items):
        rows = [i for i, item in enumerate(arrays.items) if item.dataset == name]
        counts[name] = {
            "patients": len({arrays.items[i].patient for i in rows}),
            "slices": len(rows),
            "positive": int((arrays.labels[rows, 0] == 1).sum()),
            "used_as_labelled": sum(arrays.items[i].usable for i in rows),
        }
    return counts


def baseline(found: OutOfFold, fitted: Postprocess, arrays: Arrays) -> dict[str, Any]:
    """Histograms for drift: study score out of fold, and mean intensity inside the head of each slice."""
    p = fitted.p_studies(found.predictions)
    scores = np.histogram(p, bins=10, range=(0, 1))[0]
    values = arrays.planes[:: max(1, len(arrays) // 400)].astype(np.float32)
    inside = (values > 0.02) & (values < 0.98)
    means = np.asarray([v[m].mean() for v, m in zip(values, inside, strict=True) if m.any()])
    heights, edges = np.histogram(means, bins=10, range=(0, 1))
    return {
        "score": {"edges": np.linspace(0, 1, 11).round(2).tolist(), "counts": scores.tolist()},
        "intensity": {"edges": edges.round(3).tolist(), "counts": heights.tolist()},
    }


def _short(values: Any) -> Any:
    """Numbers of a nested table to five digits."""
    return json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 5))


def _rounded(fitted: Postprocess) -> Any:
    kept = {
        name: {label: round(value, 5) for label, value in getattr(fitted.calibration, name).items()}
        for name in ("temperature", "bias")
    }
    return fitted.calibration.model_copy(update=kept)
