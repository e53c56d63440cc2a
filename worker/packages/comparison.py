"""Two cards beside each other, for the person who is about to change what serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.packages.card import Card
from worker.packages.operating_points import AGE_GROUPS, AgeGroupPoint, OperatingPoint, OperatingPointByAge

FLAG: Final = "flag"
FEW: Final = 0.25
"""Share of the present package's cases below which a new one's figures say little."""


@dataclass(frozen=True)
class FlagFigures:
    """What a card says of its flag; None where it says nothing. ``n`` counts the cases that the figures rest on.

    ``by_age`` holds the operating points by age, by their names; the other figures of such a card are those of nobody.
    """

    key: str
    n: int | None
    auc: float | None
    sensitivity: float | None
    specificity: float | None
    steps: int | None
    hint: bool = False
    by_age: Mapping[str, OperatingPointByAge] = field(default_factory=dict)

    def __str__(self) -> str:
        figures = [
            f"{name} {value:.3f}"
            for name, value in (("AUC", self.auc), ("sensitivity", self.sensitivity), ("specificity", self.specificity))
            if value is not None
        ]
        cases = "no number of cases" if self.n is None else f"{self.n} cases"
        steps = "" if self.steps is None else f", trained in {self.steps} steps"
        ages = "".join(f"; {name} by age: {_in_words(point)}" for name, point in self.by_age.items())
        hint = "; a hint, which flags nothing" if self.hint else ""
        return f"{self.key}: {', '.join(figures) or 'no figures of a flag'} ({cases}{steps}){hint}{ages}"


def _in_words(point: OperatingPointByAge) -> str:
    words = []
    for group in AGE_GROUPS:
        row = point.groups[group]
        shares = [("sensitivity", row.sensitivity), ("specificity", row.specificity)]
        figures = "".join(f", {name} {share.value:.3f} (N {share.n})" for name, share in shares if share is not None)
        limit = f"at {row.threshold:.4g}" if row.threshold is not None else f"no flag ({row.no_flag})"
        words.append(f"{group} {limit}{figures}")
    return ", ".join(words)


def figures_of(card: Card) -> FlagFigures:
    """The flag's figures on a card: of its operating point, and the AUC of the studies that it was chosen on."""
    point = next((p for name, p in card.operating_points.items() if name == FLAG or name.startswith(f"{FLAG}_")), None)
    measured = next(_at_flag(card.metrics), {})
    auc, sensitivity, specificity = (_value(measured.get(name)) for name in ("auc", "sensitivity", "specificity"))
    n = measured.get("n")
    by_age = {key: row for key, row in card.operating_points.items() if isinstance(row, OperatingPointByAge)}
    if isinstance(point, OperatingPointByAge):
        counted = [share.n for row in point.groups.values() for share in (row.sensitivity, row.specificity) if share]
        n = sum(counted) if n is None else n
    elif point is not None:
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
        isinstance(point, OperatingPoint) and point.is_hint,
        by_age,
    )


def doubts(new: FlagFigures, old: FlagFigures) -> list[str]:
    """Why a person should look again before ``new`` takes the place of ``old``: a sentence each."""
    sentences = []
    for name in ("auc", "sensitivity", "specificity"):
        before, after = getattr(old, name), getattr(new, name)
        if before is not None and (after is None or after < before) and not (after is None and new.by_age):
            now = "not on the card" if after is None else f"{after:.3f}"
            sentences.append(f"{name if name != 'auc' else 'AUC'} is {now}, was {before:.3f}")
    if new.hint and not old.hint:
        sentences.append("no flag (hint), where the active package flags")
    sentences += _doubts_by_age(new, old)
    if old.n is not None and (new.n is None or new.n < FEW * old.n):
        cases = "no number of cases" if new.n is None else f"{new.n} cases"
        sentences.append(f"its figures rest on {cases}, less than a quarter of {old.n}")
    return sentences


def _doubts_by_age(new: FlagFigures, old: FlagFigures) -> list[str]:
    """Age groups that lose their flag, or whose flag is worse than that of the same group, or of all ages, before."""
    after, before = (figures.by_age.get(FLAG) for figures in (new, old))
    if after is None:
        return [] if before is None else ["one threshold for all ages; the active package has one for each age group"]
    sentences = []
    for group in AGE_GROUPS:
        row, known = after.groups[group], None if before is None else before.groups[group]
        if row.threshold is None and (known is None or known.threshold is not None):
            sentences.append(f"no flag for age group {group} ({row.no_flag}), where the active package flags")
        for name in ("sensitivity", "specificity") if row.threshold is not None else ():
            now, was = _share_of(row, name), getattr(old, name) if known is None else _share_of(known, name)
            if now is not None and was is not None and now < was:
                sentences.append(f"{name} for age group {group} is {now:.3f}, was {was:.3f}")
    return sentences


def _share_of(point: AgeGroupPoint, name: str) -> float | None:
    share = getattr(point, name)
    return None if share is None else float(share.value)


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
