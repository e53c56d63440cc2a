"""Networks, heads, schedules and inputs against each other, on one split and one stated budget.

``firstread chest compare SUITE --data DIR --out DIR``. ``--minutes`` gives every variant the same time on all films,
``--passes`` the same number of passes over them. Without either each is trained to the end of a small budget (few films
and steps, small pictures); the table says so. ``--full`` takes the recipes as they stand, which wants a GPU. A row that
is finished is not trained again, and stands in the table whatever ``--only`` asks for. Beside its accuracy stands the
difference to the first row, film by film.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from firstread.logs import log_to_terminal
from training.chest.suites import BUDGETS, PUBLISHED_ROWS, SUITES, Budget, Variant, suite
from training.chest.variants import Calls, finished_variant, run_variant
from training.datasets.arrays import Arrays
from training.evaluation.report import write_table
from training.fit.transfer import WeightsError
from training.options import EXISTING_FOLDER, FOLDER, THREADS, settle_tensorflow

TIMED_PX, TIMED_BATCH = 128, 16
"""Side of pictures and films of a step where rows have minutes or passes."""
BESIDE_FIRST = "accuracy_minus_first_row"


def _usual(name: str) -> str:
    """A number of the small budget, and those of the suites that have another."""
    usual = getattr(Budget(), name)
    others = [f"{suite_name} {value}" for suite_name, b in BUDGETS.items() if (value := getattr(b, name)) != usual]
    return ", ".join([f"default {usual}", *others])


@click.command("compare")
@click.argument("suite_name", metavar="SUITE", type=click.Choice(["networks", *SUITES, "all"]))
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of the recipes' data sets.")
@click.option("--out", type=FOLDER, required=True, help="Folder of table and runs.")
@click.option(
    "--weights",
    default="none",
    show_default=True,
    help="Start of the big networks: imagenet, none, a file, or a folder with a file for each network.",
)
@click.option("--lite-weights", default="none", show_default=True, help="Start of EfficientNet-Lite0: PATH or none.")
@click.option(
    "--films", type=click.IntRange(min=1), default=None, help=f"Training films of the small budget ({_usual('films')})."
)
@click.option(
    "--test-films", type=click.IntRange(min=1), default=None, help=f"Its test films ({_usual('test_films')})."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=None,
    help=f"Its steps of {Budget.batch_size} films ({_usual('steps')}).",
)
@click.option(
    "--size", type=click.IntRange(min=1), default=None, help=f"The side of its pictures in pixels ({_usual('size')})."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    default=None,
    help="The same time for each row, on all films.",
)
@click.option("--passes", type=click.IntRange(min=1), default=None, help="The same passes over all films for each row.")
@click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(min=1),
    default=None,
    help=f"Films of a step (on all films {TIMED_BATCH}).",
)
@click.option("--full", is_flag=True, help="The recipes as they stand, on all films.")
@click.option("--only", multiple=True, metavar="ROW", help="Only rows whose name holds this; repeatable.")
@click.option("--cache", type=FOLDER, default=None, help="Keep arrays here.")
@THREADS
def compare(
    suite_name: str,
    data: Path,
    out: Path,
    weights: str,
    lite_weights: str,
    films: int | None,
    test_films: int | None,
    steps: int | None,
    size: int | None,
    minutes: float | None,
    passes: int | None,
    batch_size: int | None,
    full: bool,
    only: tuple[str, ...],
    cache: Path | None,
    threads: int,
) -> None:
    """Train every variant of SUITE (or of every one) on one budget and print the comparison, time included."""
    log_to_terminal()
    settle_tensorflow(threads)
    if minutes is not None or passes is not None:
        if full or films or test_films or steps or (minutes is not None and passes is not None):
            raise click.UsageError(
                "--minutes and --passes take all films, and settle the steps: give one of them alone"
            )
        size, batch_size = size or TIMED_PX, batch_size or TIMED_BATCH
    asked: dict[str, Any] = {
        "films": films,
        "test_films": test_films,
        "steps": steps,
        "size": size,
        "minutes": minutes,
        "passes": passes,
        "batch_size": batch_size,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    names = ("networks", *SUITES) if suite_name == "all" else (suite_name,)
    suites = {name: suite(name, weights, lite_weights) for name in names}
    _require_row(only, [variant.name for variants in suites.values() for variant in variants])
    opened: dict[str, Arrays] = {}
    for name, variants in suites.items():
        budget = None if full else replace(BUDGETS.get(name, Budget()), **given)
        runs = out / "runs" / name if suite_name == "all" else out / "runs"
        path: Path | None = None
        rows: list[dict[str, Any]] = []
        first: Calls | None = None
        for variant in variants:
            found: tuple[dict[str, Any], Calls | None] | None
            if not only or any(part in variant.name for part in only):
                found = _row(variant, budget, data, runs, cache, opened)
            else:
                found = finished_variant(variant, budget, data, runs)
            if found is None:
                continue
            row, calls = found
            if calls is not None and first is not None:
                row = row | {BESIDE_FIRST: calls.minus(first)}
            first = first or calls
            rows.append(row)
            beside = [PUBLISHED_ROWS[name]] if name in PUBLISHED_ROWS and (budget is None or budget.all_films) else []
            path = write_table(out, name, f"Comparison: {name}", str(budget or "the recipes in full"), rows + beside)
            click.echo(f"{variant.name}: {row.get('note') or format(row['accuracy']['value'], '.3f')}")
        if path is not None:
            click.echo(path.read_text(encoding="utf-8"))


def _require_row(only: Sequence[str], names: Sequence[str]) -> None:
    for part in only:
        if not any(part in name for name in names):
            raise click.UsageError(f"no row has {part!r} in its name; there are: {', '.join(names)}")


def _row(
    variant: Variant, budget: Budget | None, data: Path, folder: Path, cache: Path | None, opened: dict[str, Arrays]
) -> tuple[dict[str, Any], Calls | None]:
    """:func:`run_variant`; a row that says so where the starting weights do not fit, so that the others are run."""
    try:
        return run_variant(variant, budget, data, folder, cache, opened)
    except WeightsError as error:
        return {"network": variant.name, "note": str(error)}, None
