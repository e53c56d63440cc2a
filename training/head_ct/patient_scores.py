"""``firstread head scores``: which score of a patient serves, chosen on a run's out-of-fold predictions alone.

Everything of each fold is fitted on the other folds. The same fits measure the folds' patients in the other data sets
that show them, on the same slices without their wide windows, and hospitals that were left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from training.datasets.base import EXTERNAL, UNKNOWN, Item
from training.datasets.registry import open_items
from training.evaluation import fitting, metrics
from training.evaluation.report import write_table
from training.fit.crossval import with_named_folds
from training.fit.teacher import RECIPE_COPY
from training.head_ct.out_of_fold import PredictionsError, read_out_of_fold
from training.options import EXISTING_FOLDER, FOLDER
from training.package.postprocess import FLAG_SENSITIVITY, Predictions, between, fit
from training.package.study_scores import CANDIDATES, RULE, choose, fit_best_slices, fit_candidate
from training.recipe import Recipe

SLICE_CALLED = 0.5


@dataclass(frozen=True)
class Scores:
    """Studies of one table by one candidate: label, probability, whether flagged, and patient of each."""

    y: np.ndarray
    p: np.ndarray
    flagged: np.ndarray
    patients: np.ndarray

    def figures(self) -> dict[str, Any]:
        """With intervals by patient; what needs both kinds of study is left out where one is missing."""
        rows: dict[str, Any] = {"patients": len(self.y), "bleeding": int((self.y == 1).sum())}
        if 0 < rows["bleeding"] < len(self.y):
            for name, statistic in (
                ("auc", metrics.auc),
                ("log_loss", metrics.log_loss),
                ("specificity_where_all_are_found", _specificity_at_full_sensitivity),
            ):
                rows[name] = metrics.bootstrap(statistic, self.patients, self.y, self.p).as_dict()
        for name, value in (("sensitivity_at_flag", 1), ("specificity_at_flag", 0)):
            inside = self.y == value
            right = self.flagged[inside] == bool(value)
            rows[name] = metrics.wilson(int(right.sum()), int(inside.sum())).as_dict()
        return rows


@click.command("scores")
@click.argument("run", type=EXISTING_FOLDER)
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the recipe's data sets.")
@click.option("--out", type=FOLDER, required=True, help="Folder of patient_scores.json and of the table.")
def scores(run: Path, data: Path, out: Path) -> None:
    """Choose the score of a patient on the out-of-fold predictions of RUN (two folds or more); intervals by patient."""
    result = measure_run(data, run)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "patient_scores.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    name = "_".join([result["recipe"], "scores", *(f"without_{hospital}" for hospital in result["left_out"])])
    title = f"Scores of a patient: {result['recipe']}, chosen {result['chosen']}"
    budget = f"folds {', '.join(result['folds'])}; all that is fitted for a fold is fitted on the others"
    left_out = ", ".join(result["left_out"])
    write_table(out, name, title, f"{budget}; {left_out} left out" if left_out else budget, table_rows(result))
    for name, row in result["candidates"].items():
        auc, sure = row["auc"], row["specificity_where_all_are_found"]
        click.echo(f"{name}: AUC {_text(auc)}, specificity where all are found {_text(sure)}")
    click.echo(f"chosen: {result['chosen']}; {path}")


def table_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table: each candidate, then what the chosen one does on other slices of the patients and elsewhere."""
    rows = [{"score": name, **_patient_row(figures)} for name, figures in result["candidates"].items()]
    rows[0]["slice AUC"] = result["slices"]
    others = {"without wide windows": result.get("without_wide_windows")}
    others |= {f"same patients in {name}": figures for name, figures in result.get("same_patients", {}).items()}
    for dataset, by_fold in result.get("external", {}).items():
        others |= {f"{dataset}, by the network without fold {fold}": row for fold, row in by_fold.items()}
    for name, figures in others.items():
        if figures is not None:
            rows.append({"score": name, **_patient_row(figures["patients"]), "slice AUC": figures["slices"]})
    return rows


def _patient_row(figures: dict[str, Any]) -> dict[str, Any]:
    names = {
        "patients": "patients",
        "bleeding": "bleeding",
        "auc": "patient AUC",
        "specificity_where_all_are_found": "specificity where all are found",
        "sensitivity_at_flag": "sensitivity at the flag",
        "specificity_at_flag": "specificity at the flag",
    }
    return {title: figures[key] for key, title in names.items() if key in figures}


def measure_run(data: Path, run: Path) -> dict[str, Any]:
    """All figures of the folds of a run that have predictions; ``data`` is the folder of its data sets.

    Raises
    ------
    PredictionsError
        If the folder holds no run, or fewer than two folds have predictions.
    """
    if not (run / RECIPE_COPY).is_file():
        raise PredictionsError(f"{run.name} holds no {RECIPE_COPY}: it is no run")
    recipe = Recipe.model_validate_json((run / RECIPE_COPY).read_text(encoding="utf-8"))
    items, labels = open_items(recipe, data)
    labels[[not item.usable for item in items]] = UNKNOWN
    names = with_named_folds(recipe, items).folds.names
    paths = {fold: run / f"oof_{fold}.npz" for fold in names if (run / f"oof_{fold}.npz").is_file()}
    if len(paths) < 2:
        raise PredictionsError(f"{run.name} has predictions of {len(paths)} folds, and a choice takes two or more")

    def table(files: Sequence[Path], chosen: list[Item], dataset: str, clipped: bool = False) -> Predictions:
        return read_out_of_fold(files, chosen, labels, recipe.labels, dataset, clipped=clipped).predictions

    own = table(list(paths.values()), items, recipe.folds.dataset)
    result = measure(own)
    result |= {"recipe": recipe.name, "folds": list(paths), "left_out": list(recipe.leave_out)}
    if recipe.input.wide_windows:
        clipped = table(list(paths.values()), items, recipe.folds.dataset, clipped=True)
        result["without_wide_windows"] = elsewhere(own, {f: clipped.rows(clipped.folds == f) for f in paths})
    for dataset in recipe.folds.also:
        other = table(list(paths.values()), items, dataset)
        by_fold = {fold: other.rows(other.folds == fold) for fold in paths}
        result.setdefault("same_patients", {})[dataset] = elsewhere(own, by_fold)
    for dataset in sorted({item.dataset for item in items if item.split == EXTERNAL}):
        parts = {}
        for fold, path in paths.items():
            moved = [replace(item, split=fold) if item.split == EXTERNAL else item for item in items]
            parts[fold] = table([path], [i if i.dataset == dataset else replace(i, split="") for i in moved], dataset)
        result.setdefault("external", {})[dataset] = {
            fold: elsewhere(own, {fold: part}, fold) for fold, part in parts.items()
        }
    return result


def measure(table: Predictions) -> dict[str, Any]:
    """Each candidate with everything fitted on the other folds, the slices behind them, and the choice on all folds."""
    folds = [str(fold) for fold in np.unique(table.folds)]
    p, by_candidate = _nested(table, {fold: table.rows(table.folds == fold) for fold in folds}, tuple(CANDIDATES))
    known = table.labels[:, 0] >= 0
    order = np.concatenate([np.flatnonzero(table.folds == fold) for fold in folds])
    slices = np.zeros(len(table.folds))
    slices[order] = p
    fitted = fit(table)
    studies = table.scored(fitted.p_slices(table)[:, 0])
    return {
        "rule": RULE,
        "slices": metrics.bootstrap(
            metrics.auc, table.patients[known], table.labels[known, 0], slices[known]
        ).as_dict(),
        "candidates": {name: scored.figures() for name, scored in by_candidate.items()},
        "chosen": choose(studies),
        "aggregation": fitted.aggregation,
    }


def elsewhere(table: Predictions, parts: dict[str, Predictions], only: str = "") -> dict[str, Any]:
    """Other slices by the folds' networks, by what was fitted on the other folds of ``table``, the choice included.

    ``only`` names the one fold whose network predicted them.
    """
    p, by_candidate = _nested(table, parts, ("",))
    labels = np.concatenate([part.labels[:, 0] for part in parts.values()])
    patients = np.concatenate([part.patients for part in parts.values()])
    known, negative = labels >= 0, labels == 0
    right = p[negative] < SLICE_CALLED
    return {
        "slices": metrics.bootstrap(metrics.auc, patients[known], labels[known], p[known]).as_dict(),
        "negative_slices_not_called": metrics.wilson(int(right.sum()), int(negative.sum())).as_dict(),
        "patients": by_candidate[""].figures(),
        **({"by_the_network_without_fold": only} if only else {}),
    }


def _nested(
    table: Predictions, parts: dict[str, Predictions], names: Sequence[str]
) -> tuple[np.ndarray, dict[str, Scores]]:
    """Probabilities of the parts' slices, one part after the other, and of their studies by each candidate.

    Of each part's fold nothing is used; an empty name is whatever :func:`choose` takes on the other folds.
    """
    slices: list[np.ndarray] = []
    rows: dict[str, list[Scores]] = {name: [] for name in names}
    for fold, part in parts.items():
        rest = table.rows(table.folds != fold)
        fitted = fit(rest)
        teaching = rest.scored(fitted.p_slices(rest)[:, 0])
        p = fitted.p_slices(part)[:, 0]
        own = part.scored(p)
        slices.append(p)
        best_slices, _ = fit_best_slices(teaching)
        patients = np.asarray([part.patients[r[0]] for r in own.rows])
        for name in names:
            aggregation = fit_candidate(name or choose(teaching), teaching, best_slices)
            before = teaching.score(aggregation)
            flag = between(before, fitting.highest_threshold(teaching.y, before, FLAG_SENSITIVITY))
            scored = own.score(aggregation)
            rows[name].append(Scores(own.y, scored, scored >= flag, patients))
    joined = {
        name: Scores(
            *(np.concatenate([getattr(one, field) for one in found]) for field in ("y", "p", "flagged", "patients"))
        )
        for name, found in rows.items()
    }
    return np.concatenate(slices), joined


def _specificity_at_full_sensitivity(y: np.ndarray, p: np.ndarray) -> float:
    """Share of the negatives below the lowest positive."""
    return float((p[y == 0] < p[y == 1].min()).mean()) if 0 < (y == 1).sum() < len(y) else float("nan")


def _text(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
