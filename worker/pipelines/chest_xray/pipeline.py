"""Pneumonia on frontal chest films: whether, of which kind, and what the model looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worker.pipelines.base import Engine, Gate, Outcome, Selection, Series, Served, Study
from worker.pipelines.chest_xray import gate as chest_xray_gate
from worker.pipelines.chest_xray import selection
from worker.pipelines.chest_xray.findings import interpret_films
from worker.pipelines.chest_xray.maps import Part, composed
from worker.pipelines.chest_xray.selection import Film


def select(study: Study) -> Selection:
    """The study's frontal films, the best first; the policy stands in :mod:`worker.pipelines.chest_xray.selection`."""
    return selection.select(study)


def gate(study: Study, series: Series) -> Gate:
    """A frontal chest, by its pixels? See :mod:`worker.pipelines.chest_xray.gate`."""
    return chest_xray_gate.gate(study, series)


def preprocess(series: Series, served: Mapping[str, Sequence[Served]]) -> dict[str, np.ndarray]:
    """Network input for each package, float32 (films, H, W, C); packages of one input spec share it."""
    films: list[Film] = series.pixels
    made: dict[str, tuple[np.ndarray, list[Part]]] = {}
    out: dict[str, np.ndarray] = {}
    for package in packages(served):
        spec = package.card.input
        name = spec.model_dump_json()
        if name not in made:
            made[name] = composed([film.grey for film in films if film.grey is not None], spec)
        out[package.key] = made[name][0]
        for film, part in zip(films, made[name][1], strict=True):
            film.parts[package.key] = part
    return out


def infer(
    inputs: dict[str, np.ndarray], served: Mapping[str, Sequence[Served]], engine: Engine
) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of each package: ``p`` (films, labels)."""
    return {package.key: engine.run(package.key, inputs[package.key]) for package in packages(served)}


def interpret(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
) -> Outcome:
    """Findings, film scores and evidence; see :mod:`worker.pipelines.chest_xray.findings`."""
    return interpret_films(study, series, inputs, outputs, served, engine)


def packages(served: Mapping[str, Sequence[Served]]) -> list[Served]:
    """Every package that serves chest films, active ones first, each once."""
    found = {package.key: package for group in served.values() for package in group}
    return sorted(found.values(), key=lambda package: package.role == "shadow")
