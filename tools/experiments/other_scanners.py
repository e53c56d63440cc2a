"""A head-CT package beside the networks of a run's folds, on heads as another scanner would have shown them.

``python -m tools.experiments.other_scanners PACKAGE RUN --new PACKAGE --data DIR --out DIR``. Every patient of CT-ICH
in two windows is scored as it is, with a scanner's changes, with dense things drawn in, and with both; each slice of a
series gets the same ones. The folds' networks never saw the patient that they score; the first package may have: what
it loses here it loses in spite of that. Probabilities and flags are those of each package's card.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from training.augmentation.dense import draw_dense
from training.augmentation.hounsfield import Windows
from training.augmentation.scanners import as_scanned
from training.datasets.base import Item
from training.datasets.registry import open_dataset, open_items
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.fit.model import build_model
from training.fit.teacher import RECIPE_COPY
from training.options import EXISTING_FOLDER, FOLDER
from training.recipe import Recipe
from worker.packages.package import load
from worker.packages.patient_score import mask_areas
from worker.packages.preprocessing.compose import planes, scale, stack
from worker.packages.probabilities import slice_probabilities, study_probability
from worker.packages.runtimes.tensorflow import Package

DATASET = "ct_ich_two_windows"
CHANGES = ("as they are", "another scanner", "dense things", "both")
NAME = "head_ct_other_scanners"


def changed(slices: np.ndarray, change: str, windows: Windows, patient: str) -> np.ndarray:
    """The slices of a series (n, H, W, C), each with the same change."""
    out = []
    for image in slices:
        rng = np.random.default_rng(zlib.crc32(f"{patient}{change}".encode()))
        if change in ("dense things", "both"):
            image = draw_dense(image, None, windows, rng)
        if change in ("another scanner", "both"):
            image = as_scanned(image, windows, rng)
        out.append(image)
    return np.stack(out)


def scored(package: Package, x: np.ndarray) -> dict[str, Any]:
    """Probabilities of the slices and of their study, as the package serves them."""
    card, outputs = package.card, package.predict(x)
    p = slice_probabilities(outputs, card.parameters, card.labels)[:, 0]
    study = study_probability(p, card.parameters, card.labels[0], mask_areas(outputs["mask"]))
    return {"slices": [float(value) for value in p], "study": float(study)}


def table_rows(rows: list[Mapping[str, Any]], flags: Mapping[str, float]) -> list[dict[str, Any]]:
    """A line a change and package: AUC of patients and slices, and what the flag does, with intervals by patient."""
    table = []
    for change in CHANGES:
        chosen = [row for row in rows if row["change"] == change]
        y = np.asarray([row["bleeds"] for row in chosen])
        patients = np.asarray([row["patient"] for row in chosen])
        labels = np.concatenate([row["labels"] for row in chosen])
        of_slices = np.repeat(patients, [len(row["labels"]) for row in chosen])
        known = labels >= 0
        for name, threshold in flags.items():
            p = np.asarray([row[name]["study"] for row in chosen])
            slices = np.concatenate([row[name]["slices"] for row in chosen])
            called = p >= threshold
            table.append(
                {
                    "heads": change,
                    "network": name,
                    "patients": len(chosen),
                    "bleeding": int(y.sum()),
                    "patient AUC": metrics.bootstrap(metrics.auc, patients, y, p).as_dict(),
                    "flagged of those who bleed": metrics.wilson(int(called[y == 1].sum()), int(y.sum())).as_dict(),
                    "not flagged of the others": metrics.wilson(
                        int((~called[y == 0]).sum()), int((y == 0).sum())
                    ).as_dict(),
                    "slice AUC": metrics.bootstrap(
                        metrics.auc, of_slices[known], labels[known], slices[known]
                    ).as_dict(),
                }
            )
    return table


def measure(first: Path, second: Path, run: Path, data: Path) -> tuple[list[Mapping[str, Any]], dict[str, float]]:
    """Scores of every patient under every change, and the flags' thresholds, by the names of the table."""
    old, new = load(first), load(second)
    recipe = Recipe.model_validate_json((run / RECIPE_COPY).read_text(encoding="utf-8"))
    spec, windows = new.card.input, Windows.of(new.card.input)
    items, _ = open_items(recipe, data)
    dataset = open_dataset(DATASET, data / recipe.datasets[DATASET])
    networks = {
        fold: Package(new.card, build_model(recipe, str(run / f"fold_{fold}" / "checkpoint.npz")))
        for fold in recipe.folds.names
    }
    by_patient: dict[str, list[Item]] = {}
    for item in items:
        if item.dataset == DATASET and item.split in networks:
            by_patient.setdefault(item.patient, []).append(item)
    names = (f"{old.card.name} {old.card.version}", f"folds of {new.card.name} {new.card.version}")
    rows: list[Mapping[str, Any]] = []
    for patient, own in sorted(by_patient.items()):
        series = stack(planes(np.stack([dataset.pixels(item) for item in own]), spec), spec)
        labels = [int(item.labels.get(new.card.labels[0], -1)) for item in own]
        for change in CHANGES:
            x = changed(series, change, windows, patient)
            narrow = np.ascontiguousarray(windows.split(x)[0])
            rows.append(
                {
                    "patient": patient,
                    "change": change,
                    "bleeds": int(1 in labels),
                    "labels": labels,
                    names[0]: scored(old, scale(narrow, old.card.input)),
                    names[1]: scored(networks[own[0].split], scale(x, spec)),
                }
            )
    thresholds = (old.card.threshold(old.card.labels[0]), new.card.threshold(new.card.labels[0]))
    return rows, {name: float(value or 0) for name, value in zip(names, thresholds, strict=True)}


@click.command()
@click.argument("package", type=EXISTING_FOLDER)
@click.argument("run", type=EXISTING_FOLDER)
@click.option("--new", type=EXISTING_FOLDER, required=True, help="Package whose card the folds' networks are read by.")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the recipe's data sets.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the table, and of the scores behind it.")
def main(package: Path, run: Path, new: Path, data: Path, out: Path) -> None:
    """Score every patient under every change by both, and write the table."""
    rows, flags = measure(package, new, run, data)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{NAME}_scores.json").write_text(json.dumps(rows) + "\n", encoding="utf-8")
    first, second = flags
    title = f"Heads as other scanners show them: {first}, and {second}"
    budget = f"{first} was trained on most of these patients, the folds' networks never on the one that they score"
    write_table(out, NAME, title, budget, table_rows(rows, flags))


if __name__ == "__main__":
    main()
