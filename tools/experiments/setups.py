"""Published set-ups as they were trained here, side by side with what ships: a row a package, from their cards.

``python -m tools.experiments.setups PACKAGE... --out DIR --name NAME``. Every figure is of the test part, which is the
same for all packages of a pipeline; it stands under one rule, which the column names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tools.docs.figures import figure
from training.datasets.base import DataSetError
from training.evaluation.report import write_table
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.package import read_card

COLUMNS: dict[str, dict[str, str]] = {
    "dermoscopy": {
        "outline, mean IoU at 0.4": "test/outline/mean_iou_at_0.4",
        "outline, mean IoU at the best threshold of validation": "test/outline/mean_iou",
        "accuracy of the likeliest class": "test/accuracy",
        "balanced accuracy of the likeliest class": "test/balanced_accuracy",
        "melanoma, AUC": "test/melanoma_auc",
        "melanoma, F1 at recall 0.88": "test/melanoma_by_rule/recall 0.88 on these pictures/f1",
    },
    "chest_xray": {
        "children, AUC": "test_at_flag/children/auc",
        "children, accuracy at the flag": "test_at_flag/children/accuracy",
        "children, precision at the flag": "test_at_flag/children/precision",
        "children, recall at the flag": "test_at_flag/children/sensitivity",
        "accuracy on films trained on": "train/accuracy",
        "four classes, accuracy": "published_part/accuracy",
    },
}
"""Pipeline -> column -> its place in a card's metrics."""


@click.command("setups")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True, type=EXISTING_FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder of the table.")
@click.option("--name", default="setups", show_default=True, help="Name of its files.")
def setups(packages: tuple[Path, ...], out: Path, name: str) -> None:
    """Write a table of the figures that the cards of PACKAGE... hold."""
    cards = [read_card(folder) for folder in packages]
    pipelines = {card.pipeline for card in cards}
    if len(pipelines) != 1 or not pipelines <= COLUMNS.keys():
        raise DataSetError(f"packages of one pipeline at a time: {', '.join(sorted(COLUMNS))}")
    columns = COLUMNS[pipelines.pop()]
    rows: list[dict[str, Any]] = []
    for card in cards:
        found = {column: figure(card.metrics, place.split("/")) for column, place in columns.items()}
        steps = card.training_data.get("steps")
        row = {"package": f"{card.name} {card.version}", **({"steps": steps} if steps else {})}
        rows.append(row | {column: value for column, value in found.items() if value})
    budget = "each as its card says; figures of the test part, intervals by patient or lesion"
    path = write_table(out, name, "Published set-ups, trained here", budget, rows)
    click.echo(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    setups()
