"""``firstread chest hospitals``: means against knowing a hospital by its films, each tried on one that is left out.

Every variant is the recipe ``pneumonia_shared`` with one change, trained on the same films for as many steps. A row
says what it does with the films of the hospital that it never saw, what it does with test films of the others, and how
well a line through its pooled features tells hospitals apart within one kind and age group of film.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from training.chest.by_source import Said, by_source, said_at
from training.chest.calibration import fit_softmax, flag_by_age, softmax_p
from training.chest.figures import BINARY, age_groups, four_class_truth, patients_of, share_of, thresholds_of
from training.chest.labels import CLASSES
from training.chest.sources import pooling, source_rows
from training.datasets.arrays import Arrays, open_arrays
from training.datasets.base import EXTERNAL, Item
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.fit.adversary import source_targets
from training.fit.loop import train
from training.fit.model import predict
from training.fit.run import Run
from training.options import EXISTING_FOLDER, FOLDER
from training.recipe import Recipe, load_recipe
from worker.packages.probabilities import sigmoid

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

BASE = "pneumonia_shared"
REPEATS = 300
BATCH = 64

VARIANTS: dict[str, dict[str, Any]] = {
    "as it ships": {},
    "without borrowed tones, sharpness and frames": {"augment": {"amplitude": 0.0, "sharpness": 0.0, "frames": 0.0}},
    "without a levelled look": {"input": {"look": None}},
    "cropped to the lungs, without a levelled look": {"input": {"look": None, "crop": "lungs"}},
    "with an adversary": {"recipe": "pneumonia_shared_adversary"},
}
"""Name -> what differs from :data:`BASE`: another recipe, or fields of ``augment`` and ``input``."""


@click.command("hospitals")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of chest film collections.")
@click.option("--weights", default="none", show_default=True, help="Start of EfficientNet-Lite0: PATH or none.")
@click.option("--leave-out", default="papers", show_default=True, help="Hospital that no variant is trained on.")
@click.option("--steps", type=int, default=700, show_default=True, help="Steps of every variant.")
@click.option("--variant", "names", multiple=True, type=click.Choice(list(VARIANTS)), help="Only this one; repeatable.")
@click.option(
    "--out", type=FOLDER, required=True, help="Folder of runs and table; a run that is there is not repeated."
)
@click.option("--cache", type=FOLDER, default=None, help="Keep decoded films here.")
def hospitals(
    data: Path, weights: str, leave_out: str, steps: int, names: tuple[str, ...], out: Path, cache: Path | None
) -> None:
    """Train each variant without a hospital and print what it does there, and what it knows of hospitals."""
    rows = []
    for name in names or VARIANTS:
        folder = out / "runs" / "".join(c if c.isalnum() else "_" for c in name)
        kept = folder / "row.json"
        if not kept.is_file():
            recipe = recipe_of(VARIANTS[name], leave_out, steps)
            row = {"variant": name, **run_variant(recipe, data, folder, weights, cache)}
            kept.write_text(json.dumps(row), encoding="utf-8")
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
        batch_size = load_recipe(BASE).schedule.batch_size
        budget = f"{leave_out} left out, {steps} steps of {batch_size} films, one run each; intervals by patient"
        path = write_table(out, "hospitals", "Means against knowing a hospital by its films", budget, rows)
    click.echo(path.read_text(encoding="utf-8"))


def recipe_of(changes: dict[str, Any], leave_out: str, steps: int) -> Recipe:
    """The recipe of a variant, without a hospital, for so many steps."""
    recipe = load_recipe(changes.get("recipe", BASE))
    return recipe.model_copy(
        update={
            "leave_out": (leave_out,),
            "augment": {**recipe.augment, **changes.get("augment", {})},
            "input": recipe.input.model_copy(update=changes.get("input", {})),
            "schedule": recipe.schedule.model_copy(update={"steps": steps}),
        }
    )


def run_variant(recipe: Recipe, data: Path, out: Path, weights: str, cache: Path | None = None) -> dict[str, Any]:
    """Train (or go on with) one variant, and measure it: a row of the table."""
    arrays = open_arrays(recipe, data, cache)
    if recipe.adversary is not None:
        arrays.sources = source_targets(arrays.items, recipe.adversary.hospitals)
    split = np.asarray([item.split for item in arrays.items])
    rows = {part: np.flatnonzero(split == part) for part in ("train", "val", "test", EXTERNAL)}
    model = train(Run(recipe, arrays, rows["train"], out, recipe.schedule.steps, rows["val"], weights))
    return row_of(recipe, model, arrays, {part: rows[part] for part in ("val", "test", EXTERNAL)})


def row_of(recipe: Recipe, model: keras.Model, arrays: Arrays, rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Figures of a network of all labels: flag and calibration from validation films, as a package has them."""
    items = {part: [arrays.items[i] for i in of_part] for part, of_part in rows.items()}
    logits = {part: predict(model, arrays, of_part)["logits"] for part, of_part in rows.items()}
    allowed = np.asarray([[item.labels.get(name, 0.0) for name in CLASSES] for item in items["val"]])
    usable = allowed.any(axis=1)
    four = [recipe.labels.index(name) for name in CLASSES]
    calibration = fit_softmax(logits["val"][usable][:, four], allowed[usable], np.ones(int(usable.sum())), CLASSES)
    p = {part: sigmoid(of_part[:, recipe.labels.index(BINARY)]).astype(np.float64) for part, of_part in logits.items()}
    p_four = {part: softmax_p(of_part[:, four], calibration, CLASSES) for part, of_part in logits.items()}
    point = flag_by_age(items["val"], p["val"])
    said = {part: said_at(p[part], thresholds_of(point, items[part]), p_four[part]) for part in ("test", EXTERNAL)}
    table = by_source(items["test"], said["test"], REPEATS)
    known = source_rows(
        features(model, arrays, np.concatenate([rows["test"], rows[EXTERNAL]])), [*items["test"], *items[EXTERNAL]]
    )
    return {
        **_external(items[EXTERNAL], said[EXTERNAL]),
        **_test(table, items["test"], said["test"]),
        **{f"{row['hospitals']} told apart ({row['films']})": row["auc"] for row in known},
    }


def _external(items: Sequence[Item], said: Said) -> dict[str, Any]:
    """Of the hospital that was left out: COVID-19 found, others called so, and how far they lie apart."""
    assert said.p_four is not None
    p_covid, patients = said.p_four[:, CLASSES.index("covid19")], patients_of(items)
    called = said.p_four.argmax(axis=1) == CLASSES.index("covid19")
    kinds = np.asarray([item.attributes.get("kind", "") for item in items])
    covid, other = kinds == "covid19", (kinds != "covid19") & (kinds != "")
    row: dict[str, Any] = {}
    if covid.any():
        row["left_out_covid_found"] = share_of(called[covid], patients[covid], REPEATS)
    if other.any():
        row["left_out_others_called_covid"] = share_of(called[other], patients[other], REPEATS)
    if covid.any() and other.any():
        known = covid | other
        auc = metrics.bootstrap(metrics.auc, patients[known], covid[known].astype(int), p_covid[known], repeats=REPEATS)
        row["left_out_covid_auc"] = auc.as_dict()
    return row


def _test(table: dict[str, Any], items: Sequence[Item], said: Said) -> dict[str, Any]:
    """Of the test films of the others: adults of NIH, children's four classes."""
    assert said.p_four is not None
    row: dict[str, Any] = {}
    films = table.get("nih", {}).get("films", {})
    if "adult normal" in films:
        row["nih_normals_flagged"] = films["adult normal"]["flagged"]
        row["nih_normals_called_covid"] = films["adult normal"]["called"]["covid19"]
    contrast = table.get("nih", {}).get("adults", {}).get("opacity_against_no_finding")
    if contrast:
        row["nih_opacity_auc"] = contrast["auc"]
    truth, child = four_class_truth(items), age_groups(items) == "child"
    inside = child & (truth >= 0)
    if inside.any():
        right = said.p_four.argmax(axis=1)[inside] == truth[inside]
        row["children_four_classes"] = share_of(right, patients_of(items)[inside], REPEATS)
    return row


def features(model: keras.Model, arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    """Pooled features of films, (n, features)."""
    pooled = pooling(model)
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return np.concatenate([np.asarray(pooled.predict_on_batch(arrays.inputs(part))) for part in parts])
