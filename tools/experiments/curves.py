"""Learning curves of trainings, as they stand beside a table of ``docs/experiments.md``.

``python -m tools.experiments.curves NAME RUN... --out docs/experiments/curves`` reads the log of every training below
the folders and writes ``NAME.json`` and ``NAME.svg``; NAME is that of the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from training.evaluation.pictures import CURVES, LOG, logged
from training.files import written_whole
from training.options import EXISTING_FOLDER, FOLDER

KEPT = ("step", *(name for pair in CURVES.values() for name in pair))
Rows = list[dict[str, Any]]


@click.command("curves")
@click.argument("name")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=EXISTING_FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder of numbers and picture.")
def curves(name: str, runs: tuple[Path, ...], out: Path) -> None:
    """Write the curves of every training below each RUN, as numbers and as a picture."""
    logs = [log for run in runs for log in sorted(run.rglob(LOG))]
    if not logs:
        raise click.UsageError(f"no {LOG} below {', '.join(str(run) for run in runs)}")
    trainings = {_name(log.parent): [{k: row[k] for k in KEPT if k in row} for row in logged(log)] for log in logs}
    with written_whole(out / f"{name}.json") as partial:
        partial.write_text(json.dumps({"trainings": trainings}) + "\n", encoding="utf-8")
    with written_whole(out / f"{name}.svg") as partial:
        draw(trainings, partial)
    click.echo(f"{len(trainings)} trainings: {out / name}.svg")


def _name(folder: Path) -> str:
    """The folder's, or of a run's last training the run's."""
    named = folder.parent if folder.name == "final" else folder
    return named.name.strip("_").replace("__", " ").replace("_", " ")


def draw(trainings: dict[str, Rows], path: Path) -> None:
    """One field for each curve that any training has; what was trained on drawn through, validation dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = {title: pair for title, pair in CURVES.items() if title != "precision and recall" and _any(trainings, pair)}
    with matplotlib.rc_context({"svg.hashsalt": "firstread", "svg.fonttype": "none", "font.size": 8}):
        drawing, fields = pyplot.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.4), squeeze=False)
        for axes, (title, (trained, validated)) in zip(fields[0], shown.items(), strict=True):
            for index, (name, rows) in enumerate(trainings.items()):
                for key, style in ((trained, "-"), (validated, "--")):
                    of = [row for row in rows if key in row]
                    label = name if style == "--" else None
                    axes.plot(
                        [r["step"] for r in of], [r[key] for r in of], style, color=f"C{index}", label=label, marker="."
                    )
            axes.set(xlabel="step", title=title)
        fields[0][0].legend(fontsize=6)
        drawing.tight_layout()
        drawing.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(drawing)


def _any(trainings: dict[str, Rows], names: tuple[str, ...]) -> bool:
    return any(name in row for rows in trainings.values() for row in rows for name in names)


if __name__ == "__main__":
    curves()
