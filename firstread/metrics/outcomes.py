"""Figures about results: deliveries, acknowledgements, verdicts and drift, for the collector in ``state``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.pipelines import flags_by_itself, names
from firstread.records import Delivery, DriftRow, Flag
from firstread.records.clock import now_of
from firstread.states import UNDELIVERED

SLOW_FIGURES_S = 60.0
"""How long figures that read many rows are served from memory."""

DRIFT_DAYS = 7

Families = dict[str, GaugeMetricFamily]
Sample = tuple[str, list[str], float]


def families() -> Families:
    """Every figure of this module with its help."""
    rows = (
        ("firstread_open_deliveries", "Deliveries that are pending or failed, by kind.", ("kind", "outcome")),
        (
            "firstread_unacknowledged_age_seconds",
            "Age of the oldest flag that nobody acknowledged, old studies apart; 0 where there is none.",
            ("pipeline",),
        ),
        (
            "firstread_judged_studies",
            "Studies with a known truth for the leading finding, by outcome: true_positive, false_positive, ...",
            ("pipeline", "outcome"),
        ),
        ("firstread_sensitivity_ratio", "Of the judged studies, leading finding.", ("pipeline",)),
        ("firstread_specificity_ratio", "Of the judged studies, leading finding.", ("pipeline",)),
        ("firstread_ppv_ratio", "Of the judged studies that were called positive.", ("pipeline",)),
        (
            "firstread_positive_ratio",
            "Of all studies scored against a threshold, leading finding, this month.",
            ("pipeline",),
        ),
        (
            "firstread_drift_psi_ratio",
            "Population stability index of a quantity on the last day that has one, all scanners together.",
            ("pipeline", "model", "quantity"),
        ),
    )
    return {name: GaugeMetricFamily(name, help_text, labels=list(labels)) for name, help_text, labels in rows}


class OutcomeFigures:
    """Reads the figures; those over many rows at most once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: list[Sample] = []
        self._read_at: float | None = None

    def read(self, session: Session, into: Families) -> None:
        """Add the samples to the families of :func:`families`."""
        for name, labels, value in [*_quick(session), *self._slow(session)]:
            into[name].add_metric(labels, value)

    def _slow(self, session: Session) -> list[Sample]:
        with self._lock:
            if self._read_at is None or self._clock() - self._read_at > SLOW_FIGURES_S:
                self._samples = [*_verdicts(session), *_drift(session)]
                self._read_at = self._clock()
            return self._samples


def _quick(session: Session) -> list[Sample]:
    samples: list[Sample] = []
    counted = select(Delivery.kind, Delivery.state, func.count()).where(Delivery.state.in_(UNDELIVERED))
    for kind, state, number in session.execute(counted.group_by(Delivery.kind, Delivery.state)):
        samples.append(("firstread_open_deliveries", [kind, state], number))
    now = now_of(session)
    ages = dict.fromkeys(names(), 0.0)
    oldest = select(Flag.pipeline, func.min(Flag.flagged_at)).where(Flag.acknowledged_at.is_(None), Flag.old.is_(False))
    for pipeline, at in session.execute(oldest.group_by(Flag.pipeline)):
        ages[pipeline] = max(0.0, (now - at).total_seconds())
    samples += [("firstread_unacknowledged_age_seconds", [pipeline], age_s) for pipeline, age_s in ages.items()]
    return samples


def _verdicts(session: Session) -> list[Sample]:
    query = text(
        "SELECT pipeline, finding, month, n, positives, true_positive, false_positive, true_negative, false_negative "
        "FROM verdict_performance"
    )
    counts: dict[str, dict[str, int]] = {}
    month = f"{utcnow():%Y-%m}"
    for row in session.execute(query).mappings():
        if not flags_by_itself(row["pipeline"], row["finding"]):
            continue
        sums = counts.setdefault(row["pipeline"], {})
        for name in ("true_positive", "false_positive", "true_negative", "false_negative"):
            sums[name] = sums.get(name, 0) + int(row[name])
        if row["month"] == month:
            for name in ("n", "positives"):
                sums[name] = sums.get(name, 0) + int(row[name])
    samples: list[Sample] = []
    for pipeline, sums in counts.items():
        tp, fp, tn, fn = (sums[k] for k in ("true_positive", "false_positive", "true_negative", "false_negative"))
        for name in ("true_positive", "false_positive", "true_negative", "false_negative"):
            samples.append(("firstread_judged_studies", [pipeline, name], sums[name]))
        for name, part, whole in (
            ("firstread_sensitivity_ratio", tp, tp + fn),
            ("firstread_specificity_ratio", tn, tn + fp),
            ("firstread_ppv_ratio", tp, tp + fp),
            ("firstread_positive_ratio", sums.get("positives", 0), sums.get("n", 0)),
        ):
            if whole:
                samples.append((name, [pipeline], part / whole))
    return samples


def _drift(session: Session) -> list[Sample]:
    since = (utcnow() - timedelta(days=DRIFT_DAYS)).date()
    rows = session.scalars(
        select(DriftRow)
        .where(DriftRow.modality == "*", DriftRow.scanner == "*", DriftRow.day >= since)
        .order_by(DriftRow.day)
    )
    newest = {(r.pipeline, f"{r.model_name}/{r.model_version}", r.quantity): r.psi for r in rows}
    return [("firstread_drift_psi_ratio", list(key), psi) for key, psi in newest.items()]
