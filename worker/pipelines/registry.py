"""The pipelines as the worker knows them: each description with the folder that scores for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from firstread.dicom.modality import COLOUR, modality_of
from firstread.dicom.values import text
from firstread.pipelines import PIPELINES, Pipeline
from worker.pipelines.base import PipelineSteps, StudyImages


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
    """A pipeline in the worker: its description, the module of its five functions, and which studies it looks at."""

    described: Pipeline
    module: str

    @property
    def name(self) -> str:
        """As in the description."""
        return self.described.name

    def load(self) -> PipelineSteps[object, object, object]:
        """The five functions: the module's ``STEPS``."""
        return cast("PipelineSteps[object, object, object]", import_module(self.module).STEPS)

    def wants(self, study: StudyImages, orders: Orders) -> bool:
        """Whether the study is this pipeline's business: asked for by a person, or by the modality of an instance.

        What a sender's rule asks for is tried on every study that no other pipeline wants by its own modalities.
        """
        if orders.folder is not None:
            return orders.folder == self.name
        modalities = {modality_of(text(i.ds, "Modality", 16), i.SOPClassUID) for i in study.instances}
        own, alone = self.described.modalities, self.described.alone
        if modalities & own:
            return True
        if self.name in orders.sender:
            return not any(modalities & row.described.modalities for row in REGISTRY)
        if not (modalities & alone and modalities <= own | alone):
            return False
        ordered_in_colour = any(row.described.in_colour and orders.name(row.name) for row in REGISTRY)
        return self.described.in_colour or not (ordered_in_colour and _in_colour(study))


def _in_colour(study: StudyImages) -> bool:
    """Whether every picture of the study is stored as colours."""
    kinds = {text(i.ds, "PhotometricInterpretation", 32).upper() for i in study.instances if "Rows" in i.ds}
    return kinds <= COLOUR


def rows_of(descriptions: Iterable[Pipeline]) -> tuple[PipelineRow, ...]:
    """What only the worker knows of each pipeline: a module ``pipeline`` in the folder of its name."""
    return tuple(PipelineRow(each, f"worker.pipelines.{each.name}.pipeline") for each in descriptions)


REGISTRY = rows_of(PIPELINES)
"""All pipelines, the most urgent first."""


def row(name: str) -> PipelineRow:
    """The pipeline of that name; KeyError if there is none."""
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise KeyError(name)
