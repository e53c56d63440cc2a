"""Former names and labels of metrics, served beside their successors for one release."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import Metric

GONE_IN = "0.3.0"
"""The first release that serves none of what this module names."""

FORMER_NAMES = {"firstread_hand_jobs": "firstread_scoring_jobs"}
"""Former name of a metric to its name."""

FORMER_LABELS = {
    "firstread_deliveries": {"stage": "kind"},
    "firstread_delivery_seconds": {"stage": "kind"},
    "firstread_open_deliveries": {"stage": "kind"},
    "firstread_objects": {"stage": "kind"},
    "firstread_heartbeat_age_seconds": {"stage": "process"},
    "firstread_running_processes": {"stage": "process"},
    "firstread_drift_psi_ratio": {"stage": "quantity"},
}
"""Metric (a counter without ``_total``) to its former labels, each with the label that has the same value."""


class Collector(Protocol):
    """What a registry asks for metrics."""

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        ...


class WithFormerNames:
    """Another collector's metrics, and the former names and labels with the same values.

    A former label stands on the same series, so a sum over either label counts nothing twice.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        former_names = {name: former for former, name in FORMER_NAMES.items()}
        for metric in self._collector.collect():
            labels = FORMER_LABELS.get(metric.name)
            yield metric if labels is None else _with_labels(metric, labels)
            if metric.name in former_names:
                yield _renamed(metric, former_names[metric.name])


def _with_labels(metric: Metric, former_labels: dict[str, str]) -> Metric:
    twin = copy.copy(metric)
    twin.samples = [
        sample._replace(
            labels={**sample.labels, **{former: sample.labels[label] for former, label in former_labels.items()}}
        )
        for sample in metric.samples
    ]
    return twin


def _renamed(metric: Metric, former: str) -> Metric:
    twin = copy.copy(metric)
    twin.name = former
    twin.documentation = f"Until {GONE_IN}: {metric.name}."
    twin.samples = [sample._replace(name=sample.name.replace(metric.name, former, 1)) for sample in metric.samples]
    return twin
