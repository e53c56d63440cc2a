"""What every pipeline is made of: five functions in one order, and the values that pass between them.

A pipeline is one :class:`PipelineSteps` value. :func:`worker.pipelines.runner.run` calls its functions in the order
``select``, ``gate``, ``preprocess``, ``infer``, ``interpret``. No step changes what an earlier one returned. Nothing
here imports TensorFlow or Celery, so that training can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.datasets import Content
from firstread.report.predictive_value import PredictiveValue
from worker.packages.card import Card

ImagesT = TypeVar("ImagesT")
"""What ``select`` found in the headers of one candidate: slices in their order, films, photographs."""

PixelsT = TypeVar("PixelsT")
"""What ``gate`` decoded of them."""

CropT = TypeVar("CropT")
"""Which part of an image the input of a network shows; ``None`` where it is always the whole image."""

Detail = str | float | bool | None
Details = Mapping[str, Detail]
"""Numbers and words worth keeping with the job: ``thickness_mm``, ``n_films``, ``view`` ..."""


@dataclass(frozen=True)
class StoredInstance:
    """One received object of a revision: its file and its header.

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
    content : Content or None
        The file as parsed for ``ds``, so that its frames are read without parsing it again; None: not known.
    """

    key: int
    path: Path
    ds: Dataset
    SOPInstanceUID: str
    SeriesInstanceUID: str
    SOPClassUID: str
    warnings: tuple[str, ...] = ()
    content: Content | None = None


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
class StudyImages:
    """The images of one revision of a study, as a pipeline sees them.

    ``forced`` is true where a person asked for this pipeline (``inbox/<pipeline>/`` or a setting): what can be scored
    at all is scored then, and doubts become warnings.
    """

    StudyInstanceUID: str
    revision: int
    instances: tuple[StoredInstance, ...]
    forced: bool = False
    warnings: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()

    def without(self, keys: Collection[int]) -> StudyImages:
        """The study without some of its instances."""
        return replace(self, instances=tuple(i for i in self.instances if i.key not in keys)) if keys else self

    def asked(self, forced: bool) -> StudyImages:
        """The same images, asked for by a person or not."""
        return replace(self, forced=forced) if self.forced != forced else self


@dataclass(frozen=True)
class Series(Generic[ImagesT]):
    """A candidate for scoring: usually one series.

    A pipeline whose views of one thing come in series of their own pools them: the instances are then those of all of
    them, and the UID is that of the first.
    """

    SeriesInstanceUID: str
    instances: tuple[StoredInstance, ...]
    images: ImagesT
    details: Details = field(default_factory=dict)


@dataclass(frozen=True)
class SeriesNote:
    """Why a series was chosen or not; stored with the job and shown by ``firstread study``."""

    SeriesInstanceUID: str
    chosen: bool
    reasons: tuple[str, ...]
    n_instances: int


@dataclass(frozen=True)
class Selection(Generic[ImagesT]):
    """Outcome of ``select``: suitable series, the best first, and a note on every series of the study."""

    series: tuple[Series[ImagesT], ...]
    notes: tuple[SeriesNote, ...]


@dataclass(frozen=True)
class Gate(Generic[PixelsT]):
    """Outcome of ``gate``: either reasons against scoring, or the decoded pixels. Warnings never hide a score.

    Attributes
    ----------
    unread : str
        A sentence on images that could not be read and why, free of patient data; empty where all were read.
    pixels : PixelsT or None
        None where the series is refused.
    details : mapping
        Added to those of the series.
    scored_series : frozenset of str
        Where series are pooled: UIDs of those of which anything is scored. Empty: all.
    unused_series : mapping
        Where series are pooled: why nothing of a series is scored, by its UID.
    """

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unread: str = ""
    pixels: PixelsT | None = None
    details: Details = field(default_factory=dict)
    scored_series: frozenset[str] = frozenset()
    unused_series: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against scoring."""
        return not self.reasons


@dataclass(frozen=True)
class Finding:
    """One study-level statement. Either ``probability`` or ``value`` with ``unit`` is set, never both.

    Where ``threshold`` is None, ``probability`` is compared with nothing: the finding is neither positive nor negative,
    and is not flagged.
    """

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
    """The series that the findings are about."""
    statistics: dict[str, float] = field(default_factory=dict)
    """Numbers for drift: ``intensity_mean``, ``thickness_mm`` ..."""
    details: Details = field(default_factory=dict)
    """Added to those of the series and the gate."""
    predictive_value: PredictiveValue | None = None
    """How often a flag as this one is right, by the cards; None where nothing flags, or nothing says so."""
    next_step: str = ""
    """The site's own sentence on what to do next, where the pipeline has one."""


class Engine(Protocol):
    """Runs a package on a batch. The worker's engine thread batches over studies; training calls the model directly.

    Every method raises :class:`worker.errors.NonFiniteScore` where a model gives NaN or Inf.
    """

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
        """``name/version``."""
        return f"{self.card.name}/{self.card.version}"


ServedByTask = Mapping[str, Sequence[Served]]
"""Packages by the task that they serve (``card.task``), the active first."""

OutputsByPackage = dict[str, dict[str, np.ndarray]]
"""What each package gave, by ``name/version``: arrays with one row an image."""


@dataclass(frozen=True)
class NetworkInputs(Generic[CropT]):
    """Outcome of ``preprocess``.

    Attributes
    ----------
    x : dict
        By package, float32 (n, H, W, C).
    crops : dict
        By package, which part of each image its input shows.
    """

    x: dict[str, np.ndarray]
    crops: dict[str, list[CropT]] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredSeries(Generic[PixelsT, CropT]):
    """Everything that ``interpret`` works on: one candidate, what the networks saw of it and what they gave.

    ``next_steps`` is the site's own file of sentences on what to do next, or None.
    """

    study: StudyImages
    SeriesInstanceUID: str
    pixels: PixelsT
    inputs: NetworkInputs[CropT]
    outputs: OutputsByPackage
    served: ServedByTask
    engine: Engine
    next_steps: Path | None = None


@dataclass(frozen=True)
class PipelineSteps(Generic[ImagesT, PixelsT, CropT]):
    """The five functions of a pipeline, in the order in which they are called."""

    select: Callable[[StudyImages], Selection[ImagesT]]
    gate: Callable[[StudyImages, Series[ImagesT]], Gate[PixelsT]]
    preprocess: Callable[[PixelsT, ServedByTask], NetworkInputs[CropT]]
    infer: Callable[[NetworkInputs[CropT], ServedByTask, Engine], OutputsByPackage]
    interpret: Callable[[ScoredSeries[PixelsT, CropT]], Outcome]
