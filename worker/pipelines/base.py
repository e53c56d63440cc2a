"""What every pipeline is made of: five functions in one order, and the values that pass between them.

A pipeline is a module with ``select``, ``gate``, ``preprocess``, ``infer`` and ``interpret``, called in that order by
:func:`worker.pipelines.runner.run`. Nothing here imports TensorFlow or Celery, so that training may use it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydicom.dataset import Dataset

from worker.packages.card import Card


@dataclass(frozen=True)
class Instance:
    """One received object of a revision.

    Attributes
    ----------
    key : int
        Our own row id (``instance.id``).
    path : Path
        Local file in the spool, readable.
    ds : Dataset
        Header without pixel data (``stop_before_pixels``), read once.
    warnings : tuple of str
        Codes noted at intake, e.g. ``meta_uid_mismatch``.
    """

    key: int
    path: Path
    ds: Dataset
    SOPInstanceUID: str
    SeriesInstanceUID: str
    SOPClassUID: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lost:
    """A received object whose file is gone or cannot be parsed: no pipeline sees more of it than this.

    Attributes
    ----------
    cause : str
        In words, free of patient data.
    """

    SeriesInstanceUID: str
    SOPClassUID: str
    instance_number: int | None
    cause: str


@dataclass(frozen=True)
class Study:
    """An immutable revision of a study, as a pipeline sees it.

    ``forced`` is true where a person asked for this pipeline (``inbox/<pipeline>/`` or a setting): what can be scored
    at all is scored then, and doubts become warnings.
    """

    StudyInstanceUID: str
    revision: int
    instances: tuple[Instance, ...]
    forced: bool = False
    warnings: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()

    def without(self, keys: Collection[int]) -> Study:
        """The study without some of its instances."""
        return replace(self, instances=tuple(i for i in self.instances if i.key not in keys)) if keys else self

    def asked(self, forced: bool) -> Study:
        """The same images, asked for by a person or not."""
        return replace(self, forced=forced) if self.forced != forced else self


@dataclass
class Series:
    """A candidate series in the order in which it will be scored, with whatever later steps attach to it.

    A pipeline whose views of one thing come in series of their own pools them: the instances are then those of all, and
    the UID becomes that of the series that the outcome is about.
    """

    SeriesInstanceUID: str
    instances: list[Instance]
    pixels: Any = None
    """Set by ``gate`` or ``preprocess``: e.g. the decoded volume, so that it is decoded once."""
    details: dict[str, Any] = field(default_factory=dict)
    """Numbers worth keeping with the job: ``thickness_mm``, ``spacing_mm``, ``orientation`` ..."""
    refused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Where several series of the study are scored as one: why nothing of a series was used, by its own UID."""


@dataclass(frozen=True)
class SeriesNote:
    """Why a series was chosen or left aside; stored with the job and shown by ``firstread study``."""

    SeriesInstanceUID: str
    chosen: bool
    reasons: tuple[str, ...]
    n_instances: int


@dataclass(frozen=True)
class Selection:
    """Outcome of ``select``: suitable series, the best first, and a note on every series of the study."""

    series: tuple[Series, ...]
    notes: tuple[SeriesNote, ...]


@dataclass(frozen=True)
class Gate:
    """Outcome of ``gate``: rejected if there is any reason; warnings never hide a score.

    ``detail`` says in words what a reason leaves open, such as why pixel data are unreadable, without patient data.
    """

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    detail: str = ""

    @property
    def passed(self) -> bool:
        return not self.reasons


@dataclass(frozen=True)
class Finding:
    """One study-level statement. Either ``probability`` or ``value`` with ``unit`` is set, never both."""

    name: str
    model_name: str
    model_version: str
    probability: float | None = None
    value: float | None = None
    unit: str | None = None
    threshold: float | None = None
    flagged: bool = False
    role: str = "active"
    """``active``, ``member`` (one model of an ensemble) or ``shadow`` (stored, never flags)."""


@dataclass(frozen=True)
class SliceScore:
    """Probability of one finding on one frame. ``frame`` is 0 for single-frame objects, else counted from 1."""

    instance_key: int
    frame: int
    instance_number: int | None
    finding: str
    probability: float
    model_name: str
    model_version: str
    role: str = "active"


@dataclass
class Evidence:
    """Pictures for people and arrays for DICOM objects.

    ``pictures`` maps a file stem to an RGB ``uint8`` array; the first is the one that ``evidence_path`` names.
    ``mask`` is ``bool`` with shape (n, H, W) at the source's own size, in the order of ``mask_keys``
    (pairs of instance key and frame).
    """

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    mask: np.ndarray | None = None
    mask_keys: tuple[tuple[int, int], ...] = ()
    mask_label: str = ""
    key_instance: int | None = None
    key_frame: int = 0


@dataclass
class Outcome:
    """Everything that one pipeline has to say about one revision. The worker commits it in one transaction."""

    findings: list[Finding]
    slice_scores: list[SliceScore] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)
    SeriesInstanceUID: str | None = None
    statistics: dict[str, float] = field(default_factory=dict)
    """Numbers for drift: ``intensity_mean``, ``thickness_mm`` ..."""
    detail: str = ""
    """What was left out of it and why, in words: :func:`worker.pipelines.unread.sentence`."""
    next_step: str = ""
    """The site's own sentence on what to do next, where the pipeline has one."""


class Engine(Protocol):
    """Runs a package on a batch. The worker's engine thread batches over studies; training calls the model directly."""

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``x`` (n, H, W, C) float32 with the package ``name/version``; the outputs have n rows each."""
        ...

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """Class-activation map of ``finding`` for ``x`` (n, H, W, C): float32 (n, h, w) in [0, 1]."""
        ...

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """That map and a second opinion from one pass: float32 (2, n, h, w) in [0, 1]."""
        ...


@dataclass(frozen=True)
class Served:
    """A loaded package as a pipeline uses it."""

    card: Card
    role: str = "active"

    @property
    def key(self) -> str:
        return f"{self.card.name}/{self.card.version}"


class PipelineModule(Protocol):
    """The five functions. ``served`` maps a task (``card.task``) to the packages that serve it, the active first."""

    def select(self, study: Study) -> Selection: ...

    def gate(self, study: Study, series: Series) -> Gate: ...

    def preprocess(self, series: Series, served: Mapping[str, Sequence[Served]]) -> dict[str, np.ndarray]: ...

    def infer(
        self, inputs: dict[str, np.ndarray], served: Mapping[str, Sequence[Served]], engine: Engine
    ) -> dict[str, dict[str, np.ndarray]]: ...

    def interpret(
        self,
        study: Study,
        series: Series,
        inputs: dict[str, np.ndarray],
        outputs: dict[str, dict[str, np.ndarray]],
        served: Mapping[str, Sequence[Served]],
        engine: Engine,
    ) -> Outcome: ...
