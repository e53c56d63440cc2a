"""``card.md``: the card for people, generated from ``card.json`` and never written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.packages.card import Card

BRIEF = ("auc", "sensitivity", "specificity", "accuracy", "dice")
"""Figures of a comparison's rows on the page; the card has all."""


def render(card: Card) -> str:
    """Markdown of a card; every number in it comes from the card, of comparisons only the first ones."""
    parts = [
        f"# {card.name} {card.version}",
        "Generated from `card.json`. Decision support for research and triage tests; not a medical device.",
        f"- Pipeline: {card.pipeline}, task: {card.task}\n- Labels: {', '.join(card.labels)}\n"
        f"- Created: {card.created or 'not stated'}, code {card.code_version or 'not stated'}\n"
        f"- Licence of the weights: {card.licence or 'not stated'}\n- sha256: `{card.sha256}`",
        f"## Intended use\n\n{card.intended_use or 'Not stated.'}",
        "## Limits\n\n" + ("\n".join(f"- {limit}" for limit in card.limits) or "Not stated."),
        "## Input\n\n" + _table(card.input.model_dump(mode="json")),
        "## Network\n\n" + _table(card.architecture),
        "## Training data\n\n" + _table(card.training_data),
        "## Population\n\n" + _table(card.population),
        "## Operating points\n\n" + _points(card),
        "## Metrics\n\n" + _table(brief(card.metrics)),
        "## Calibration and parameters\n\n" + _table({**card.calibration.model_dump(), **card.parameters}),
    ]
    return "\n\n".join(parts) + "\n"


def brief(figures: Mapping[str, Any], inside: bool = False) -> dict[str, Any]:
    """The figures, with :data:`BRIEF` alone of what stands below a ``compared``."""
    shortened: dict[str, Any] = {}
    for name, value in figures.items():
        estimate = isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)
        if isinstance(value, Mapping) and not estimate:
            below = brief(value, inside or name == "compared")
            if below:
                shortened[name] = below
        elif not inside or name in BRIEF:
            shortened[name] = value
    return shortened


def _points(card: Card) -> str:
    if not card.operating_points:
        return "None."
    head = "| name | finding | threshold | sensitivity | specificity | N | chosen for |\n|---|---|---|---|---|---|---|"
    rows = [
        f"| {name} | {point.finding} | {point.threshold:.4g} | {_number(point.sensitivity)} | "
        f"{_number(point.specificity)} | {_number(point.n)} | {point.chosen_for} |"
        for name, point in card.operating_points.items()
    ]
    return "\n".join([head, *rows])


def _table(values: Mapping[str, Any]) -> str:
    rows = list(_rows(values))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]) if rows else "None."


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as dotted names; an estimate with its interval as one line."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        label = f"{prefix}{name}"
        if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
            parts = [] if value["low"] is None else [f"95 % CI {_number(value['low'])} to {_number(value['high'])}"]
            parts += [] if value.get("n") is None else [f"N {value['n']}"]
            rows.append((label, _number(value["value"]) + (f" ({', '.join(parts)})" if parts else "")))
        elif isinstance(value, Mapping):
            rows.extend(_rows(value, f"{label}."))
        else:
            rows.append((label, _number(value).replace("|", "/")))
    return rows


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
