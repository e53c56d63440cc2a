"""Intracranial hemorrhage on plain head CT: any bleed and five kinds, its volume, and where it is."""

from __future__ import annotations

from typing import Final

from worker.packages.preprocessing.compose import compose_boxed
from worker.packages.preprocessing.crops import Box
from worker.pipelines.base import NetworkInputs, PipelineSteps, ServedByTask
from worker.pipelines.ensemble import infer_each, packages_of, shared_inputs
from worker.pipelines.head_ct.findings import TASK, interpret
from worker.pipelines.head_ct.gate import gate
from worker.pipelines.head_ct.hounsfield import HounsfieldVolume
from worker.pipelines.head_ct.selection import select
from worker.pipelines.head_ct.stack import HeadStack


def preprocess(volume: HounsfieldVolume, served: ServedByTask) -> NetworkInputs[Box]:
    """Network input for each package, float32 (m, H, W, C) in slice order, and the crop of each slab."""
    inputs = shared_inputs(packages_of(served, TASK), lambda package: compose_boxed(volume.hu, package.card.input))
    return NetworkInputs({key: x for key, (x, _) in inputs.items()}, {key: boxes for key, (_, boxes) in inputs.items()})


STEPS: Final = PipelineSteps[HeadStack, HounsfieldVolume, Box](
    select=select,
    gate=gate,
    preprocess=preprocess,
    infer=infer_each,
    interpret=interpret,
)
