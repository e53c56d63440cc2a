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
    alone: frozenset[str] = frozenset()
    """Modalities that say little: they count where the study has no other than these and ``modalities``."""

    def load(self) -> PipelineModule:
        return cast(PipelineModule, import_module(self.module))

    def wants(self, study: Study, forced_pipeline: str | None) -> bool:
        """Whether the study is this pipeline's business: asked for by a person, or by the modality of an instance."""
        if forced_pipeline is not None:
            return forced_pipeline == self.name
        found = {str(i.ds.get("Modality", "")).strip().upper() for i in study.instances}
        return bool(found & self.modalities) or (bool(found & self.alone) and found <= self.modalities | self.alone)


REGISTRY: tuple[PipelineRow, ...] = (
    PipelineRow("head_ct", "worker.pipelines.head_ct", frozenset({"CT"})),
    PipelineRow(
        "chest_xray", "worker.pipelines.chest_xray", frozenset({"CR", "DX", "DR", "RG"}), frozenset({"OT", "SC"})
    ),
    PipelineRow("dermoscopy", "worker.pipelines.dermoscopy", frozenset({"XC", "DMS"}), frozenset({"ES", "OT", "SC"})),
)


def row(name: str) -> PipelineRow:
    """The pipeline of that name; KeyError if there is none."""
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise KeyError(name)
