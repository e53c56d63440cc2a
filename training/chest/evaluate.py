"""``firstread evaluate`` for chest packages: test films as the service scores them, joined where the card asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firstread.errors import FirstreadError
from firstread.settings import Settings
from training.chest.by_source import Said, by_source, said_at
from training.chest.cases import binary_cases, package_cases
from training.chest.figures import AGE_GROUPS as PEOPLE
from training.chest.figures import (
    BINARY,
    age_groups,
    package_figures,
    patients_of,
    thresholds_of,
)
from training.chest.figures import binary_figures as binary
from training.chest.labels import CLASSES
from training.chest.package import INTERVALS
from training.datasets.base import UNREADABLE, DataSet, DataSetError, Item, gathered
from training.evaluation.heat import HEAT, heat_of
from training.evaluation.report import write_report
from training.evaluation.scoring import FLATTERED, EvaluationOrder, Measured
from worker.packages.card import Card
from worker.packages.operating_points import AGE_GROUPS, AgeGroup
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose, planes
from worker.packages.runtimes.base import Runtime
from worker.packages.store import find_package
from worker.pipelines.base import Served
from worker.pipelines.chest_xray.scores import combined_scores
from worker.pipelines.ensemble import ModelScores

BATCH = 32
ALL = "all"
"""Split that takes every film."""


def evaluate_films(order: EvaluationOrder) -> Path:
    """Score and measure; write the page and its JSON, and give back the page's path.

    Without a split the test part is taken, where the data have one; ``all`` takes every film. Without a partner the
    joint score is that with the package which the card of the binary one was joined with.

    Raises
    ------
    DataSetError
        If nothing is left to score, or the partner is not the one that the joint score was fitted with.
    """
    package, dataset = order.package, order.dataset
    items, selection = chosen_items(dataset, order.split)
    readable, pixels, left_out = read_films(dataset, items)
    other, notes = partner_of(package, order.partner, order.beside)
    p = scored(package, pixels)
    figures: dict[str, Any] = {"package": package.key, "left_out": len(left_out)}
    figures["by_source"] = by_source(readable, said_of(package.card, p, readable))
    films = np.stack([planes(film[None], package.card.input)[0, ..., 0] for film in pixels])

    def heat(row: int, label: str) -> np.ndarray | None:
        return heat_of(package, compose(pixels[row][None], package.card.input), label)

    cases = package_cases(package.card, readable, films, p, heat)
    if other is not None:
        four = scored(other, pixels)
        joint = joint_scores(package, other, p, four).of(BINARY)
        limits = joint_thresholds(package, other, p, four, readable)
        figures["joint_score"] = binary(readable, joint, limits)
        cases = binary_cases(readable, films, joint, limits, heat)
        figures["binary_model_alone"] = package_figures(package.card, readable, p)
    elif BINARY in package.card.labels:
        figures["binary_model_alone"] = package_figures(package.card, readable, p)
    else:
        figures["four_class_model"] = package_figures(package.card, readable, p)
    notes = [f"Package {package.key}, {selection}.", INTERVALS, *notes, FLATTERED, HEAT]
    return write_report(order.out, f"{package.key}: {selection}", notes, figures, cases)


def measured_films(order: EvaluationOrder) -> Measured:
    """What a package says of the films of a data set, for a comparison; the joint score where its partner is here."""
    package, dataset = order.package, order.dataset
    items, _ = chosen_items(dataset, order.split)
    readable, pixels, _ = read_films(dataset, items)
    p = scored(package, pixels)
    other, _ = partner_of(package, order.partner, order.beside)
    four = None if other is None else scored(other, pixels)
    name = "binary_model_alone" if BINARY in package.card.labels else "four_class_model"

    def of_drawn(drawn: Sequence[np.ndarray]) -> dict[str, Any]:
        rows = np.concatenate(drawn)
        films = [readable[i] for i in rows]
        figures: dict[str, Any] = {
            "by_source": by_source(films, said_of(package.card, p[rows], films), repeats=0),
            name: package_figures(package.card, films, p[rows], repeats=0),
        }
        if other is not None and four is not None:
            joint = joint_scores(package, other, p[rows], four[rows]).of(BINARY)
            limits = joint_thresholds(package, other, p[rows], four[rows], films)
            figures["joint_score"] = binary(films, joint, limits, repeats=0)
        return figures

    flagging = "joint_score" if other is not None else name
    flags = (
        tuple(f"{flagging}/{group}/sensitivity" for group in (*PEOPLE, "all")) if BINARY in package.card.labels else ()
    )
    return Measured(patients_of(readable), p, of_drawn, flags)


def chosen_items(dataset: DataSet, split: str | None) -> tuple[list[Item], str]:
    """Films of a part, and which part that is."""
    items = [item for item in gathered([dataset]) if item.labels]
    if split is None:
        split = "test" if any(item.split == "test" for item in items) else ALL
    chosen = items if split == ALL else [item for item in items if item.split == split]
    if not chosen:
        raise DataSetError(f"nothing to score: no labelled film of the part {split}")
    return chosen, f"{len(chosen)} films of the data set {dataset.name}, part {split}"


def read_films(dataset: DataSet, items: Sequence[Item]) -> tuple[list[Item], list[np.ndarray], dict[str, str]]:
    """Films that can be read, their pixels, and by key why others cannot."""
    readable, pixels, left_out = [], [], {}
    for item in items:
        try:
            pixels.append(dataset.pixels(item))
            readable.append(item)
        except UNREADABLE as error:
            left_out[item.key] = f"{type(error).__name__}: {error}"
    if not readable:
        raise DataSetError("nothing to score: no readable film")
    return readable, pixels, left_out


def scored(package: Runtime, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities (n, labels)."""
    batches = []
    for start in range(0, len(pixels), BATCH):
        batch = [compose(film[None], package.card.input) for film in pixels[start : start + BATCH]]
        batches.append(package.predict(np.concatenate(batch))["p"])
    return np.concatenate(batches).astype(np.float64)


def said_of(card: Card, p: np.ndarray, items: Sequence[Item]) -> Said:
    """What a package alone says of films, from its probabilities (n, labels)."""
    if BINARY not in card.labels:
        return Said(p_four=p[:, [card.labels.index(name) for name in CLASSES]])
    p_pneumonia = p[:, card.labels.index(BINARY)]
    flag = card.point(BINARY)
    return Said(p_pneumonia) if flag is None else said_at(p_pneumonia, thresholds_of(flag, items))


def partner_of(package: Runtime, named: str | None, beside: Path) -> tuple[Runtime | None, list[str]]:
    """The package of the joint score, or None, and what the report says of it.

    Raises
    ------
    DataSetError
        If one is named and the package joins no score.
    """
    blend = package.card.parameters.get("blend")
    if not blend or BINARY not in package.card.labels:
        if named is not None:
            raise DataSetError(f"{package.key} joins its score with no other package")
        return None, []
    wanted = named or partner_key(package)
    if wanted is None:
        return None, ["The card joins the score with a package that it does not name: give it with --with."]
    local = beside / wanted
    try:
        other = load(local if (local / "card.json").is_file() else find_package(wanted, Settings()))
    except FirstreadError as error:
        if named is not None:
            raise
        return None, [f"The joint score is not measured: {wanted} is not here ({error})."]
    return other, [f"The joint score with {other.key}, at its own threshold, is what is served."]


def partner_key(package: Runtime) -> str | None:
    """``name/version`` of the package that the card's joint score was fitted with."""
    partner = package.card.parameters["blend"].get("partner")
    if partner:
        return f"{partner['name']}/{partner['version']}"
    joined = [name for name in package.card.metrics if name.startswith("joined_with_")]
    return joined[0].removeprefix("joined_with_") if len(joined) == 1 else None


def joint_thresholds(
    package: Runtime, other: Runtime, own: np.ndarray, four: np.ndarray, items: Sequence[Item]
) -> np.ndarray:
    """The threshold of the joint score for each film (n,), by its age group; NaN where nothing flags."""
    served = {group: joint_scores(package, other, own, four, group).flag_threshold(BINARY) for group in AGE_GROUPS}
    limits = {group: np.nan if threshold is None else threshold for group, threshold in served.items()}
    return np.asarray([limits[group] for group in age_groups(items)])


def joint_scores(
    package: Runtime, other: Runtime, own: np.ndarray, four: np.ndarray, age_group: AgeGroup = "unknown"
) -> ModelScores:
    """The score that flags, as the pipeline joins it, with the threshold of an age group."""
    groups = {member.card.task: [Served(member.card)] for member in (package, other)}
    combined, alone = combined_scores(groups, {package.key: {"p": own}, other.key: {"p": four}}, age_group)
    if combined[BINARY] is alone:
        raise DataSetError(f"the joint score of {package.key} was not fitted with {other.key}")
    return combined[BINARY]
