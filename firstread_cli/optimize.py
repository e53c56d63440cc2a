"""``firstread models optimize``: a faster file of a package's network, measured beside the reference."""

from __future__ import annotations

import json
from pathlib import Path

import click

from firstread.logs import log_to_terminal
from firstread.settings import Settings
from firstread_cli.audited import audited
from firstread_cli.tables import echo, print_table
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.card import PackageError
from worker.packages.card_page import differences
from worker.packages.converted import PRECISIONS, Precision


@click.command("optimize")
@click.argument("package")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the data set.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="int8",
    show_default=True,
    help="int8 is quantised on training data; fp16 keeps constants in half precision and computes as fp32 does; "
    "bf16 holds the same and computes in bfloat16, on processors that have it.",
)
@click.option(
    "--dataset", "dataset_name", default=None, help="Reader of the data set; default: from the package's task."
)
@click.option(
    "--split", default=None, help="Part that both are measured on; default: test, where there is one, or all."
)
@click.option(
    "--quantise-on", default=None, help="Part that int8 takes its ranges from; default: train, or all but the other."
)
@click.option("--pictures", type=click.IntRange(min=1), default=300, show_default=True, help="Number of those.")
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    default=None,
    help="Measure on so many patients at most, the same in every run; the card says how many.",
)
@click.option(
    "--resamples", type=click.IntRange(min=20), default=200, show_default=True, help="Of the patients, for an interval."
)
@click.option("--out", type=FOLDER, default=Path("optimization"), show_default=True, help="Folder of file and figures.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def optimize_command(
    package: str,
    data: Path,
    precision: Precision,
    dataset_name: str | None,
    split: str | None,
    quantise_on: str | None,
    pictures: int,
    limit: int | None,
    resamples: int,
    out: Path,
    as_json: bool,
) -> None:
    """Convert PACKAGE for FIRSTREAD_ENGINE=openvino and measure it beside TensorFlow on labelled data.

    The file becomes part of the package, and the card gets both columns, unless it loses more than 0.003 of an AUC or
    one patient at the flag: then it stays in the folder of the figures, and the command ends with 1. Needs the extra
    `optimize`.
    """
    from training.optimize.command import OptimizeOrder, optimize

    log_to_terminal()
    order = OptimizeOrder(
        package=package,
        data=data,
        out=out,
        precision=precision,
        dataset=dataset_name,
        split=split,
        quantise_on=quantise_on,
        pictures=pictures,
        limit=limit,
        resamples=resamples,
    )
    try:
        with audited(Settings(), "models.optimize") as detail:
            outcome = optimize(order)
            detail |= {"package": outcome.key, "precision": precision, "refused": outcome.refused}
    except PackageError as error:
        raise click.ClickException(str(error)) from error
    except ImportError as error:
        raise click.ClickException(f"{error.name} is not installed: it comes with the extra `optimize`") from error
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), indent=2))
    else:
        rows = differences(outcome.measurement)
        print_table(
            [dict(zip(("figure", "reference", precision, "difference"), row, strict=True)) for row in rows],
            ("figure", "reference", precision, "difference"),
        )
        echo(f"{outcome.size_bytes / 1e6:.1f} MB; every figure: {out / 'optimization.json'}")
    for sentence in outcome.refused:
        click.echo(f"refused: {sentence}", err=True)
    if outcome.refused:
        raise SystemExit(1)
    if not as_json:
        echo(f"{outcome.key} has it now: it may serve where FIRSTREAD_ENGINE is openvino")
