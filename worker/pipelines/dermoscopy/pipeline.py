"""Skin lesions on photographs: the outline, seven diagnoses folded into three classes, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from worker.packages.preprocessing.compose import compose
from worker.pipelines.base import Engine, Gate, Outcome, Selection, Series, Served, Study
from worker.pipelines.dermoscopy import gate as dermoscopy_gate
from worker.pipelines.dermoscopy import selection
from worker.pipelines.dermoscopy.findings import interpret_lesions
from worker.pipelines.dermoscopy.selection import Photographs

VIEWS: dict[str, tuple[int, int]] = {"plain": (1, 1), "mirrored": (1, -1), "upside_down": (-1, 1), "turned": (-1, -1)}
"""Steps along rows and columns of each view of a picture; undone by the same steps."""


def select(study: Study) -> Selection:
    """All colour photographs of the study together; see :mod:`worker.pipelines.dermoscopy.selection`."""
    return selection.select(study)


def gate(study: Study, series: Series) -> Gate:
    """Readable, in colour, large enough, not empty? See :mod:`worker.pipelines.dermoscopy.gate`."""
    return dermoscopy_gate.gate(study, series)


def preprocess(series: Series, served: Mapping[str, Sequence[Served]]) -> dict[str, np.ndarray]:
    """Network input of each package, float32 (n, H, W, 3), one row a picture; equal input specs share it.

    Pictures wider than those that a package learnt from (``parameters["picture_width_px"]``) are reduced to it first.
    """
    photographs: Photographs = series.pixels
    made: dict[str, np.ndarray] = {}
    out = {}
    for package in packages(served):
        spec = package.card.input
        width_px = package.card.parameters.get("picture_width_px")
        name = f"{spec.model_dump_json()} {width_px}"
        if name not in made:
            views = [compose(dermoscopy_gate.network_view(picture, width_px), spec) for picture in photographs.pictures]
            made[name] = np.concatenate(views)
        out[package.key] = made[name]
    return out


def infer(
    inputs: dict[str, np.ndarray], served: Mapping[str, Sequence[Served]], engine: Engine
) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of each package, the mean over the views on its card (``parameters["views"]``).

    ``p`` (n, labels) of a classifier, ``mask`` (n, h, w) of probabilities where the package outlines.
    """
    outputs = {}
    for package in packages(served):
        x = inputs[package.key]
        sums: dict[str, np.ndarray] = {}
        names = package.card.parameters.get("views", ["plain"])
        for name in names:
            down, right = VIEWS[name]
            result = engine.run(package.key, np.ascontiguousarray(x[:, ::down, ::right]))
            for key in ("p", "mask"):
                if key in result:
                    value = result[key][:, ::down, ::right] if key == "mask" else result[key]
                    sums[key] = sums.get(key, 0.0) + value / len(names)
        outputs[package.key] = sums
    return outputs


def interpret(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
) -> Outcome:
    """Findings, scores of each picture and evidence; see :mod:`worker.pipelines.dermoscopy.findings`."""
    return interpret_lesions(study, series, inputs, outputs, packages(served), engine)


def packages(served: Mapping[str, Sequence[Served]]) -> list[Served]:
    """Every package that serves dermoscopy, active ones first, each once."""
    found = {package.key: package for group in served.values() for package in group}
    return sorted(found.values(), key=lambda package: package.role == "shadow")
