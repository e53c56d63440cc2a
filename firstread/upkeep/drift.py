"""Drift: how far a day's studies lie from those that a model was made for, by modality and scanner.

The population stability index compares two histograms: sum of (p - q) ln(p / q) over their bins (Lewis, An
Introduction to Credit Scoring, 1994; usually read as: below 0.1 steady, above 0.25 changed).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.pipelines import leading_finding
from firstread.records import Database, DriftRow, Job, Result, Revision, Study
from firstread.records.studies import no_self_test
from firstread.settings import Settings
from firstread.states import JobState

ALL = "*"
LEAST_STUDIES = 20
"""Fewer studies on a day are not compared: by chance alone the index of ten bins is then about 0.5."""

REFERENCE_STUDIES = 200
"""A site's first studies with a model are the baseline of what its card has no histogram of."""

SMOOTHING = 0.5
QUANTITY_OF_STATISTIC = {"intensity": "intensity_mean", "thickness": "thickness_mm"}


@dataclass(frozen=True)
class Histogram:
    """Edges (n + 1) and counts (n) of a baseline; values outside of the edges count in the outer bins."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float], bins: int = 10) -> Histogram:
        """Bins of about equal share of the values."""
        edges = np.unique(np.quantile(np.asarray(values, float), np.linspace(0, 1, bins + 1)))
        if len(edges) < 2:
            edges = np.asarray([edges[0] - 0.5, edges[0] + 0.5])
        counts, _ = np.histogram(values, bins=edges)
        return cls(tuple(float(e) for e in edges), tuple(float(c) for c in counts))

    def count(self, values: Sequence[float]) -> tuple[float, ...]:
        """Counts of other values in the same bins."""
        inside = np.clip(np.asarray(values, float), self.edges[0], self.edges[-1])
        counts, _ = np.histogram(inside, bins=np.asarray(self.edges))
        return tuple(float(c) for c in counts)


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Population stability index of two lists of counts in the same bins; empty bins are smoothed by half a count."""
    p = np.asarray(expected, float) + SMOOTHING
    q = np.asarray(actual, float) + SMOOTHING
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


@dataclass(frozen=True)
class Baseline:
    """What a card says of the population: histograms by quantity, and how intensities were scaled."""

    pipeline: str
    name: str
    version: str
    histograms: Mapping[str, Histogram]
    scale: tuple[float, float] | None
    """(low, high) of the first window: card intensities are (value - low) / (high - low)."""


def read_baselines(settings: Settings) -> list[Baseline]:
    """Baselines of every package in the folders of models; a card that cannot be read is left out."""
    baselines = []
    for folder in dict.fromkeys((settings.models_dir, settings.home / "models")):
        for path in sorted(folder.glob("*/*/card.json")):
            baseline = _read_card(path)
            if baseline is not None:
                baselines.append(baseline)
    return baselines


def _read_card(path: Path) -> Baseline | None:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        histograms = {}
        for quantity, row in (card.get("baseline") or {}).items():
            edges, counts = tuple(map(float, row["edges"])), tuple(map(float, row["counts"]))
            if len(edges) == len(counts) + 1 and sum(counts) > 0 and list(edges) == sorted(set(edges)):
                histograms[str(quantity)] = Histogram(edges, counts)
        spec = card.get("input") or {}
        windows = spec.get("windows") or ()
        scale = (float(windows[0][0]), float(windows[0][1])) if spec.get("kind") == "hu" and windows else None
        return Baseline(str(card["pipeline"]), str(card["name"]), str(card["version"]), histograms, scale)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class _ScoredStudy:
    modality: str
    scanner: str
    values: dict[str, float]


def compute_drift(db: Database, settings: Settings, day: date) -> list[DriftRow]:
    """Compute a day's indices again, by model, quantity, modality and scanner, and keep them in ``drift``.

    Returns
    -------
    list of DriftRow
        Rows of groups with at least ``LEAST_STUDIES`` studies; ``*`` stands for all modalities and scanners.
    """
    drift: list[DriftRow] = []
    with db.read() as session:
        for baseline in read_baselines(settings):
            start = datetime.combine(day, time(), UTC)
            rows = _rows(session, baseline, start, start + timedelta(days=1))
            if len(rows) < LEAST_STUDIES:
                continue
            histograms = dict(baseline.histograms) | _site_reference(session, baseline, start)
            drift += _of_model(baseline, histograms, rows, day)
    with db.write() as session:
        session.execute(delete(DriftRow).where(DriftRow.day == day))
        session.add_all(drift)
    return drift


def _of_model(
    baseline: Baseline, histograms: Mapping[str, Histogram], rows: Sequence[_ScoredStudy], day: date
) -> list[DriftRow]:
    groups: dict[tuple[str, str], list[_ScoredStudy]] = {(ALL, ALL): list(rows)}
    for row in rows:
        groups.setdefault((row.modality, row.scanner), []).append(row)
    drift = []
    for (modality, scanner), members in groups.items():
        for quantity, histogram in histograms.items():
            values = [row.values[quantity] for row in members if quantity in row.values]
            if len(values) < LEAST_STUDIES:
                continue
            drift.append(
                DriftRow(
                    day=day,
                    pipeline=baseline.pipeline,
                    model_name=baseline.name,
                    model_version=baseline.version,
                    modality=modality,
                    scanner=scanner,
                    quantity=quantity,
                    n=len(values),
                    psi=psi(histogram.counts, histogram.count(values)),
                    computed_at=utcnow(),
                )
            )
    return drift


def _site_reference(session: Session, baseline: Baseline, before: datetime) -> dict[str, Histogram]:
    """Histograms of this site's first studies, for quantities that the card has none of."""
    rows = _rows(session, baseline, datetime(1970, 1, 1, tzinfo=UTC), before, REFERENCE_STUDIES)
    if len(rows) < REFERENCE_STUDIES:
        return {}
    quantities = {name for row in rows for name in row.values} - set(baseline.histograms)
    histograms = {}
    for quantity in sorted(quantities & {"score", "intensity", "thickness"}):
        values = [row.values[quantity] for row in rows if quantity in row.values]
        if len(values) >= REFERENCE_STUDIES // 2:
            histograms[quantity] = Histogram.of(values)
    return histograms


def _rows(
    session: Session, baseline: Baseline, start: datetime, end: datetime, limit: int | None = None
) -> list[_ScoredStudy]:
    query = (
        select(Result.probability, Job.statistics, Study.modality, Study.station_name, Study.manufacturer)
        .join(Job, Job.id == Result.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .join(Study, Study.id == Revision.study_id)
        .where(
            Job.pipeline == baseline.pipeline,
            Job.state == JobState.DONE.value,
            Job.carried_from.is_(None),
            Job.finished_at >= start,
            Job.finished_at < end,
            Result.run == Job.run,
            Result.role.in_(("active", "member", "shadow")),
            Result.model_name == baseline.name,
            Result.model_version == baseline.version,
            Result.finding == leading_finding(baseline.pipeline),
            no_self_test(Study.id),
        )
        .order_by(Job.finished_at)
        .limit(limit)
    )
    return [
        _ScoredStudy(modality or "", station or manufacturer or "", _values(baseline, p, statistics))
        for p, statistics, modality, station, manufacturer in session.execute(query)
    ]


def _values(baseline: Baseline, p: float | None, statistics: Mapping[str, float]) -> dict[str, float]:
    values = dict(_finite(statistics.items()))
    if p is not None:
        values["score"] = float(p)
    for quantity, statistic in QUANTITY_OF_STATISTIC.items():
        if statistic in values and quantity not in values:
            values[quantity] = values[statistic]
    if baseline.scale is not None and "intensity" in values:
        low, high = baseline.scale
        values["intensity"] = (values["intensity"] - low) / (high - low)
    return values


def _finite(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, float]]:
    for name, value in items:
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)
