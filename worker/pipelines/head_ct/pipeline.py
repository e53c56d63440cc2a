"""Intracranial hemorrhage on plain head CT: any bleed and five kinds, its volume, and where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worker.packages.preprocessing.compose import Box, compose_boxed
from worker.pipelines.base import Engine, Gate, Outcome, Selection, Series, Served, Study
from worker.pipelines.head_ct import gate as head_ct_gate
from worker.pipelines.head_ct import selection
from worker.pipelines.head_ct.findings import interpret_head
from worker.pipelines.head_ct.stack import HeadStack

TASK = "bleed"


def select(study: Study) -> Selection:
    """Candidate series, the best first; the policy stands in :mod:`worker.pipelines.head_ct.selection`."""
    return selection.select(study)


def gate(study: Study, series: Series) -> Gate:
    """A head, whole enough, in Hounsfield units? See :mod:`worker.pipelines.head_ct.gate`."""
    return head_ct_gate.gate(study, series)


def preprocess(series: Series, served: Mapping[str, Sequence[Served]]) -> dict[str, np.ndarray]:
    """Network input for each package, float32 (m, H, W, C) in slice order; packages of one input spec share it."""
    head: HeadStack = series.pixels
    assert head.hu is not None, "gate decodes"
    made: dict[str, tuple[np.ndarray, list[Box]]] = {}
    out: dict[str, np.ndarray] = {}
    for package in packages(served):
        spec = package.card.input
        name = spec.model_dump_json()
        if name not in made:
            made[name] = compose_boxed(head.hu, spec)
        out[package.key], head.boxes[package.key] = made[name]
    return out


def infer(
    inputs: dict[str, np.ndarray], served: Mapping[str, Sequence[Served]], engine: Engine
) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of each package: ``p`` (m, labels) and, from a segmenter, ``mask`` (m, h, w) of probabilities."""
    return {package.key: engine.run(package.key, inputs[package.key]) for package in packages(served)}


def interpret(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
) -> Outcome:
    """Findings, slice scores and evidence; see :mod:`worker.pipelines.head_ct.findings`."""
    return interpret_head(study, series, inputs, outputs, packages(served), engine)


def packages(served: Mapping[str, Sequence[Served]]) -> list[Served]:
    """The active packages of task ``bleed`` and then the shadows of every task, each once.

    A package of another task, such as a baseline, is never part of what flags.
    """
    found = {
        package.key: package
        for task, group in served.items()
        for package in group
        if task == TASK or package.role == "shadow"
    }
    return sorted(found.values(), key=lambda package: package.role == "shadow")
