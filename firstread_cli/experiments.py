"""``firstread head``, ``chest`` and ``dermoscopy``: experiments, each of which prints a table and writes it."""

from __future__ import annotations

from pathlib import Path

import click

from firstread.logs import log_to_terminal
from training.chest.blend import blend
from training.chest.compare import compare
from training.chest.gate import gate
from training.chest.hospitals import hospitals
from training.chest.sources import sources
from training.chest.stress import stress
from training.head_ct.checks import checks
from training.head_ct.patient_scores import scores
from training.head_ct.split_gap import split
from training.maps import maps
from training.options import EXISTING_FILE, EXISTING_FOLDER, FOLDER, THREADS


@click.group("chest")
def chest() -> None:
    """Chest X-ray experiments: comparisons, damaged films, hospitals, what models look at, joint score, gate."""


for command in (compare, stress, sources, hospitals, maps, blend, gate):
    chest.add_command(command)


@click.group("head")
def head() -> None:
    """Head CT experiments: the score of a patient, warnings by pixels, splits by patient and by slice."""


for command in (scores, checks, split):
    head.add_command(command)


@click.group("dermoscopy")
def dermoscopy() -> None:
    """Dermoscopy experiments."""


@dermoscopy.command("question")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of HAM10000, as its reader takes it.")
@click.option(
    "--weights",
    type=EXISTING_FILE,
    default=None,
    help="EfficientNet-Lite0's ImageNet weights (npz); default: start from nothing.",
)
@click.option(
    "--package", required=True, help="Package whose outlines cut test pictures: a folder, NAME or NAME/VERSION."
)
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True, help="Steps of each run.")
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    default=None,
    help="About so many pictures of each split, every diagnosis in its share; default: all.",
)
@click.option("--by-picture", is_flag=True, help="Also train after a split by picture instead of by lesion.")
@THREADS
@click.option(
    "--out",
    type=FOLDER,
    default=Path("runs/lesion_question"),
    show_default=True,
    help="Folder of question.md and .json; a later call goes on in it.",
)
def question(
    data: Path,
    weights: Path | None,
    package: str,
    steps: int,
    pictures: int | None,
    by_picture: bool,
    threads: int,
    out: Path,
) -> None:
    """Whole picture, cut picture, or the mask as a fourth channel? Same split and budget for every input."""
    from training.dermoscopy.question import answer_question
    from training.options import settle_tensorflow

    log_to_terminal()
    settle_tensorflow(threads)
    answer_question(data, weights, package, steps, pictures, by_picture, out)
    click.echo((out / "question.md").read_text(encoding="utf-8"))


@dermoscopy.command("shifts")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True)
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of HAM10000, as its reader takes it.")
@click.option("--split", default="test", show_default=True, help="Part of the data.")
@click.option(
    "--pictures", type=click.IntRange(min=0), default=0, help="About so many pictures, every few; default: all."
)
@click.option(
    "--plain-view", is_flag=True, help="The plain view alone, not the views on the card: a quarter of the time."
)
@click.option(
    "--colours",
    multiple=True,
    type=click.Choice(["grey_world", "shades_of_grey"]),
    help="Also with this colour constancy in front of each package.",
)
@click.option("--only", multiple=True, metavar="SHIFT", help="Only shifts of this name; default: all.")
@THREADS
@click.option(
    "--out",
    type=FOLDER,
    default=Path("runs/lesion_shifts"),
    show_default=True,
    help="Folder of shifts.md and .json; predictions are kept below it.",
)
def shifts(
    packages: tuple[str, ...],
    data: Path,
    split: str,
    pictures: int,
    plain_view: bool,
    colours: tuple[str, ...],
    only: tuple[str, ...],
    threads: int,
    out: Path,
) -> None:
    """Score the test pictures of --data as other dermoscopes would have made them; rows for each PACKAGE."""
    from training.dermoscopy.stand_in import write_shifts
    from training.options import settle_tensorflow

    log_to_terminal()
    settle_tensorflow(threads)
    path = write_shifts(packages, data, out, split, pictures, plain_view, colours, only)
    click.echo(path.read_text(encoding="utf-8"))
