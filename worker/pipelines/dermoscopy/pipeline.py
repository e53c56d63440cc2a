"""Skin lesions on photographs: the outline, seven diagnoses folded into three classes, and what is measured."""

from __future__ import annotations

from typing import Final

import numpy as np

from worker.packages.preprocessing.compose import compose
from worker.pipelines.base import Engine, NetworkInputs, OutputsByPackage, PipelineSteps, Served, ServedByTask
from worker.pipelines.dermoscopy.findings import interpret
from worker.pipelines.dermoscopy.gate import gate
from worker.pipelines.dermoscopy.photographs import Photograph, PhotographCandidate, network_view
from worker.pipelines.dermoscopy.selection import select
from worker.pipelines.ensemble import packages_of, shared_inputs

VIEWS: Final[dict[str, tuple[int, int]]] = {
    "plain": (1, 1),
    "mirrored": (1, -1),
    "upside_down": (-1, 1),
    "turned": (-1, -1),
}
"""Steps along rows and columns of each view of a picture; undone by the same steps."""


def preprocess(photographs: tuple[Photograph, ...], served: ServedByTask) -> NetworkInputs[None]:
    """Network input of each package, float32 (n, H, W, 3), one row a picture.

    Pictures wider than those that a package learnt from (``parameters["picture_width_px"]``) are reduced to it first.
    """

    def composed(package: Served) -> np.ndarray:
        views = [network_view(photograph, _width_px(package)) for photograph in photographs]
        return np.concatenate([compose(view, package.card.input) for view in views])

    def key(package: Served) -> str:
        return f"{package.card.input.model_dump_json()} {_width_px(package)}"

    return NetworkInputs(shared_inputs(packages_of(served), composed, key))


def _width_px(package: Served) -> int | None:
    width_px: int | None = package.card.parameters.get("picture_width_px")
    return width_px


def infer(inputs: NetworkInputs[None], served: ServedByTask, engine: Engine) -> OutputsByPackage:
    """Outputs of each package, the mean over the views on its card (``parameters["views"]``).

    ``p`` (n, labels) of a classifier, ``mask`` (n, h, w) of probabilities where the package outlines.
    """
    outputs = {}
    for package in packages_of(served):
        x = inputs.x[package.key]
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


STEPS: Final = PipelineSteps[tuple[PhotographCandidate, ...], tuple[Photograph, ...], None](
    select=select,
    gate=gate,
    preprocess=preprocess,
    infer=infer,
    interpret=interpret,
)
