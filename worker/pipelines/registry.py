"""The pipelines that there are. A new one is a module, a row here, and a test."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import cast

from worker.pipelines.base import PipelineModule, Study


@dataclass(frozen=True)
class PipelineRow:
    """One pipeline: where it lives, and which studies it wants to look at."""

    name: str
    module: str
    modalities: frozenset[str]

    def load(self) -> PipelineModule:
        return cast(PipelineModule, import_module(self.module))

    def wants(self, study: Study, forced_pipeline: str | None) -> bool:
        """Whether the study is this pipeline's business: asked for by a person, or by the modality of an instance."""
        if forced_pipeline is not None:
            return forced_pipeline == self.name
        return any(str(i.ds.get("Modality", "")).strip().upper() in self.modalities for i in study.instances)


REGISTRY: tuple[PipelineRow, ...] = (
    PipelineRow("head_ct", "worker.pipelines.head_ct", frozenset({"CT"})),
)


def row(name: str) -> PipelineRow:
    """The pipeline of that name; KeyError if there is none."""
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise KeyError(name)
