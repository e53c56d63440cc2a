"""The pipelines that there are. A new one is a module, a row here, and a test."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Final, cast

from firstread.dicom.datasets import text
from firstread.dicom.modality import modality_of
from worker.pipelines.base import PipelineModule, Study

COLOUR: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT",
                           "YBR_RCT", "PALETTE COLOR"})  # fmt: skip
"""Values of Photometric Interpretation of pictures that are stored as colours, grey ones perhaps among them."""


@dataclass(frozen=True)
class Orders:
    """Who asked for a pipeline, whatever the headers say.

    Attributes
    ----------
    folder : str or None
        The inbox folder of the newest file that lay in one. Nothing else scores the study then.
    sender : frozenset of str
        What the site asks for for a sender of the study (``force_pipelines_by_calling_ae``).
    everywhere : frozenset of str
        What the site asks for for every study (``force_pipelines``).
    """

    folder: str | None = None
    sender: frozenset[str] = frozenset()
    everywhere: frozenset[str] = frozenset()

    def name(self, pipeline: str) -> bool:
        """Whether somebody asked for this pipeline."""
        return pipeline == self.folder or pipeline in self.sender or pipeline in self.everywhere


@dataclass(frozen=True)
class PipelineRow:
    """One pipeline: where it lives, and which studies it wants to look at."""

    name: str
    module: str
    modalities: frozenset[str]
    alone: frozenset[str] = frozenset()
    """Modalities that say little: they count where the study has no other than these and ``modalities``."""
    grey: bool = True
    """Whether its pictures are grey: a study of colours alone goes where it was asked for."""

    def load(self) -> PipelineModule:
        return cast(PipelineModule, import_module(self.module))

    def wants(self, study: Study, orders: Orders) -> bool:
        """Whether the study is this pipeline's business: asked for by a person, or by the modality of an instance.

        What is asked for for a sender is tried on all that no other pipeline claims by its own modalities.
        """
        if orders.folder is not None:
            return orders.folder == self.name
        found = {modality_of(text(i.ds, "Modality", 16), i.SOPClassUID) for i in study.instances}
        if found & self.modalities:
            return True
        if self.name in orders.sender:
            return not any(found & row.modalities for row in REGISTRY)
        if not (found & self.alone and found <= self.modalities | self.alone):
            return False
        ordered = any(orders.name(row.name) and not row.grey for row in REGISTRY)
        return not (self.grey and ordered and _in_colour(study))


def _in_colour(study: Study) -> bool:
    """Whether every picture of the study is stored as colours."""
    kinds = {text(i.ds, "PhotometricInterpretation", 32).upper() for i in study.instances if "Rows" in i.ds}
    return kinds <= COLOUR


REGISTRY: tuple[PipelineRow, ...] = (
    PipelineRow("head_ct", "worker.pipelines.head_ct.pipeline", frozenset({"CT"})),
    PipelineRow(
        "chest_xray",
        "worker.pipelines.chest_xray.pipeline",
        frozenset({"CR", "DX", "DR", "RG"}),
        frozenset({"OT", "SC"}),
    ),
    PipelineRow(
        "dermoscopy",
        "worker.pipelines.dermoscopy.pipeline",
        frozenset({"XC", "DMS"}),
        frozenset({"ES", "OT", "SC"}),
        grey=False,
    ),
)


def row(name: str) -> PipelineRow:
    """The pipeline of that name; KeyError if there is none."""
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise KeyError(name)
