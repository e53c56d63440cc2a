"""What a run's figures are held against: calling nothing, and the folds of another recipe's run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.base import Item, label_matrix
from training.evaluation import figures
from training.head_ct.nested import Nested, measure
from training.head_ct.out_of_fold import PredictionsError, read_out_of_fold
from training.package.postprocess import Postprocess, Predictions
from worker.packages.card import Calibration

PUBLISHED: dict[str, Any] = {
    "note": "other data and other splits, often not by patient: not to be compared digit by digit",
    "InceptionV3, three windows, RSNA 2019, validation slices 1:1": {
        "accuracy": 0.928,
        "false_negative_share_of_positives": 0.0476,
    },
    "best on RSNA 2019, slices": {
        "auc_any": 0.988,
        "auc_epidural": 0.984,
        "auc_intraparenchymal": 0.992,
        "auc_intraventricular": 0.996,
        "auc_subarachnoid": 0.985,
        "auc_subdural": 0.983,
        "weighted_log_loss": 0.04383,
    },
    "authors of CT-ICH, positive slices": {"dice": 0.31},
    "cleared products, exams": {"sensitivity": 0.96, "specificity": 0.95},
}
"""Figures that others have published for head CT.

The InceptionV3 authors mark their false-negative share as still to be corrected.
"""


@dataclass(frozen=True)
class BaselineRun:
    """Out-of-fold predictions of another run on the same data set, perhaps of fewer folds."""

    name: str
    """The network's builder."""
    note: str
    """Steps and folds, as read from the run."""
    predictions: Predictions


def read_baseline(run: Path, items: Sequence[Item], dataset: str) -> BaselineRun:
    """Predictions of every fold that a run has finished.

    Raises
    ------
    PredictionsError
        If the folder has none, or they are of other data.
    """
    paths = sorted(run.glob("oof_*.npz"))
    if not paths:
        raise PredictionsError(f"no out-of-fold predictions (oof_*.npz) in {run.name}")
    with np.load(paths[0]) as stored:
        names = tuple(json.loads(str(stored["labels"])))
    out_of_fold = read_out_of_fold(paths, items, label_matrix(items, names), names, dataset)
    folds = [path.stem.removeprefix("oof_") for path in paths]
    steps = sorted({_steps(run / f"fold_{fold}") for fold in folds})
    builder = _builder(run / f"fold_{folds[0]}") or run.name
    counted = " to ".join(str(n) for n in dict.fromkeys((steps[0], steps[-1])))
    return BaselineRun(builder, f"{counted} steps a fold, folds {', '.join(folds)}", out_of_fold.predictions)


def _steps(fold: Path) -> int:
    """Steps in a fold's log; 0 where there is none."""
    path = fold / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _builder(fold: Path) -> str | None:
    path = fold / "checkpoint.npz"
    if not path.is_file():
        return None
    with np.load(path) as stored:
        recipe = json.loads(str(stored["identity"]))[0]
    return str(recipe["architecture"]["builder"])


def compared(
    table: Predictions, stages: Mapping[str, Nested], baseline: BaselineRun | None, repeats: int | None
) -> dict[str, Any]:
    """Rows side by side, each of slices and of patients at the flag: always normal, the baseline, and ours.

    Where the baseline has fewer folds than ours, ours on those folds alone stands beside it.
    """
    ours = next(iter(stages.values()))
    rows: dict[str, Any] = {"always_normal": _always_normal(table, ours, repeats)}
    if baseline is not None:
        other = baseline.predictions
        folds = [str(fold) for fold in np.unique(other.folds)]
        theirs = measure(other, folds) if len(folds) > 1 else uncalibrated(other)
        rows[f"{baseline.name}, {baseline.note}"] = _row(other, theirs, repeats)
        inside = np.isin(table.folds, folds)
        if not inside.all():
            rows[f"ours, folds {', '.join(folds)}"] = _row(table.rows(inside), ours.of_part(inside, table), repeats)
    return rows | {name: _row(table, scores, repeats) for name, scores in stages.items()}


def compared_rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of an evaluation as rows of a table, one for each score of :func:`compared`; the Dice is ours."""
    dice = figures.get("segmentation", {}).get("dice_positive_slices")
    rows = []
    for name, score in figures["compared"].items():
        slices, patients = score["slices"], score["patients_at_flag"]
        rows.append(
            {
                "score": name,
                "slices": slices["n"],
                "slice AUC": slices["auc"],
                "patients": patients["n"],
                "patient AUC": patients["auc"],
                "sensitivity at the flag": patients["sensitivity"],
                "specificity at the flag": patients["specificity"],
                "Dice on positive slices": dice if name == "ours" else None,
            }
        )
    return rows


def uncalibrated(table: Predictions) -> Nested:
    """Scores of a single fold, for which nothing can be fitted elsewhere: plain probabilities, highest slice, 0.5."""
    plain = Postprocess(Calibration(), {})
    p = plain.p_slices(table)
    p_study = plain.p_studies(table)
    return Nested.of(table, p, p_study, p_study >= plain.flag, p_study >= plain.balanced, {})


def _row(table: Predictions, scores: Nested, repeats: int | None) -> dict[str, Any]:
    slices = figures.binary(table.labels[:, 0], scores.p[:, 0], table.patients, scores.p[:, 0] >= 0.5, repeats)
    at_flag = figures.binary(scores.y, scores.p_study, scores.patients, scores.flagged, repeats)
    return {"slices": _plain(slices), "patients_at_flag": _plain(at_flag)}


def _always_normal(table: Predictions, ours: Nested, repeats: int | None) -> dict[str, Any]:
    """No score but the prevalence, and nothing called."""
    rows = {}
    for name, y, patients in (
        ("slices", table.labels[:, 0], table.patients),
        ("patients_at_flag", ours.y, ours.patients),
    ):
        share = float(np.mean(y[y >= 0]))
        rows[name] = _plain(figures.binary(y, np.full(len(y), share), patients, np.zeros(len(y), bool), repeats))
    return rows


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("curves", "calibration")}
