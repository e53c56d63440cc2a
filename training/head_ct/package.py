"""The head-CT package: what the folds say goes into the card, what all folds taught goes into the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.arrays import Arrays
from training.datasets.base import studies
from training.datasets.registry import open_dataset
from training.evaluation import metrics
from training.evaluation.cases import MISSES
from training.evaluation.figures import without_curves
from training.evaluation.pictures import Miss
from training.evaluation.report import write_report, write_table
from training.head_ct import figures as head_ct_figures
from training.head_ct.baselines import compared_rows, read_baseline
from training.head_ct.out_of_fold import OutOfFold, of_arrays
from training.head_ct.patient_scores import measure_run
from training.head_ct.sequence import Stages
from training.package.order import Order
from training.package.pictures import batch_pictures
from training.package.postprocess import Postprocess
from training.package.writing import write_package
from training.recipe import Recipe
from worker.packages.card import Card
from worker.packages.operating_points import OperatingPoint, Prevalence

THICKNESS_EDGES_MM = (0.0, 0.9, 1.6, 2.6, 3.6, 4.6, 5.6, 6.6, 10.0)
TISSUE = (0.02, 0.98)

if TYPE_CHECKING:
    import keras


def package_run(order: Order, arrays: Arrays, model: keras.Model) -> Path | None:
    """Evaluate the run's folds, fit what the card holds on their pooled predictions, and write the package.

    A recipe without folds is a start for others: nothing says how good it is, so it gives no package (None).
    """
    recipe = order.recipe
    if not recipe.folds.names:
        return None
    paths = [order.out / f"oof_{fold}.npz" for fold in recipe.folds.names]
    out_of_fold = with_learnt_outlines(of_arrays(paths, arrays, recipe.folds.dataset))
    stages = Stages()
    figures, mask_threshold = evaluate_folds(
        recipe,
        out_of_fold,
        order.data,
        order.out / "evaluation",
        order.baseline,
        stages,
        order.out,
        batch_pictures(recipe, arrays),
    )
    fitted = stages.best(out_of_fold.predictions)
    card = card_of(recipe, arrays, out_of_fold, fitted, figures, mask_threshold, order.version)
    card.metrics = without_curves(figures_elsewhere(order)) | card.metrics
    licence = str(recipe.card.get("licence_text", recipe.card.get("licence", "")))
    directory = order.out / "package" / card.name / card.version
    write_package(directory, model, card, licence)
    return directory


def figures_elsewhere(order: Order) -> dict[str, Any]:
    """Figures of hospitals that another run left out, of the folds' patients in other data sets, and clipped."""
    rows: dict[str, Any] = {}
    for run in order.external:
        rows.setdefault("external", {}).update(measure_run(order.data, run).get("external", {}))
    if order.recipe.folds.also:
        ours = measure_run(order.data, order.out)
        rows |= {name: ours[name] for name in ("same_patients", "without_wide_windows") if name in ours}
    return rows


def with_learnt_outlines(out_of_fold: OutOfFold) -> OutOfFold:
    """The predictions without their masks, where nobody drew a bleed for the network to learn from.

    What it outlines then is nothing that anybody taught: it must neither be measured nor shown, nor speak for a slice.
    """
    if any(item.mask_path is not None for item in out_of_fold.items):
        return out_of_fold
    return replace(out_of_fold, masks=None, predictions=replace(out_of_fold.predictions, evidence=None, areas=None))


def evaluate_folds(
    recipe: Recipe,
    out_of_fold: OutOfFold,
    data: Path,
    out: Path,
    baseline: Path | None = None,
    stages: Stages | None = None,
    run: Path | None = None,
    pictures: Mapping[str, Sequence[Miss]] | None = None,
) -> tuple[dict[str, Any], float | None]:
    """Figures of the out-of-fold predictions, written as page and JSON; and the mask threshold for the card.

    Without drawn masks there is neither a figure of outlines nor a threshold (None).

    ``baseline`` is the folder of another recipe's run on the same folds, whose figures stand beside; ``run`` the folder
    of this one, whose learning curves the page shows beside ``pictures``.
    """
    other = None if baseline is None else read_baseline(baseline, out_of_fold.items, recipe.folds.dataset)
    figures, ours = head_ct_figures.out_of_fold_figures(out_of_fold, recipe.folds.names, stages=stages, baseline=other)
    dataset = open_dataset(recipe.folds.dataset, data / recipe.datasets[recipe.folds.dataset])
    mask_threshold = None
    if out_of_fold.masks is not None:
        overlap = head_ct_figures.overlaps(out_of_fold.items, out_of_fold.masks, dataset, recipe.input)
        figures["segmentation"] = head_ct_figures.segmentation_figures(out_of_fold, overlap, recipe.folds.names)
        figures["by_size"] = head_ct_figures.size_figures(out_of_fold, overlap, ours)
        mask_threshold = head_ct_figures.best_mask_threshold(overlap)
    write_table(out, "compared", f"Out-of-fold predictions of {recipe.name}", _budget(recipe), compared_rows(figures))
    write_report(
        out,
        f"{recipe.name}: out-of-fold predictions on {recipe.folds.dataset}",
        [
            "Intervals are 95 %: Wilson for proportions, bootstrap by patient for the rest.",
            "Beside a slice stands the same below the probabilities of the network's mask, which its heat maps show.",
            "Published figures beside these come from other splits, often not by patient.",
        ],
        figures,
        {
            **(pictures or {}),
            MISSES: head_ct_figures.worst_misses(out_of_fold, recipe.input, dataset, ours.p[:, 0]),
            **head_ct_figures.shown_slices(out_of_fold, recipe.input, dataset, ours.p[:, 0]),
        },
        run,
    )
    return figures, mask_threshold


def _budget(recipe: Recipe) -> str:
    spec, schedule = recipe.input, recipe.schedule
    return (
        f"{schedule.steps} steps of {schedule.batch_size} for each of {len(recipe.folds.names)} folds, "
        f"{spec.width} x {spec.height}; all that is fitted for a fold is fitted on the others"
    )


def card_of(
    recipe: Recipe,
    arrays: Arrays,
    out_of_fold: OutOfFold,
    fitted: Postprocess,
    figures: dict[str, Any],
    mask_threshold: float | None,
    version: str,
) -> Card:
    """The card: text from the recipe, numbers from the folds."""
    text = recipe.card
    weights = "the folds' networks joined, each trained without its fold" if recipe.folds.join else "all folds"
    steps = recipe.schedule.steps if recipe.folds.join else recipe.final_steps or recipe.schedule.steps
    return Card(
        name=str(text.get("name", recipe.name)),
        version=version,
        pipeline=recipe.pipeline,
        task=recipe.task,
        labels=list(recipe.labels),
        input=recipe.input,
        architecture=recipe.architecture,
        calibration=_rounded(fitted),
        operating_points=operating_points(out_of_fold, fitted, recipe.prevalence),
        parameters={
            "evidence": _short(fitted.evidence),
            "sequence": _short(fitted.sequence),
            "aggregation": _short(fitted.aggregation),
            **({"outlines": False} if mask_threshold is None else {"mask_threshold": mask_threshold}),
            "flip": True,
            "slice_spacing_mm": text.get("slice_spacing_mm", 5.0),
        },
        training_data={
            **training_counts(arrays),
            "split": f"weights: {weights}; calibration, aggregation and thresholds: pooled out-of-fold predictions",
            "sources": text.get("sources", []),
            "steps": steps,
            "left_out": len(arrays.left_out),
        },
        population=dict(text.get("population", {})),
        baseline=baseline(recipe, out_of_fold, fitted, arrays),
        metrics={"out_of_fold": without_curves(figures)},
        intended_use=str(text.get("intended_use", "")),
        limits=list(text.get("limits", [])),
        licence=str(text.get("licence", "")),
    )


def operating_points(
    out_of_fold: OutOfFold, fitted: Postprocess, prevalence: Prevalence | None = None
) -> dict[str, OperatingPoint]:
    """``flag`` and ``balanced`` for ``any``, with sensitivity and specificity where they were chosen.

    The flag has the ``prevalence`` at which it is meant to serve, where the recipe names one.
    """
    y, p = out_of_fold.predictions.study_labels(), fitted.p_studies(out_of_fold.predictions)
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
            prevalence=prevalence if name == "flag" else None,
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


def baseline(recipe: Recipe, out_of_fold: OutOfFold, fitted: Postprocess, arrays: Arrays) -> dict[str, Any]:
    """Histograms of studies for drift: score out of fold, mean intensity of the tissue, and slice thickness.

    Intensity is the mean of a study's tissue in the network's window, scaled to 0 .. 1. The folds' data set has slices
    of ``slice_spacing_mm`` throughout; its pictures do not carry a thickness of their own.
    """
    p = fitted.p_studies(out_of_fold.predictions)
    means = [_tissue_mean(arrays, members) for members in studies(list(arrays.items)).values()]
    known = [value for value in means if value is not None]
    thickness_mm = np.full(len(p), float(recipe.card.get("slice_spacing_mm", 5.0)))
    return {
        "score": _histogram(p, np.linspace(0, 1, 11)),
        "intensity": _histogram(np.asarray(known), np.unique(np.quantile(known, np.linspace(0, 1, 11)))),
        "thickness": _histogram(thickness_mm, np.asarray(THICKNESS_EDGES_MM)),
    }


def _tissue_mean(arrays: Arrays, rows: Sequence[int]) -> float | None:
    """Mean over a study of what lies inside the window, every fourth pixel either way; None without any."""
    values = arrays.planes[np.asarray(rows)][:, ::4, ::4].astype(np.float32)
    tissue = values[(values > TISSUE[0]) & (values < TISSUE[1])]
    return float(tissue.mean()) if tissue.size else None


def _histogram(values: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    edges = np.unique(edges.round(4))
    if len(edges) < 2:
        edges = np.asarray([edges[0] - 0.05, edges[0] + 0.05])
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0]
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _short(values: Any) -> Any:
    """Numbers of a nested table to five digits."""
    return json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 5))


def _rounded(fitted: Postprocess) -> Any:
    rounded = {
        name: {label: round(value, 5) for label, value in getattr(fitted.calibration, name).items()}
        for name in ("temperature", "bias")
    }
    return fitted.calibration.model_copy(update=rounded)
