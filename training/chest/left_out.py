"""Figures of hospitals that nobody trained on, put first on the card of what ships (``firstread train --external``).

What ships is trained on every hospital, so that none is left to test it on. The same recipe, trained once without each
hospital (``--leave-out``), tells how it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.datasets.arrays import Arrays
from training.datasets.base import EXTERNAL, DataSetError
from training.package.order import Order
from worker.packages.card import Card
from worker.packages.package import CARD, read_card
from worker.pipelines.chest_xray.findings import CONFOUNDED

LEFT_OUT = "left_out"
"""Key of the figures on a card; they stand before all others."""

CALLED_COVID = 0.15
"""Upper end of the interval of adults without finding of a left-out hospital who are called COVID-19, above which (or
without such adults) a package keeps the warning ``confounded_by_age``."""


def require_left_out(order: Order, arrays: Arrays) -> None:
    """Raise :class:`DataSetError` unless each run of ``--external`` holds what is to come onto the card."""
    for name in order.recipe.packages or ("",):
        left_out_cards([run / name for run in order.external])


def left_out_cards(runs: Sequence[Path]) -> list[Card]:
    """The cards of the packages that runs made, one a run.

    Raises
    ------
    DataSetError
        If a run holds none.
    """
    cards = []
    for run in runs:
        found = sorted((run / "package").glob(f"*/*/{CARD}"))
        if not found:
            raise DataSetError(f"{run} holds no package: train it to its end with --leave-out")
        cards.append(read_card(found[-1].parent))
    return cards


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
