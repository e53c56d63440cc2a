"""Two cards beside each other, for the person who is about to change what serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.packages.card import Card

FLAG: Final = "flag"
FEW: Final = 0.25
"""Share of the present package's cases below which a new one's figures say little."""


@dataclass(frozen=True)
class FlagFigures:
    """What a card says of its flag; None where it says nothing. ``n`` counts the cases that the figures rest on."""

    key: str
    n: int | None
    auc: float | None
    sensitivity: float | None
    specificity: float | None
    steps: int | None

    def __str__(self) -> str:
        figures = [
            f"{name} {value:.3f}"
            for name, value in (("AUC", self.auc), ("sensitivity", self.sensitivity), ("specificity", self.specificity))
            if value is not None
        ]
        cases = "no number of cases" if self.n is None else f"{self.n} cases"
        steps = "" if self.steps is None else f", trained in {self.steps} steps"
        return f"{self.key}: {', '.join(figures) or 'no figures of a flag'} ({cases}{steps})"


def figures_of(card: Card) -> FlagFigures:
    """The flag's figures on a card: of its operating point, and the AUC of the studies that it was chosen on."""
    point = next((p for name, p in card.operating_points.items() if name == FLAG or name.startswith(f"{FLAG}_")), None)
    measured = next(_at_flag(card.metrics), {})
    auc, sensitivity, specificity = (_value(measured.get(name)) for name in ("auc", "sensitivity", "specificity"))
    n = measured.get("n")
    if point is not None:
        sensitivity = point.sensitivity if sensitivity is None else sensitivity
        specificity = point.specificity if specificity is None else specificity
        n = point.n if n is None else n
    steps = card.training_data.get("steps")
    return FlagFigures(
        f"{card.name}/{card.version}",
        n if isinstance(n, int) else None,
        auc,
        sensitivity,
        specificity,
        steps if isinstance(steps, int) else None,
    )


def doubts(new: FlagFigures, old: FlagFigures) -> list[str]:
    """Why a person should look again before ``new`` takes the place of ``old``: a sentence each."""
    sentences = []
    for name in ("auc", "sensitivity", "specificity"):
        before, after = getattr(old, name), getattr(new, name)
        if before is not None and (after is None or after < before):
            now = "not on the card" if after is None else f"{after:.3f}"
            sentences.append(f"{name if name != 'auc' else 'AUC'} is {now}, was {before:.3f}")
    if old.n is not None and (new.n is None or new.n < FEW * old.n):
        cases = "no number of cases" if new.n is None else f"{new.n} cases"
        sentences.append(f"its figures rest on {cases}, less than a quarter of {old.n}")
    return sentences


def _at_flag(metrics: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Figures under a name that ends in ``at_flag``, the outermost first; those of parts of the patients never."""
    for name, value in metrics.items():
        if isinstance(value, Mapping) and name.endswith("at_flag") and "auc" in value:
            yield value
    for name, value in metrics.items():
        if isinstance(value, Mapping) and name != "compared":
            yield from _at_flag(value)


def _value(figure: Any) -> float | None:
    value = figure.get("value") if isinstance(figure, Mapping) else figure
    return float(value) if isinstance(value, int | float) else None
