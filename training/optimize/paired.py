"""Two runtimes of one package on the same patients: every figure of both, the difference, and what is too much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation import metrics
from training.evaluation.scoring import Measured
from training.progress import progress
from worker.packages.converted import Difference, Measurement, PairedFigure

GIVEN = frozenset(
    {
        *("threshold", "prevalence", "shares", "rules", "published", "compared", "baseline_always_normal"),
        *("curves", "calibration", "left_out"),
    }
)
"""Names in the figures that stand for data and not for what a package says of them."""
PARTS = frozenset({"by_source", "subgroups", "studies_by_subtype", "by_size", "sensitivity_by_finding"})
"""Figures of parts of the patients: measured, and not held to the tolerance, since one patient may be all of them."""


@dataclass(frozen=True)
class Tolerance:
    """What a converted file may lose against the reference.

    Attributes
    ----------
    auc : float
        Of every AUC of all patients. One that rests on so few pairs that a single pair weighs more is not held to it.
    patients : float
        Found at the flag.
    """

    auc: float = 0.003
    patients: float = 1.0


def compared(
    reference: Measured, converted: Measured, data: str, resamples: int, seed: int = 0
) -> tuple[Measurement, dict[str, Any]]:
    """Every figure by both, with the paired difference and its 95 % interval over resamples of the patients.

    Returns
    -------
    measurement : Measurement
    figures : dict
        The reference's, nested, of all patients.

    Raises
    ------
    ValueError
        If the two did not score the same cases.
    """
    if not np.array_equal(reference.patients, converted.patients):
        raise ValueError("the runtimes scored different cases")
    names, inverse = np.unique(reference.patients, return_inverse=True)
    cases = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    whole = reference.figures(cases)
    first, second = dict(flattened(whole)), dict(flattened(converted.figures(cases)))
    gaps: dict[str, list[float]] = {name: [] for name in first}
    rng = np.random.default_rng(seed)
    with progress("comparing", resamples) as advance:
        for _ in range(resamples):
            drawn = [cases[i] for i in rng.integers(0, len(cases), len(cases))]
            left, right = dict(flattened(reference.figures(drawn))), dict(flattened(converted.figures(drawn)))
            for name, found in gaps.items():
                found.append(right.get(name, math.nan) - left.get(name, math.nan))
            advance(1)
    figures = {
        name: PairedFigure(
            reference=_number(first[name]),
            converted=_number(second.get(name, math.nan)),
            difference=_difference(second.get(name, math.nan) - first[name], np.asarray(gaps[name]), len(names)),
        )
        for name in first
    }
    apart = np.abs(np.asarray(converted.p, dtype=np.float64) - reference.p)
    measurement = Measurement(
        data=data,
        cases=len(reference.patients),
        patients=len(names),
        resamples=resamples,
        figures=figures,
        largest_p_difference=float(apart.max()) if apart.size else None,
    )
    return measurement, whole


def flattened(figures: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, float]]:
    """Each figure by its place, names joined by slashes; NaN where it is not defined."""
    for name, value in figures.items():
        here = f"{place}{name}"
        if name in GIVEN:
            continue
        if isinstance(value, Mapping):
            if {"value", "low", "high"} <= set(value):
                yield here, math.nan if value["value"] is None else float(value["value"])
            else:
                yield from flattened(value, f"{here}/")
        elif isinstance(value, float):
            yield here, value


def too_much(
    measurement: Measurement, figures: Mapping[str, Any], flags: tuple[str, ...], tolerance: Tolerance
) -> list[str]:
    """What the converted file loses beyond the tolerance: a sentence each."""
    sentences = []
    for place, row in measurement.figures.items():
        loss = _loss(row)
        if place.split("/")[-1].endswith("auc") and not PARTS & set(place.split("/")):
            held = _pairs(figures, place) * tolerance.auc >= 1
            if held and loss > tolerance.auc:
                sentences.append(f"{place} falls by {loss:.4f}, more than {tolerance.auc:g}")
        if place in flags:
            lost = loss * _patients(figures, place)
            if lost > tolerance.patients + 1e-6:
                sentences.append(f"{place} falls by {lost:.1f} patients, more than {tolerance.patients:g}")
    return sentences


def _loss(row: PairedFigure) -> float:
    """How much lower the converted file's figure is; without one where the reference has one, everything."""
    if row.reference is None:
        return 0.0
    return math.inf if row.converted is None else row.reference - row.converted


def _at(figures: Mapping[str, Any], place: str) -> tuple[Mapping[str, Any], Any]:
    """What a figure stands in, and the figure."""
    *above, name = place.split("/")
    for part in above:
        figures = figures[part]
    return figures, figures[name]


def _pairs(figures: Mapping[str, Any], place: str) -> float:
    """Pairs of a case with and one without the finding behind an AUC; infinite where nothing counts them."""
    row, _ = _at(figures, place)
    if not {"positive", "n"} <= set(row):
        return math.inf
    return float(row["positive"] * (row["n"] - row["positive"]))


def _patients(figures: Mapping[str, Any], place: str) -> int:
    """Patients with the finding behind a sensitivity."""
    row, estimate = _at(figures, place)
    return int(estimate.get("patients") or row.get("patients_positive") or estimate["n"])


def _difference(value: float, gaps: np.ndarray, patients: int) -> Difference:
    estimate = metrics.Resampled(value, gaps, patients).estimate()
    return Difference.model_validate(estimate.as_dict())


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
