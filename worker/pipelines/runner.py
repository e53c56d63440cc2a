"""Runs a pipeline over one revision: the five functions in order, series after series until one passes its gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from firstread.dicom.files import patient_key
from firstread.dicom.pixels.reading import UnreadablePixels
from worker.errors import NonFiniteScore, NoServingPackage
from worker.pipelines.base import Engine, Gate, Outcome, PipelineModule, Series, SeriesNote, Served, Study
from worker.pipelines.reasons import Caution, Reason, Unsuitable
from worker.pipelines.registry import PipelineRow
from worker.pipelines.unread import sentence

STAGES = ("select", "gate", "preprocess", "infer", "interpret")

ObserveStage = Callable[[str, float], None]


@dataclass(frozen=True)
class RunResult:
    """What came of a run: an outcome, or the reasons why there is none.

    Attributes
    ----------
    outcome : Outcome or None
        None where no series passed: a normal end, not an error.
    reasons : tuple of str
        Codes of :class:`worker.pipelines.reasons.Reason`, the best series' first. Empty with an outcome.
    notes : tuple of SeriesNote
        Every series of the study, with its reasons.
    detail : str
        More on the reasons, or on what was left out of the outcome, in words.
    details : dict
        Numbers of the chosen series: ``thickness_mm``, ``n_slices`` ...
    seconds : dict
        Time spent by stage.
    """

    outcome: Outcome | None
    reasons: tuple[str, ...]
    notes: tuple[SeriesNote, ...]
    detail: str = ""
    details: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def rejected(self) -> bool:
        return self.outcome is None


def run(
    row: PipelineRow,
    study: Study,
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
    observe_stage: ObserveStage | None = None,
) -> RunResult:
    """Score a revision with one pipeline.

    Parameters
    ----------
    row : PipelineRow
        Which pipeline.
    study : Study
        Instances with headers; pixel data are read from their files when a series is tried.
    served : mapping
        Packages by task, as the pipeline's functions take them.
    engine : Engine
        Runs packages.
    observe_stage : callable, optional
        Called with each stage's name and its seconds as it ends.

    Raises
    ------
    NoServingPackage
        If nothing serves the pipeline.
    NonFiniteScore
        If a model, or anything made of its output, gave NaN or Inf.
    """
    if not any(served.values()):
        raise NoServingPackage(row.name)
    module = row.load()
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            seconds[name] = seconds.get(name, 0.0) + spent
            if observe_stage is not None:
                observe_stage(name, spent)

    with stage("select"):
        selection = module.select(study)
    reasons: list[str] = []
    detail: list[str] = []
    refused: dict[str, list[str]] = {}
    for series in selection.series:
        with stage("gate"):
            passed = _gate(module, study, series)
        against = passed.reasons
        if passed.passed:
            try:
                outcome = _score(module, study, series, passed, served, engine, stage)
            except Unsuitable as unsuitable:
                against = (unsuitable.reason,)
            else:
                if Reason.UNREADABLE_PIXEL_DATA in reasons and _is_partial_negative(outcome):
                    against = (str(Reason.UNREADABLE_PIXEL_DATA),)
            if not against:
                for uid, why in series.refused.items():
                    refused.setdefault(uid, []).extend(why)
                chosen = {series.SeriesInstanceUID, *(instance.SeriesInstanceUID for instance in series.instances)}
                notes = _notes(selection.notes, refused, chosen)
                outcome.detail = passed.detail
                if Reason.UNREADABLE_PIXEL_DATA in reasons:
                    # The series that would have been scored first could not be read.
                    codes = dict.fromkeys([*outcome.warnings, str(Caution.UNREADABLE_SLICES)])
                    outcome.warnings = tuple(codes)
                    outcome.detail = " ".join(dict.fromkeys([*detail, passed.detail])).strip()
                return RunResult(outcome, (), notes, outcome.detail, dict(series.details), seconds)
        detail += [passed.detail] if passed.detail else []
        series.pixels = None  # a decoded volume is large, and the next series brings its own
        reasons += against
        refused.setdefault(series.SeriesInstanceUID, []).extend(against)
    for note in selection.notes:
        reasons += note.reasons
    if not reasons:
        reasons.append(str(Reason.NO_IMAGES))
    notes = _notes(selection.notes, refused, set())
    if not detail and study.lost:
        total = len(study.instances) + len(study.lost)
        detail.append(sentence(total, "objects", [entry.cause for entry in study.lost]))
    told = " ".join(dict.fromkeys(detail))
    return RunResult(None, tuple(dict.fromkeys(str(reason) for reason in reasons)), notes, told, {}, seconds)


def _gate(module: PipelineModule, study: Study, series: Series) -> Gate:
    """A pipeline's gate. Pixel data that it did not expect to be unreadable are a reason all the same, no failure."""
    try:
        return module.gate(study, series)
    except UnreadablePixels as error:
        return Gate((str(Reason.UNREADABLE_PIXEL_DATA),), (), f"{str(error).capitalize()}.")


def _is_partial_negative(outcome: Outcome) -> bool:
    """Whether a series that does not show the whole head flags nothing: it stands for no other that was not read."""
    partial = {str(Caution.INCOMPLETE_COVERAGE), str(Reason.MISSING_SLICES)} & set(outcome.warnings)
    return bool(partial) and not any(finding.flagged for finding in outcome.findings)


def _score(
    module: PipelineModule,
    study: Study,
    series: Series,
    passed: Gate,
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
    stage: Callable[[str], object],
) -> Outcome:
    with stage("preprocess"):  # type: ignore[attr-defined]
        inputs = module.preprocess(series, served)
    with stage("infer"):  # type: ignore[attr-defined]
        outputs = module.infer(inputs, served, engine)
    with stage("interpret"):  # type: ignore[attr-defined]
        outcome = module.interpret(study, series, inputs, outputs, served, engine)
    _check_finite(outcome)
    warnings = [*study.warnings, *_patients(study), *passed.warnings, *outcome.warnings]
    outcome.warnings = tuple(dict.fromkeys(str(code) for code in warnings))
    return outcome


def _patients(study: Study) -> tuple[str, ...]:
    keys = {key for key in (patient_key(instance.ds) for instance in study.instances) if key is not None}
    return (str(Caution.PATIENT_MISMATCH),) if len(keys) > 1 else ()


def _check_finite(outcome: Outcome) -> None:
    numbers = [n for f in outcome.findings for n in (f.probability, f.value) if n is not None]
    numbers += [score.probability for score in outcome.slice_scores]
    if not np.isfinite(numbers).all():
        raise NonFiniteScore("outcome")


def _notes(notes: Sequence[SeriesNote], refused: Mapping[str, list[str]], chosen: Set[str]) -> tuple[SeriesNote, ...]:
    return tuple(
        replace(
            note,
            chosen=note.SeriesInstanceUID in chosen,
            reasons=tuple(dict.fromkeys([*refused.get(note.SeriesInstanceUID, []), *note.reasons])),
        )
        for note in notes
    )
