"""Converted files of packages beside TensorFlow, also those that were refused: a table of the figures that decide.

``python -m tools.experiments.converted OPTIMIZATION.json... --out DIR`` takes what ``firstread models optimize`` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from training.evaluation.report import write_table
from training.optimize.paired import PARTS
from training.options import FOLDER

NAME = "engine_converted"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("converted")
@click.argument("reports", metavar="OPTIMIZATION.json...", nargs=-1, required=True, type=FILE)
@click.option("--out", type=FOLDER, required=True, help="Folder of the table.")
def converted(reports: tuple[Path, ...], out: Path) -> None:
    """Write a table of every AUC over all patients by both, and whether the file was taken."""
    rows: list[dict[str, Any]] = []
    for report in reports:
        rows += _rows(json.loads(report.read_text(encoding="utf-8")))
    budget = "300 pictures of other patients for the ranges of int8; intervals of the difference by patient"
    path = write_table(out, NAME, "Converted files beside TensorFlow", budget, rows)
    click.echo(path.read_text(encoding="utf-8"))


def _rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    measurement = document["measurement"]
    for place, row in measurement["figures"].items():
        parts = place.split("/")
        if not parts[-1].endswith("auc") or PARTS & set(parts) or row["converted"] is None:
            continue
        yield {
            "file": f"{document['package']} {document['precision']}",
            "MB": f"{document['size_bytes'] / 1e6:.1f}",
            "patients": measurement["patients"],
            "figure": place,
            "TensorFlow": f"{row['reference']:.4f}",
            "file's": f"{row['converted']:.4f}",
            "difference": "{value:+.4f} ({low:+.4f} to {high:+.4f})".format(**row["difference"]),
            "outcome": "refused" if document["refused"] else "ships",
        }


if __name__ == "__main__":
    converted()
