"""Figures of chest models: binary, four classes, and what the model says of adults without COVID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.chest.labels import CLASSES
from training.chest.readers import class_of
from training.datasets.base import Item
from training.evaluation import figures, metrics
from worker.packages.card import Card
from worker.packages.operating_points import AgeGroup, OperatingPoint, OperatingPointByAge
from worker.pipelines.ensemble import FALLBACK_THRESHOLD

BINARY = "pneumonia"
AGE_GROUPS: dict[str, AgeGroup] = {"children": "child", "adults": "adult", "age_unknown": "unknown"}
OF_CALLS = (
    "accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "false_negative_share_of_positives",
    "confusion",
    "f1",
)
"""Figures of what was called, for which a film needs a threshold."""


def patients_of(items: Sequence[Item]) -> np.ndarray:
    """Patient of each film, unique over data sets."""
    return np.asarray([f"{item.dataset}/{item.patient}" for item in items])


def age_groups(items: Sequence[Item]) -> np.ndarray:
    """``adult``, ``child`` or ``unknown`` for each film."""
    return np.asarray([item.attributes.get("age_group", "unknown") for item in items])


def is_adult(items: Sequence[Item]) -> np.ndarray:
    """Films of people known as adults."""
    return np.asarray(age_groups(items) == "adult")


def share_of(hits: np.ndarray, patients: np.ndarray, repeats: int | None = None) -> dict[str, Any]:
    """Share of films that hit, with an interval from resampling patients; ``n`` counts films.

    Where all or none hit a resample tells nothing: Wilson's interval of as many patients then.
    """
    hits = np.asarray(hits, dtype=bool)
    count = len(np.unique(patients))
    if 0 < hits.sum() < len(hits):
        estimate = metrics.mean(hits, patients, repeats)
    else:
        estimate = metrics.wilson(count if hits.any() else 0, count)
    return estimate.as_dict() | {"n": len(hits), "patients": count}


def thresholds_of(point: OperatingPoint | OperatingPointByAge | None, items: Sequence[Item]) -> np.ndarray:
    """The threshold of each film (n,), as it is served: NaN where nothing flags in the film's age group."""
    if point is None:
        return np.full(len(items), FALLBACK_THRESHOLD)
    by_group = {group: point.threshold_for(group) for group in AGE_GROUPS.values()}
    return np.asarray([np.nan if (t := by_group[group]) is None else t for group in age_groups(items)])


def binary_figures(
    items: Sequence[Item], p: np.ndarray, threshold: float | np.ndarray, repeats: int | None = None
) -> dict[str, Any]:
    """Pneumonia or not: by age group, on all films, and by kind of pneumonia. All intervals are by patient.

    Parameters
    ----------
    threshold : float or ndarray (n,)
        Of all films, or of each. Films with NaN are called neither and are in no figure of what was called;
        ``without_threshold`` counts them.
    """
    y = np.asarray([item.labels.get(BINARY, -1.0) for item in items])
    patients, groups = patients_of(items), age_groups(items)
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), len(items))
    called, judged = p >= limits, ~np.isnan(limits)
    rows: dict[str, Any] = {"threshold": _threshold_row(limits, groups)}
    parts = {name: groups == group for name, group in AGE_GROUPS.items()}
    for name, keep in (*parts.items(), ("all", np.ones(len(items), dtype=bool))):
        inside = keep & (y >= 0)
        if inside.any():
            rows[name] = figures.binary(y[inside], p[inside], patients[inside], called[inside], repeats)
            known = inside & judged
            if not judged[inside].all():
                part = figures.binary(y[known], p[known], patients[known], called[known], repeats)
                kept = {key: value for key, value in rows[name].items() if key not in OF_CALLS}
                rows[name] = kept | {key: part[key] for key in OF_CALLS if key in part}
                rows[name]["without_threshold"] = int((inside & ~judged).sum())
            if known.any():
                rows[name] |= _shares(y[known] == 1, called[known], patients[known], repeats)
    rows["sensitivity_by_finding"] = {
        kind: share_of(called[inside], patients[inside], repeats)
        for kind in CLASSES[1:]
        if (inside := judged & np.asarray([class_of(item) == kind for item in items])).any()
    }
    rows["baseline_always_normal"] = figures.always_negative(y)
    return rows


def _threshold_row(limits: np.ndarray, groups: np.ndarray) -> float | dict[str, float | None]:
    """The one threshold of all films, or that of each age group; None where there is none."""
    if len(limits) and np.all(limits == limits[0]):
        return float(limits[0])
    first = {name: limits[groups == group][:1] for name, group in AGE_GROUPS.items()}
    return {name: None if np.isnan(found[0]) else float(found[0]) for name, found in first.items() if len(found)}


def _shares(true: np.ndarray, called: np.ndarray, patients: np.ndarray, repeats: int | None) -> dict[str, Any]:
    """The proportions of :func:`training.evaluation.metrics.proportions`, intervals by patient."""
    return {
        name: share_of(hits[of], patients[of], repeats) for name, (hits, of) in figures.decisions(true, called).items()
    }


def four_class_truth(items: Sequence[Item]) -> np.ndarray:
    """Index of the class, -1 for films that are not in the four-class test: adults without finding, other germs."""
    truth = []
    for item in items:
        name = class_of(item)
        adult_normal = name == "normal" and item.attributes.get("age_group") == "adult"
        truth.append(-1 if name is None or adult_normal else CLASSES.index(name))
    return np.asarray(truth)


def four_class_figures(items: Sequence[Item], p: np.ndarray, repeats: int | None = None) -> dict[str, Any]:
    """Four classes, by patient; and two tables that show what age has to do with COVID."""
    patients, groups = patients_of(items), age_groups(items)
    adult, child = groups == "adult", groups == "child"
    truth = four_class_truth(items)
    rows: dict[str, Any] = {"four_classes": figures.multiclass(truth, p, CLASSES, patients, repeats)}
    guess = p.argmax(axis=1)
    known = truth >= 0
    rows["four_classes"]["accuracy"] = share_of(guess[known] == truth[known], patients[known], repeats)
    rows["by_class"] = {
        name: _class_row(truth[known] == i, guess[known] == i, patients[known], repeats)
        for i, name in enumerate(CLASSES)
    }
    rows["adults_without_covid"] = adults_without_covid(items, guess, repeats)
    rows["children_called_covid"] = share_of(guess[child] == CLASSES.index("covid19"), patients[child], repeats)
    inside = adult & np.asarray([item.labels.get("covid19", -1.0) >= 0 for item in items])
    covid = np.asarray([item.labels.get("covid19", -1.0) for item in items])
    rows["covid_among_adults"] = figures.binary(
        covid[inside],
        p[inside, CLASSES.index("covid19")],
        patients[inside],
        guess[inside] == CLASSES.index("covid19"),
        repeats,
    )
    return rows


def adults_without_covid(items: Sequence[Item], guess: np.ndarray, repeats: int | None = None) -> dict[str, Any]:
    """What the model calls adults who have no COVID: all of them, pooled by kind, and by their finding.

    A row of a kind has films and patients, what was called, and the share that was called COVID and that was called
    what it is; ``other germ`` are those whose germ is none of the classes.
    """
    rows = [
        (item, int(called))
        for item, called in zip(items, guess, strict=True)
        if item.attributes.get("age_group") == "adult" and item.labels.get("covid19") == 0.0
    ]
    kinds = {
        words: [row for row in rows if class_of(row[0]) == kind]
        for words, kind in (
            ("without finding", "normal"),
            ("bacterial", "bacterial"),
            ("viral, not COVID", "viral"),
            ("other germ", None),
        )
    }
    findings = sorted({item.attributes.get("finding", "") for item, _ in rows})
    pooled = {words: _adults(group, repeats) for words, group in kinds.items() if group}
    return {
        "called_covid": _called(rows, "covid19", repeats),
        "pooled": {"all": _adults(rows, repeats), **pooled} if rows else {},
        "by_finding": {
            name: _calls([row for row in rows if row[0].attributes.get("finding", "") == name]) for name in findings
        },
    }


Call = tuple[Item, int]


def _adults(rows: Sequence[Call], repeats: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {**_calls(rows), "patients": len(set(patients_of([item for item, _ in rows])))}
    row["called_covid"] = _called(rows, "covid19", repeats)
    classes = {class_of(item) for item, _ in rows}
    kind = classes.pop() if len(classes) == 1 else None
    return row | ({} if kind is None else {"called_what_it_is": _called(rows, kind, repeats)})


def _called(rows: Sequence[Call], name: str, repeats: int | None) -> dict[str, Any]:
    hits = np.asarray([called == CLASSES.index(name) for _, called in rows], dtype=bool)
    return share_of(hits, patients_of([item for item, _ in rows]), repeats)


def _calls(rows: Sequence[Call]) -> dict[str, int]:
    calls = [called for _, called in rows]
    return {"n": len(calls)} | {name: calls.count(i) for i, name in enumerate(CLASSES) if i in calls}


def _class_row(truth: np.ndarray, called: np.ndarray, patients: np.ndarray, repeats: int | None) -> dict[str, Any]:
    row = _shares(truth, called, patients, repeats)
    y = truth.astype(int)
    return {
        "recall": row["sensitivity"],
        "specificity": row["specificity"],
        "precision": row["precision"],
        "f1": metrics.f1(y, called),
        "n": int(y.sum()),
    }


def fit_figures(items: Sequence[Item], p: np.ndarray, threshold: float | np.ndarray | None) -> dict[str, Any]:
    """Accuracy on films that were trained on, beside which that on test films shows overfitting.

    ``p`` is (n,) of pneumonia with a threshold for all or each (NaN: left out), or (n, 4) in the order of the classes.
    """
    patients = patients_of(items)
    if threshold is not None:
        truth = np.asarray([item.labels.get(BINARY, -1.0) for item in items])
        guess, judged = (p >= threshold).astype(int), ~np.isnan(np.broadcast_to(threshold, len(items)))
    else:
        truth, guess = four_class_truth(items), p.argmax(axis=1)
        judged = np.ones(len(items), dtype=bool)
    known = judged & (truth >= 0)
    return {"accuracy": share_of(guess[known] == truth[known], patients[known], 300)}


def package_figures(card: Card, items: Sequence[Item], p: np.ndarray, repeats: int | None = None) -> dict[str, Any]:
    """Figures of a package's probabilities (n, labels): binary at the card's flag, or four classes."""
    scores = p.astype(np.float64)
    if BINARY in card.labels:
        thresholds = thresholds_of(card.point(BINARY), items)
        return binary_figures(items, scores[:, card.labels.index(BINARY)], thresholds, repeats)
    order = [card.labels.index(name) for name in CLASSES]
    return four_class_figures(items, scores[:, order], repeats)
