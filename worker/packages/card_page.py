"""``card.md``: the card for people, generated from ``card.json`` and never written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstread.report.predictive_value import right_by_card
from worker.packages.card import Card
from worker.packages.converted import Converted, Measurement, Precision, file_of
from worker.packages.operating_points import (
    AGE_GROUPS,
    LEAST_PREDICTIVE_VALUE,
    AgeGroupPoint,
    NoFlag,
    OperatingPoint,
    OperatingPointByAge,
    Share,
)

BRIEF = ("auc", "sensitivity", "specificity", "accuracy", "dice")
"""Figures of a comparison's rows on the page; the card has all."""

PAIRED = (*BRIEF, "recall", "melanoma_auc", "mean_iou", "mean_dice", "dice_positive")
"""Figures of a converted file beside the reference's on the page; the card has all."""

WHY_NO_FLAG: dict[NoFlag, str] = {
    "no_positives": "no validation films with the finding",
    "no_negatives": "no validation films without the finding",
    "no_threshold": "no threshold keeps the specificity and finds anybody",
    "hint": f"a hint: fewer than {LEAST_PREDICTIVE_VALUE:.0%} of flags would be right",
}
"""Why an age group has no flag, in words."""


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
        *(_converted(precision, row) for precision, row in card.converted.items()),
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


def differences(measurement: Measurement) -> list[tuple[str, str, str, str]]:
    """Figures of :data:`PAIRED` by reference and converted file, and the difference: place and three cells each."""
    return [
        (
            place,
            _number(row.reference),
            _number(row.converted),
            _estimate(row.difference.model_dump(exclude={"n"})),
        )
        for place, row in measurement.figures.items()
        if place.split("/")[-1] in PAIRED
    ]


def _converted(precision: Precision, row: Converted) -> str:
    """A converted file beside the reference: how it was made, and both columns of the figures."""
    programs = ", ".join(f"{name} {version}" for name, version in row.made_with.items())
    text = (
        f"## Converted to {precision} for OpenVINO\n\n"
        f"- File: `{file_of(precision)}`, {row.size_bytes / 1e6:.1f} MB, sha256 `{row.sha256}`\n"
        f"- Made: {row.created}, with {programs}"
    )
    if row.quantised_on:
        parts = ", ".join(row.quantised_on["parts"]) or "all"
        text += f"; ranges from {row.quantised_on['pictures']} pictures of {row.quantised_on['data']}, {parts}"
    measured = row.measurement
    if measured is None:
        return text + "\n- Not measured."
    allowed = ", ".join(f"{name} {value:g}" for name, value in row.tolerance.items())
    text += (
        f"\n- Measured on {measured.data}: {measured.cases} cases of {measured.patients} patients; figures of patients "
        f"that the package was trained on flatter both columns\n- Allowed loss: {allowed}; largest difference of a "
        f"probability: {_number(measured.largest_p_difference)}\n\n"
        f"| figure | reference | {precision} | difference |\n|---|---|---|---|"
    )
    return "\n".join([text, *(f"| {' | '.join(cells)} |" for cells in differences(measured))])


def _points(card: Card) -> str:
    if not card.operating_points:
        return "None."
    plain = {name: point for name, point in card.operating_points.items() if isinstance(point, OperatingPoint)}
    by_age = {name: point for name, point in card.operating_points.items() if isinstance(point, OperatingPointByAge)}
    parts = [_plain_points(plain)] if plain else []
    parts += [words for point in plain.values() if (words := _share_right(card, point))]
    return "\n\n".join([*parts, *(_point_by_age(name, point) for name, point in by_age.items())])


def _share_right(card: Card, point: OperatingPoint) -> str:
    """How many flags are right, in words; empty but for a flag of which that is known."""
    share, served_at = point.share_right, point.served_at
    if not share or served_at is None or card.point(point.finding) is not point:
        return ""
    words = right_by_card(point.finding, share, served_at.value)
    kind = "So it is a hint and flags nothing" if point.is_hint else "It is a flag all the same"
    return f"{words} {kind}. Share of flags that are right: {share:.4g}. The prevalence: {served_at.source}."


def _plain_points(points: Mapping[str, OperatingPoint]) -> str:
    head = "| name | finding | threshold | sensitivity | specificity | N | chosen for |\n|---|---|---|---|---|---|---|"
    rows = [
        f"| {name} | {point.finding} | {_plain_threshold(point)} | {_number(point.sensitivity)} | "
        f"{_number(point.specificity)} | {_number(point.n)} | {point.chosen_for} |"
        for name, point in points.items()
    ]
    return "\n".join([head, *rows])


def _plain_threshold(point: OperatingPoint) -> str:
    measured = _number(point.threshold)
    return f"no flag ({WHY_NO_FLAG['hint']}), measured at {measured}" if point.is_hint else measured


def _point_by_age(name: str, point: OperatingPointByAge) -> str:
    """A table with a column an age group, below a sentence on what it was chosen for and at which prevalence."""
    text = f"`{name}`, {point.finding} by age: {point.chosen_for}."
    if point.prevalence is not None:
        text += f" Predictive values are at a prevalence of {point.prevalence.value:.4g} ({point.prevalence.source})."
    groups = [point.groups[group] for group in AGE_GROUPS]
    kinds = dict.fromkeys(kind for group in groups for kind in group.sensitivity_of)
    rows: dict[str, list[str]] = {
        "threshold": [_threshold(group) for group in groups],
        "measured at": [
            _number(group.threshold if group.measured_at is None else group.measured_at) for group in groups
        ],
        "sensitivity": [_share(group.sensitivity) for group in groups],
        **{f"sensitivity, {kind}": [_share(group.sensitivity_of.get(kind)) for group in groups] for kind in kinds},
        "specificity, all without the finding": [_share(group.specificity) for group in groups],
        "specificity, normals": [_share(group.specificity_normals) for group in groups],
        "predictive value": [_number(group.predictive_value) for group in groups],
    }
    head = f"| | {' | '.join(AGE_GROUPS)} |\n|---|{'---|' * len(AGE_GROUPS)}"
    return "\n".join([text, "", head, *(f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items())])


def _threshold(group: AgeGroupPoint) -> str:
    return _number(group.threshold) if group.no_flag is None else f"no flag ({WHY_NO_FLAG[group.no_flag]})"


def _share(share: Share | None) -> str:
    return "–" if share is None else _estimate(share.model_dump())


def _estimate(value: Mapping[str, Any]) -> str:
    """An estimate with its interval and N in one line."""
    parts = [] if value["low"] is None else [f"95 % CI {_number(value['low'])} to {_number(value['high'])}"]
    parts += [] if value.get("n") is None else [f"N {value['n']}"]
    return _number(value["value"]) + (f" ({', '.join(parts)})" if parts else "")


def _table(values: Mapping[str, Any]) -> str:
    rows = list(_rows(values))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]) if rows else "None."


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as dotted names; an estimate with its interval as one line."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        label = f"{prefix}{name}"
        if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
            rows.append((label, _estimate(value)))
        elif isinstance(value, Mapping):
            rows.extend(_rows(value, f"{label}."))
        else:
            rows.append((label, _number(value).replace("|", "/")))
    return rows


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
