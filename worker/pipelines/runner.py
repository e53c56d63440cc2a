"""Runs a pipeline over one revision: the five functions in order, series after series until one passes its gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from firstread.dicom.files import patient_key
from firstread.dicom.pixels.reading import UnreadablePixels
from worker.errors import NoServingPackage
from worker.pipelines.base import (
    Details,
    Engine,
    Gate,
    Outcome,
    PipelineSteps,
    ScoredSeries,
    Series,
    SeriesNote,
    ServedByTask,
    StudyImages,
)
from worker.pipelines.finite import check_outcome, check_outputs
from worker.pipelines.reasons import Caution, Reason, Unsuitable, merge_codes
from worker.pipelines.registry import PipelineRow
from worker.pipelines.unread import sentence

STAGES = ("select", "gate", "preprocess", "infer", "interpret")

ObserveStage = Callable[[str, float], None]
Steps = PipelineSteps[object, object, object]


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
        Which images could not be read, and why, in words.
    details : mapping
        Numbers of the chosen series: ``thickness_mm``, ``n_slices`` ...
    seconds : dict
        Time spent by stage.
    """

    outcome: Outcome | None
    reasons: tuple[str, ...]
    notes: tuple[SeriesNote, ...]
    detail: str = ""
    details: Details = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def rejected(self) -> bool:
        """Whether no series passed."""
        return self.outcome is None


class _Clock:
    """Seconds by stage; a stage that is entered for several series adds up."""

    def __init__(self, observe: ObserveStage | None) -> None:
        self.seconds: dict[str, float] = {}
        self._observe = observe

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            if self._observe is not None:
                self._observe(name, spent)


@dataclass(frozen=True)
class _Attempt:
    """The outcome of one series, or the reasons against it; without its pixels, since a decoded volume is large."""

    outcome: Outcome | None
    reasons: tuple[str, ...]
    unread: str
    details: Details = field(default_factory=dict)
    scored_series: frozenset[str] = frozenset()
    unused_series: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def run(
    row: PipelineRow,
    study: StudyImages,
    served: ServedByTask,
    engine: Engine,
    observe_stage: ObserveStage | None = None,
    next_steps: Path | None = None,
) -> RunResult:
    """Score a revision with one pipeline.

    Parameters
    ----------
    row : PipelineRow
        Which pipeline.
    study : Study
        Instances with headers; pixel data are read from their files when a series is tried.
    served : mapping
        Packages by task.
    engine : Engine
        Runs packages.
    observe_stage : callable, optional
        Called with each stage's name and its seconds as it ends.
    next_steps : Path, optional
        The site's own sentences on what to do next.

    Raises
    ------
    NoServingPackage
        If nothing serves the pipeline.
    NonFiniteScore
        If a model, or anything made of its output, gave NaN or Inf.
    """
    if not any(served.values()):
        raise NoServingPackage(row.name)
    steps = row.load()
    clock = _Clock(observe_stage)
    with clock.stage("select"):
        selection = steps.select(study)
    reasons: list[str] = []
    unread: list[str] = []
    refused: dict[str, list[str]] = {}
    for series in selection.series:
        attempt = _attempt(steps, study, series, served, engine, next_steps, clock)
        outcome, against = attempt.outcome, attempt.reasons
        best_unread = Reason.UNREADABLE_PIXEL_DATA in reasons
        if outcome is not None and best_unread and _is_partial_negative(outcome):
            outcome, against = None, (str(Reason.UNREADABLE_PIXEL_DATA),)
        if outcome is not None:
            for uid, why in attempt.unused_series.items():
                refused.setdefault(uid, []).extend(why)
            detail = attempt.unread
            if best_unread:
                outcome.warnings = tuple(merge_codes(outcome.warnings, [Caution.UNREADABLE_SLICES]))
                detail = " ".join(dict.fromkeys([*unread, attempt.unread])).strip()
            notes = _notes(selection.notes, refused, attempt.scored_series)
            return RunResult(outcome, (), notes, detail, attempt.details, clock.seconds)
        unread += [attempt.unread] if attempt.unread else []
        reasons += against
        refused.setdefault(series.SeriesInstanceUID, []).extend(against)
    for note in selection.notes:
        reasons += note.reasons
    if not reasons:
        reasons.append(Reason.NO_IMAGES)
    if not unread and study.lost:
        total = len(study.instances) + len(study.lost)
        unread.append(sentence(total, "objects", [entry.cause for entry in study.lost]))
    notes = _notes(selection.notes, refused, set())
    detail = " ".join(dict.fromkeys(unread))
    return RunResult(None, tuple(merge_codes(reasons)), notes, detail, {}, clock.seconds)


def _attempt(
    steps: Steps,
    study: StudyImages,
    series: Series[object],
    served: ServedByTask,
    engine: Engine,
    next_steps: Path | None,
    clock: _Clock,
) -> _Attempt:
    """Try one series."""
    with clock.stage("gate"):
        gate = _gate(steps, study, series)
    if not gate.passed:
        return _Attempt(None, gate.reasons, gate.unread)
    try:
        outcome = _score(steps, study, series, gate, served, engine, next_steps, clock.stage)
    except Unsuitable as unsuitable:
        return _Attempt(None, (unsuitable.reason,), gate.unread)
    uids = gate.scored_series or {instance.SeriesInstanceUID for instance in series.instances}
    scored_uids = {*uids, outcome.SeriesInstanceUID or series.SeriesInstanceUID}
    details = {**series.details, **gate.details, **outcome.details}
    return _Attempt(outcome, (), gate.unread, details, frozenset(scored_uids), gate.unused_series)


def _gate(steps: Steps, study: StudyImages, series: Series[object]) -> Gate[object]:
    """A pipeline's gate. Pixel data that it did not expect to be unreadable are a reason all the same, no failure."""
    try:
        return steps.gate(study, series)
    except UnreadablePixels as error:
        return Gate((str(Reason.UNREADABLE_PIXEL_DATA),), unread=f"{str(error).capitalize()}.")


def _is_partial_negative(outcome: Outcome) -> bool:
    """Whether a series that does not show the whole head flags nothing: it stands for no other that was not read."""
    partial = {str(Caution.INCOMPLETE_COVERAGE), str(Reason.MISSING_SLICES)} & set(outcome.warnings)
    return bool(partial) and not any(finding.flagged for finding in outcome.findings)


def _score(
    steps: Steps,
    study: StudyImages,
    series: Series[object],
    gate: Gate[object],
    served: ServedByTask,
    engine: Engine,
    next_steps: Path | None,
    stage: Callable[[str], AbstractContextManager[None]],
) -> Outcome:
    with stage("preprocess"):
        inputs = steps.preprocess(gate.pixels, served)
    with stage("infer"):
        outputs = steps.infer(inputs, served, engine)
        check_outputs(outputs)
    with stage("interpret"):
        outcome = steps.interpret(
            ScoredSeries(
                study, series.SeriesInstanceUID, gate.pixels, inputs, outputs, served, engine, next_steps=next_steps
            )
        )
    check_outcome(outcome)
    outcome.warnings = tuple(merge_codes(study.warnings, _patients(study), gate.warnings, outcome.warnings))
    return outcome


def _patients(study: StudyImages) -> tuple[str, ...]:
    keys = {key for key in (patient_key(instance.ds) for instance in study.instances) if key is not None}
    return (Caution.PATIENT_MISMATCH,) if len(keys) > 1 else ()


def _notes(notes: Sequence[SeriesNote], refused: Mapping[str, list[str]], chosen: Set[str]) -> tuple[SeriesNote, ...]:
    return tuple(
        replace(
            note,
            chosen=note.SeriesInstanceUID in chosen,
            reasons=tuple(dict.fromkeys([*refused.get(note.SeriesInstanceUID, []), *note.reasons])),
        )
        for note in notes
    )
