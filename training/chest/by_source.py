"""Figures by where a film comes from: hospital, age group, kind and view, and the contrasts within one hospital."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.chest.figures import age_groups, patients_of, share_of
from training.chest.labels import CLASSES
from training.datasets.base import Item
from training.evaluation import metrics

CONTRASTS = {"opacity_against_no_finding": "normal", "opacity_against_ill_without_opacity": "not_normal"}
"""Contrast -> kind that adults with opacity of the same hospital stand against: no hospital and no age tells them."""


@dataclass(frozen=True)
class Said:
    """What models say of films: any of it may be missing.

    Attributes
    ----------
    p : ndarray (n,)
        Probability of pneumonia.
    flagged : ndarray of bool (n,)
        Whether the pipeline flags.
    p_four : ndarray (n, 4)
        Probabilities of :data:`training.chest.labels.CLASSES`.
    judged : ndarray of bool (n,)
        Whether a film has a threshold: where it has none, that it is not flagged says nothing. All have one by default.
    """

    p: np.ndarray | None = None
    flagged: np.ndarray | None = None
    p_four: np.ndarray | None = None
    judged: np.ndarray | None = None


def said_at(p: np.ndarray, thresholds: np.ndarray, p_four: np.ndarray | None = None) -> Said:
    """What is said at the thresholds of :func:`training.chest.figures.thresholds_of`, NaN where nothing flags."""
    return Said(p, p >= thresholds, p_four, ~np.isnan(thresholds))


def by_source(items: Sequence[Item], said: Said, repeats: int | None = None) -> dict[str, Any]:
    """By hospital: the kinds that it has, its films by age group, kind and view, and its contrasts."""
    hospitals = _attribute(items, "hospital")
    tables: dict[str, Any] = {}
    for hospital in sorted(set(hospitals)):
        inside = hospitals == hospital
        kinds = _attribute(items, "kind")
        tables[hospital or "unknown"] = {
            "kinds": sorted(set(kinds[inside]) - {""}),
            "films": {name: _row(items, rows, said, repeats) for name, rows in _groups(items, inside)},
            **_contrasts(items, inside, said, repeats),
        }
    return tables


def _groups(items: Sequence[Item], inside: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Films of an age group and a kind, and those of each view where there are several."""
    ages, kinds, views = age_groups(items), _attribute(items, "kind"), _attribute(items, "view")
    for age, kind in sorted({(str(a), str(k)) for a, k in zip(ages[inside], kinds[inside], strict=True) if k}):
        rows = inside & (ages == age) & (kinds == kind)
        yield f"{age} {kind}", rows
        seen = sorted({str(view) for view in views[rows]} - {""})
        for view in seen if len(seen) > 1 else ():
            yield f"{age} {kind} {view}", rows & (views == view)


def _row(items: Sequence[Item], rows: np.ndarray, said: Said, repeats: int | None) -> dict[str, Any]:
    patients = patients_of(items)[rows]
    row: dict[str, Any] = {"n": int(rows.sum()), "patients": len(np.unique(patients))}
    if said.p is not None:
        row["median_p"] = round(float(np.median(said.p[rows])), 4)
    if said.flagged is not None:
        row |= _flagged(items, rows, said.flagged, said.judged, repeats)
    if said.p_four is not None:
        guess = said.p_four[rows].argmax(axis=1)
        row["called"] = {name: share_of(guess == i, patients, repeats) for i, name in enumerate(CLASSES)}
    return row


def _flagged(
    items: Sequence[Item], rows: np.ndarray, flagged: np.ndarray, judged: np.ndarray | None, repeats: int | None
) -> dict[str, Any]:
    """Share of the films with a threshold that are flagged, and how many have none."""
    known = rows if judged is None else rows & judged
    without = int(rows.sum() - known.sum())
    share = share_of(flagged[known], patients_of(items)[known], repeats)
    return {"flagged": share, **({"without_threshold": without} if without else {})}


def _contrasts(items: Sequence[Item], inside: np.ndarray, said: Said, repeats: int | None) -> dict[str, Any]:
    """AUC of adults with opacity against other adults of the hospital, by the binary score or against ``normal``."""
    score = said.p if said.p is not None else None if said.p_four is None else 1 - said.p_four[:, 0]
    if score is None:
        return {}
    adults, kinds, patients = inside & (age_groups(items) == "adult"), _attribute(items, "kind"), patients_of(items)
    tables = {}
    for name, against in CONTRASTS.items():
        y = kinds == "opacity"
        rows = adults & (y | (kinds == against))
        if 0 < y[rows].sum() < rows.sum():
            estimate = metrics.bootstrap(metrics.auc, patients[rows], y[rows].astype(int), score[rows], repeats=repeats)
            tables[name] = {"auc": estimate.as_dict(), "positive": int(y[rows].sum()), "n": int(rows.sum())}
    return {"adults": tables} if tables else {}


def _attribute(items: Sequence[Item], name: str) -> np.ndarray:
    return np.asarray([item.attributes.get(name, "") for item in items], dtype=object)
