"""``firstread train``, ``evaluate`` and ``prepare``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from firstread.logs import log_to_terminal
from training.options import EXISTING_FOLDER, FOLDER, THREADS


def _version(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Versions are put in order by their numbers: one without could not be told from an older one."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", value):
        raise click.BadParameter(f"{value} is no version such as 1.2.3")
    return value


@click.command("train")
@click.argument("recipe")
@click.option("--data", type=EXISTING_FOLDER, default=None, help="Folder of the recipe's data sets.")
@click.option("--out", type=FOLDER, default=None, help="Folder of the run; default: runs/RECIPE.")
@click.option(
    "--weights",
    default="none",
    show_default=True,
    help="First weights: a PATH, imagenet (Keras may download it), or none.",
)
@click.option(
    "--start",
    type=EXISTING_FOLDER,
    default=None,
    help="An earlier run on the same folds, to begin with its weights and masks.",
)
@click.option(
    "--baseline",
    type=EXISTING_FOLDER,
    default=None,
    help="Another recipe's run on the same folds, to stand beside in the report.",
)
@click.option(
    "--external",
    type=EXISTING_FOLDER,
    multiple=True,
    help="A run of the recipe with --leave-out, whose figures come first on the card; may be given more than once.",
)
@click.option(
    "--join",
    "join_",
    type=EXISTING_FOLDER,
    multiple=True,
    help="Train nothing: make one network of packages (give it twice or more).",
)
@click.option(
    "--leave-out",
    default=None,
    metavar="HOSPITAL",
    help="Hospitals, comma-separated, that are measured as external and never trained on.",
)
@click.option("--folds", default=None, help="Folds to train, comma-separated; default: all of the recipe's.")
@click.option("--final/--no-final", default=True, help="Train on all folds afterwards and write the package.")
@click.option("--steps", type=click.IntRange(min=1), default=None, help="Steps instead of the recipe's.")
@click.option(
    "--minutes", type=click.FloatRange(min=0.1), default=None, help="As many steps as fit into them, measured first."
)
@click.option(
    "--frozen-base",
    is_flag=True,
    help="Train the head alone: the base keeps --weights, and what it gives is computed once.",
)
@click.option("--seed", type=int, default=None, help="Seed instead of the recipe's.")
@click.option(
    "--shards",
    type=EXISTING_FOLDER,
    default=None,
    help="Train on a folder that `firstread prepare` wrote, without folds; beside it, --data is what the package of "
    "classes and outlines is measured on.",
)
@click.option("--cache", type=FOLDER, default=None, help="Keep decoded arrays here; of --shards, copies.")
@THREADS
@click.option("--mixed-precision", is_flag=True, help="float16 arithmetic on GPUs that gain by it.")
@click.option("--distribute", is_flag=True, help="All GPUs of this machine, with tf.distribute.")
@click.option("--wandb", "use_wandb", is_flag=True, help="Log to Weights & Biases too (extra `wandb`).")
@click.option(
    "--version",
    "package_version",
    default="1.0.0",
    show_default=True,
    callback=_version,
    help="Version of the package, as 1.2.3.",
)
def train(
    recipe: str,
    data: Path | None,
    shards: Path | None,
    out: Path | None,
    weights: str,
    start: Path | None,
    baseline: Path | None,
    external: tuple[Path, ...],
    join_: tuple[Path, ...],
    leave_out: str | None,
    folds: str | None,
    final: bool,
    steps: int | None,
    minutes: float | None,
    frozen_base: bool,
    seed: int | None,
    cache: Path | None,
    threads: int,
    mixed_precision: bool,
    distribute: bool,
    use_wandb: bool,
    package_version: str,
) -> None:
    """Train RECIPE (a shipped one by name, or a TOML file); go on where an earlier call with the same folder ended."""
    from training.package.order import Order
    from training.recipe import load_recipe
    from training.train import train_all

    log_to_terminal()
    if data is None and shards is None:
        raise click.UsageError("give --data or --shards")
    if steps is not None and minutes is not None:
        raise click.UsageError("--minutes settles the steps: give --steps or --minutes")
    if shards is not None and (
        folds is not None or not final or external or any(option is not None for option in (leave_out, start, baseline))
    ):
        raise click.UsageError("--folds, --leave-out, --start, --baseline, --external and --no-final go with --data")
    loaded = load_recipe(recipe)
    if steps is not None:
        warmup_steps = min(loaded.schedule.warmup_steps, steps // 10)
        own = {"steps": steps, "epochs": 0, "warmup_steps": warmup_steps}
        loaded = loaded.model_copy(update={"schedule": loaded.schedule.model_copy(update=own), "final_steps": steps})
    if leave_out is not None:
        loaded = loaded.model_copy(update={"leave_out": tuple(leave_out.split(","))})
    if frozen_base:
        loaded = loaded.model_copy(update={"frozen_base": True})
    if seed is not None:
        loaded = loaded.model_copy(update={"seed": seed})
    order = Order(
        recipe=loaded,
        data=data or Path(),
        shards=shards,
        measured=shards is not None and data is not None,
        out=out or Path("runs") / loaded.name,
        weights=weights,
        start=start,
        baseline=baseline,
        external=external,
        join=join_,
        cache=cache,
        folds=None if folds is None else tuple(folds.split(",")),
        final=final,
        threads=threads,
        mixed_precision=mixed_precision,
        distribute=distribute,
        wandb=use_wandb,
        minutes=minutes,
        version=package_version,
    )
    directory = train_all(order)
    click.echo(f"package: {directory}" if directory else f"run: {order.out}")


@click.command("evaluate")
@click.argument("package")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the data set.")
@click.option(
    "--dataset", "dataset_name", default=None, help="Reader of the data set; default: from the package's task."
)
@click.option(
    "--split", default=None, help="Only items of this split or fold; default: all, of chest films the test part."
)
@click.option(
    "--with",
    "partner",
    default=None,
    metavar="FOUR",
    help="The four-class package that joins a binary chest one; default: that of its card.",
)
@click.option("--out", type=FOLDER, default=Path("evaluation"), show_default=True, help="Folder of the report.")
@click.option(
    "--out-of-fold",
    "run",
    type=EXISTING_FOLDER,
    default=None,
    help="Evaluate a run's out-of-fold predictions; PACKAGE is then the recipe.",
)
@click.option(
    "--baseline",
    type=EXISTING_FOLDER,
    default=None,
    help="With --out-of-fold: another recipe's run on the same folds, to stand beside.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(
    package: str,
    data: Path,
    dataset_name: str | None,
    split: str | None,
    out: Path,
    run: Path | None,
    baseline: Path | None,
    as_json: bool,
    partner: str | None,
) -> None:
    """Measure PACKAGE (a folder, NAME or NAME/VERSION) on labelled data; writes evaluation.html and evaluation.json."""
    if baseline is not None and run is None:
        raise click.UsageError("--baseline goes with --out-of-fold")
    if run is not None:
        from training.head_ct.evaluate import evaluate_run

        page = evaluate_run(package, data, run, out, baseline)
    else:
        from training.evaluate import evaluate_package

        page = evaluate_package(package, data, dataset_name, split, out, partner)
    click.echo((out / "evaluation.json").read_text(encoding="utf-8") if as_json else f"report: {page}")


@click.command("prepare")
@click.argument("dataset_name", metavar="DATASET")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the data set.")
@click.option(
    "--recipe", default=None, help="Recipe whose input, labels and undersampling are used; default: the data set's own."
)
@click.option("--out", type=FOLDER, required=True, help="Folder of the shards and the report.")
@click.option("--shard-size", type=click.IntRange(min=1), default=512, show_default=True, help="Items in one shard.")
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Processes; 0: one a core.")
@click.option(
    "--undersample/--no-undersample",
    default=None,
    help="As many negatives as positives; default: what the recipe says.",
)
@click.option(
    "--patient-regex",
    default="",
    help="Of class_folders: its group finds the patient in a path; default: one a picture.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def prepare(
    dataset_name: str,
    data: Path,
    recipe: str | None,
    out: Path,
    shard_size: int,
    jobs: int,
    undersample: bool | None,
    patient_regex: str,
    as_json: bool,
) -> None:
    """Turn DATASET (chest_csv, chest_films, chest_folders, class_folders, covid_chestxray, ct_ich, ct_ich_two_windows,
    ham10000, kermany, nih, phe_sich, plain_csv, radiography or rsna) into TFRecord shards with a report.
    """
    from training.datasets.registry import require_reader
    from training.pipelines import recipe_for
    from training.recipe import load_recipe
    from training.shards.prepare import prepare_dataset

    require_reader(dataset_name)
    loaded = load_recipe(recipe or recipe_for(dataset_name))
    counts = prepare_dataset(dataset_name, data, loaded, out, shard_size, jobs, undersample, patient_regex)
    click.echo(json.dumps(counts, indent=2) if as_json else f"report: {out / 'report.html'}")
