"""``firstread chest left-out``: figures of hospitals that nobody trained on, put first on the card of what ships.

What ships is trained on every hospital, so that none is left to test it on. The same recipe, trained once without each
hospital (``firstread train ... --leave-out``), tells how it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from training.datasets.base import EXTERNAL, DataSetError
from training.options import EXISTING_FOLDER
from training.package.writing import rewrite_card
from worker.packages.card import Card
from worker.packages.package import load, read_card
from worker.pipelines.chest_xray.findings import CONFOUNDED

LEFT_OUT = "left_out"
"""Key of the figures on a card; they stand before all others."""

CALLED_COVID = 0.15
"""Upper end of the interval of adults without finding of a left-out hospital who are called COVID-19, above which (or
without such adults) a package keeps the warning ``confounded_by_age``."""


@click.command("left-out")
@click.argument("package", type=EXISTING_FOLDER)
@click.argument("measured", metavar="LEFT_OUT_PACKAGE...", nargs=-1, required=True, type=EXISTING_FOLDER)
def left_out(package: Path, measured: tuple[Path, ...]) -> None:
    """Put the external figures of each LEFT_OUT_PACKAGE, trained by the same recipe, first on the card of PACKAGE."""
    card = with_left_out(load(package).card, [read_card(folder) for folder in measured])
    rewrite_card(package, card)
    click.echo(f"{card.name} {card.version}: {', '.join(card.metrics[LEFT_OUT])}")
    if CONFOUNDED in card.parameters:
        click.echo(f"warning confounded_by_age: {'stays' if card.parameters[CONFOUNDED] else 'goes'}")


def with_left_out(card: Card, measured: Sequence[Card]) -> Card:
    """The card with the left-out hospitals' figures before its own, and what they say of confounding.

    Raises
    ------
    DataSetError
        If a measured package is of another task, network or input, or left nothing out.
    """
    tables: dict[str, Any] = {}
    for other in measured:
        key = f"{other.name}/{other.version}"
        if (other.task, other.architecture, other.input) != (card.task, card.architecture, card.input):
            raise DataSetError(f"{key} is of another task, network or input than {card.name}/{card.version}")
        figures = other.metrics.get(f"{EXTERNAL}_by_source")
        if not figures:
            raise DataSetError(f"{key} left no hospital out")
        tables |= {
            f"{hospital}, {other.training_data.get('steps', 'its')} steps": table for hospital, table in figures.items()
        }
    own = {name: value for name, value in card.metrics.items() if name != LEFT_OUT}
    parameters = dict(card.parameters)
    if "covid19" in card.labels:
        parameters[CONFOUNDED] = is_confounded(tables)
    return card.model_copy(update={"metrics": {LEFT_OUT: tables, **own}, "parameters": parameters})


def is_confounded(tables: Mapping[str, Any]) -> bool:
    """Whether some left-out hospital's adults without finding may be called COVID-19 too often, or none has any."""
    shares = [
        table["films"]["adult normal"]["called"]["covid19"]
        for table in tables.values()
        if "adult normal" in table["films"]
    ]
    return not shares or any(share["high"] is None or share["high"] > CALLED_COVID for share in shares)
