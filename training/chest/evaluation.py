"""Figures of chest models: binary, four classes, and what the model says of adults without COVID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training import metrics
from training.chest.films import class_of
from training.chest.labels import CLASSES
from training.datasets.base import Item
from training.evaluation import figures
from training.evaluation.report import Miss
from worker.packages.card import Card

BINARY = "pneumonia"
AGE_GROUPS = {"children": "child", "adults": "adult", "age_unknown": "unknown"}


def patients_of(items: Sequence[Item]) -> np.ndarray:
    """Patient of each film, unique over data sets."""
    return np.asarray([f"{item.dataset}/{item.patient}" for item in items])


def age_groups(items: Sequence[Item]) -> np.ndarray:
    """``adult``, ``child`` or ``unknown`` for each film."""
    return np.asarray([item.attributes.get("age_group", "unknown") for item in items])


def is_adult(items: Sequence[Item]) -> np.ndarray:
    """Films of people known as adults."""
    return np.asarray(age_groups(items) == "adult")


def binary_figures(items: Sequence[Item], p: np.ndarray, threshold: float, repeats: int = 1000) -> dict[str, Any]:
    """Pneumonia or not: by age group, on all films, and by kind of pneumonia."""
    y = np.asarray([item.labels.get(BINARY, -1.0) for item in items])
    patients, groups = patients_of(items), age_groups(items)
    called = p >= threshold
    rows: dict[str, Any] = {"threshold": threshold}
    parts = {name: groups == group for name, group in AGE_GROUPS.items()}
    for name, keep in (*parts.items(), ("all", np.ones(len(items), dtype=bool))):
        if (y[keep] >= 0).any():
            rows[name] = figures.binary(y[keep], p[keep], patients[keep], called[keep], repeats)
    rows["sensitivity_by_finding"] = {
        kind: metrics.wilson(int(called[inside].sum()), int(inside.sum())).as_dict()
        for kind in CLASSES[1:]
        if (inside := np.asarray([class_of(item) == kind for item in items])).any()
    }
    rows["baseline_always_normal"] = figures.always_negative(y)
    return rows


def four_class_truth(items: Sequence[Item]) -> np.ndarray:
    """Index of the class, -1 for films that are not in the four-class test: adults without finding, other germs."""
    truth = []
    for item in items:
        found = class_of(item)
        adult_normal = found == "normal" and item.attributes.get("age_group") == "adult"
        truth.append(-1 if found is None or adult_normal else CLASSES.index(found))
    return np.asarray(truth)


def four_class_figures(items: Sequence[Item], p: np.ndarray, repeats: int = 1000) -> dict[str, Any]:
    """Four classes, by patient; and two tables that show what age has to do with COVID."""
    patients, groups = patients_of(items), age_groups(items)
    adult, child = groups == "adult", groups == "child"
    truth = four_class_truth(items)
    rows: dict[str, Any] = {"four_classes": figures.multiclass(truth, p, CLASSES, patients, repeats)}
    guess = p.argmax(axis=1)
    known = truth >= 0
    rows["by_class"] = {name: _class_row(truth[known] == i, guess[known] == i) for i, name in enumerate(CLASSES)}
    rows["adults_without_covid"] = adults_without_covid(items, guess)
    rows["children_called_covid"] = metrics.wilson(
        int((guess[child] == CLASSES.index("covid19")).sum()), int(child.sum())
    ).as_dict()
    inside = adult & np.asarray([item.labels.get("covid19", -1.0) >= 0 for item in items])
    covid = np.asarray([item.labels.get("covid19", -1.0) for item in items])
    rows["covid_among_adults"] = figures.binary(
        covid[inside], p[inside, CLASSES.index("covid19")], patients[inside],
        guess[inside] == CLASSES.index("covid19"), repeats,
    )  # fmt: skip
    return rows


def adults_without_covid(items: Sequence[Item], guess: np.ndarray) -> dict[str, Any]:
    """What the model calls adults who have no COVID, in all and by their finding."""
    rows = [
        (item.attributes.get("finding", ""), int(called))
        for item, called in zip(items, guess, strict=True)
        if item.attributes.get("age_group") == "adult" and item.labels.get("covid19") == 0.0
    ]
    covid = CLASSES.index("covid19")
    table: dict[str, Any] = {
        "called_covid": metrics.wilson(sum(called == covid for _, called in rows), len(rows)).as_dict()
    }
    for finding in sorted({name for name, _ in rows}):
        calls = [called for name, called in rows if name == finding]
        table[finding] = {"n": len(calls)} | {name: calls.count(i) for i, name in enumerate(CLASSES) if i in calls}
    return table


def _class_row(truth: np.ndarray, called: np.ndarray) -> dict[str, Any]:
    y = truth.astype(int)
    found = metrics.proportions(y, called)
    row = {name: found[name].as_dict() for name in ("sensitivity", "specificity", "precision")}
    return {"recall": row["sensitivity"], "specificity": row["specificity"], "precision": row["precision"],
            "f1": metrics.f1(y, called), "n": int(y.sum())}  # fmt: skip


def package_figures(card: Card, items: Sequence[Item], p: np.ndarray) -> dict[str, Any]:
    """Figures of a package's probabilities (n, labels): binary at the card's flag, or four classes."""
    scores = p.astype(np.float64)
    if BINARY in card.labels:
        threshold = card.threshold(BINARY)
        return binary_figures(items, scores[:, card.labels.index(BINARY)], 0.5 if threshold is None else threshold)
    order = [card.labels.index(name) for name in CLASSES]
    return four_class_figures(items, scores[:, order])


def worst(items: Sequence[Item], films: np.ndarray, p_true: np.ndarray, count: int = 12) -> list[Miss]:
    """Films whose true class got the least probability, one a patient.

    Parameters
    ----------
    films : ndarray (n, H, W) in [0, 1]
    p_true : ndarray (n,)
        Probability of the true class; NaN for films without one.
    """
    misses: list[Miss] = []
    seen: set[str] = set()
    for row in np.argsort(np.nan_to_num(p_true, nan=2.0)):
        item = items[row]
        if np.isnan(p_true[row]) or item.patient in seen:
            continue
        seen.add(item.patient)
        picture = np.round(films[row] * 255).astype(np.uint8)
        misses.append(Miss(picture, f"{item.attributes.get('finding', '')}: p of the truth {p_true[row]:.3f}"))
        if len(misses) == count:
            break
    return misses
