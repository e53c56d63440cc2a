"""``firstread evaluate`` for head CT: a package on a data set, and the folds of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import studies
from training.datasets.registry import open_items
from training.evaluation import figures, metrics
from training.evaluation.scoring import (
    EvaluationOrder,
    Measured,
    Scored,
    package_figures,
    score,
    threshold_of,
    write_scores,
)
from training.fit.crossval import with_named_folds
from training.head_ct.baselines import PUBLISHED
from training.head_ct.figures import by_size, by_subtype
from training.head_ct.out_of_fold import PredictionsError, read_out_of_fold
from training.head_ct.package import evaluate_folds, with_learnt_outlines
from training.recipe import load_recipe
from worker.packages.card import Card
from worker.packages.operating_points import OperatingPoint
from worker.packages.probabilities import study_probability


def evaluate_heads(order: EvaluationOrder) -> Path:
    """Score and measure a package's slices and studies; write the page and its JSON, and give back the page's path."""
    order.refuse_partner()
    card, scored = order.package.card, score(order.package, order.dataset, order.split)
    own = head_ct_figures(card, scored, list(studies(scored.items).values()))
    return write_scores(order, scored, package_figures(card, scored, own))


def measured_heads(order: EvaluationOrder) -> Measured:
    """What a package says of the slices and studies of a data set, for a comparison."""
    card, scored = order.package.card, score(order.package, order.dataset, order.split)
    keys = [(item.dataset, item.study) for item in scored.items]

    def of_drawn(drawn: Sequence[np.ndarray]) -> dict[str, Any]:
        rows, groups, start = [], [], 0
        for cases in drawn:
            of_study: dict[tuple[str, str], list[int]] = {}
            for case in cases:
                of_study.setdefault(keys[case], []).append(case)
            for members in of_study.values():
                rows += sorted(members, key=lambda case: scored.items[case].order)
                groups.append(list(range(start, start + len(members))))
                start += len(members)
        part = scored.rows(np.asarray(rows))
        own = head_ct_figures(card, part, groups, repeats=0)
        for rows_of in own.get("by_size", {}).values():  # their names hold the limits of who was drawn
            rows_of |= {name.split(",")[0]: rows_of.pop(name) for name in list(rows_of)}
        return package_figures(card, part, own, repeats=0)

    flags = tuple(f"operating_points/{name}/sensitivity" for name in card.operating_points if name.startswith("flag"))
    return Measured(np.asarray([item.patient for item in scored.items]), scored.p, of_drawn, flags)


def evaluate_run(recipe_name: str, data: Path, run: Path, out: Path, baseline: Path | None = None) -> Path:
    """Evaluate a run's predictions; everything that is chosen for a fold is chosen on the other folds.

    ``baseline`` is the folder of another recipe's run on the same folds, whose figures stand beside.

    Raises
    ------
    PredictionsError
        If the recipe has no folds, or a fold's predictions are missing.
    """
    recipe = load_recipe(recipe_name)
    if not recipe.folds.names:
        raise PredictionsError(f"recipe {recipe.name} has no folds")
    items, labels = open_items(recipe, data)
    recipe = with_named_folds(recipe, items)
    paths = [run / f"oof_{fold}.npz" for fold in recipe.folds.names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise PredictionsError(f"the run lacks {', '.join(missing)}")
    out_of_fold = with_learnt_outlines(read_out_of_fold(paths, items, labels, recipe.labels, recipe.folds.dataset))
    evaluate_folds(recipe, out_of_fold, data, out, baseline, run=run)
    return out / "evaluation.html"


def head_ct_figures(
    card: Card, scored: Scored, groups: Sequence[list[int]], repeats: int | None = None
) -> dict[str, Any]:
    """Studies by label, the flag by subtype and by size of bleed, and what calling nothing would give.

    A study with a bleed on any slice bleeds; one is free of it where every slice is known to be.
    """
    rows: dict[str, Any] = {}
    study_rows = [np.asarray(members) for members in groups]
    patients = np.asarray([scored.items[members[0]].patient for members in groups])
    flagged = np.zeros(len(groups), dtype=bool)
    points: dict[str, Any] = {}
    compared: dict[str, Any] = {}
    for column, label in enumerate(card.labels):
        known = [scored.labels[members, column] for members in groups]
        y = np.asarray([1.0 if (values == 1).any() else float(values.min()) for values in known])
        p = np.asarray(
            [
                study_probability(
                    scored.p[members, column],
                    card.parameters,
                    label,
                    None if scored.mask_areas is None else scored.mask_areas[members],
                )
                for members in groups
            ]
        )
        called = p >= threshold_of(card, label)
        if column == 0:
            flagged = called
            slices = scored.labels[:, 0], np.asarray([item.patient for item in scored.items])
            of_none = {"slices": _always_normal(*slices, repeats), "studies": _always_normal(y, patients, repeats)}
            compared = {"always_normal": of_none}
        if (y >= 0).any():
            rows[label] = figures.binary(y, p, patients, called, repeats)
            points |= _at_points(card, label, y, p)
    called_slices = scored.p[:, 0] >= 0.5
    result = {
        "studies": rows,
        "operating_points": points,
        "compared": compared,
        "published": PUBLISHED,
        "studies_by_subtype": by_subtype(scored.labels, card.labels, flagged, study_rows),
    }
    if (scored.area > 0).any():
        result["by_size"] = by_size(scored.area, called_slices, flagged, study_rows)
    return result


def _at_points(card: Card, label: str, y: np.ndarray, p: np.ndarray) -> dict[str, Any]:
    """Studies at each operating point of a label."""
    known = y >= 0
    return {
        name: {
            key: value.as_dict() for key, value in metrics.proportions(y[known], p[known] >= point.threshold).items()
        }
        for name, point in card.operating_points.items()
        if isinstance(point, OperatingPoint) and point.finding == label
    }


def _always_normal(y: np.ndarray, patients: np.ndarray, repeats: int | None) -> dict[str, Any]:
    """No score but the prevalence, and nothing called; empty where no label is known."""
    known = y >= 0
    if not known.any():
        return {}
    p, called = np.full(len(y), float(y[known].mean())), np.zeros(len(y), dtype=bool)
    row = figures.binary(y, p, patients, called, repeats)
    return {name: value for name, value in row.items() if name not in ("curves", "calibration")}
