"""Several packages of one task: their mean, the role of each, and the rows that are stored of them.

Active packages are averaged, and the mean is what is said of the study. Where it is not the score of one package, each
active package is also stored for itself, in the role ``member``. Shadow packages are stored and never flag. A pipeline
supplies the scores of each package and says which image gives the scores of the study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import numpy as np

from firstread.dicom.values import small_integer
from firstread.report.predictive_value import PredictiveValue
from worker.errors import NoServingPackage
from worker.packages.operating_points import AgeGroup
from worker.pipelines.base import (
    Engine,
    Finding,
    NetworkInputs,
    OutputsByPackage,
    Served,
    ServedByTask,
    SliceScore,
    StoredInstance,
)

FALLBACK_THRESHOLD: Final = 0.5
"""Where a card has no operating point at all for the finding that flags. It is stored with the score as every other
threshold is: a score without a threshold is never compared with one."""

T = TypeVar("T")


@dataclass(frozen=True)
class ModelScores:
    """What one package, or the mean of several, says.

    Attributes
    ----------
    p : ndarray of float64, shape (n, labels)
        Probabilities of each image.
    thresholds : mapping
        By label; those without an operating point are missing, None is an operating point at which nothing flags.
    p_study : mapping
        Probabilities of the study by label; empty until it is known which image gives them.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    p: np.ndarray
    thresholds: Mapping[str, float | None]
    p_study: Mapping[str, float] = field(default_factory=dict)

    def of(self, label: str) -> np.ndarray:
        """Probability of a label for each image: (n,)."""
        return np.asarray(self.p[:, self.labels.index(label)])

    def flag_threshold(self, label: str) -> float | None:
        """Where the label flags; None where it never does."""
        return self.thresholds.get(label, FALLBACK_THRESHOLD)

    def flags(self, label: str) -> bool:
        """Whether the study reaches the threshold of the label; False where there is none."""
        threshold = self.flag_threshold(label)
        return threshold is not None and self.p_study[label] >= threshold

    def at(self, image: int) -> ModelScores:
        """These scores, with those of one image as the study's."""
        return replace(self, p_study={label: float(self.p[image, i]) for i, label in enumerate(self.labels)})


RoledScores = tuple[str, ModelScores]
"""A role (``active``, ``member`` or ``shadow``) and the scores that are stored under it."""


@dataclass(frozen=True)
class ScoredFrame:
    """A frame of an instance, and the row of the scores that holds its probabilities.

    ``number`` is 0 for single-frame objects, else counted from 1.
    """

    instance: StoredInstance
    number: int
    row: int


def packages_of(served: ServedByTask, task: str | None = None) -> list[Served]:
    """Packages of every task, the active first, each once.

    With a ``task`` active packages of other tasks, such as baselines, are left out; shadows of every task stay.
    """
    packages = {
        package.key: package
        for name, group in served.items()
        for package in group
        if task in (None, name) or package.role == "shadow"
    }
    return sorted(packages.values(), key=lambda package: package.role == "shadow")


def shared_inputs(
    packages: Sequence[Served], compose: Callable[[Served], T], key: Callable[[Served], str] | None = None
) -> dict[str, T]:
    """What ``compose`` makes for each package; packages whose ``key`` (their input spec) is the same share it."""
    inputs: dict[str, T] = {}
    composed: dict[str, T] = {}
    for package in packages:
        name = package.card.input.model_dump_json() if key is None else key(package)
        if name not in composed:
            composed[name] = compose(package)
        inputs[package.key] = composed[name]
    return inputs


def infer_each(inputs: NetworkInputs[T], served: ServedByTask, engine: Engine) -> OutputsByPackage:
    """Outputs of each package for its own input, in one pass."""
    return {key: engine.run(key, x) for key, x in inputs.x.items()}


def active_scores(pipeline: str, scored: Sequence[tuple[Served, ModelScores]]) -> list[ModelScores]:
    """Scores of the active packages.

    Raises
    ------
    NoServingPackage
        If there are none.
    """
    active = [scores for package, scores in scored if package.role == "active"]
    if not active:
        raise NoServingPackage(pipeline)
    return active


def mean_scores(members: Sequence[ModelScores]) -> ModelScores:
    """The ensemble: for each label the mean, of probabilities and thresholds, over the members that have it.

    A label that one member never flags has no threshold. One member is returned as it is.
    """
    if len(members) == 1:
        return members[0]
    labels = tuple(dict.fromkeys(label for scores in members for label in scores.labels))
    columns = [np.mean([scores.of(label) for scores in members if label in scores.labels], axis=0) for label in labels]
    return ModelScores(
        "+".join(scores.name for scores in members),
        "+".join(scores.version for scores in members),
        labels,
        np.stack(columns, axis=1),
        _mean_thresholds([scores.thresholds for scores in members]),
        _mean_of_known([scores.p_study for scores in members]),
    )


def _mean_thresholds(members: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    never = {name for thresholds in members for name, threshold in thresholds.items() if threshold is None}
    known = [{name: t for name, t in thresholds.items() if t is not None} for thresholds in members]
    return _mean_of_known(known) | dict.fromkeys(never)


def _mean_of_known(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for known in numbers for name in known)
    return {name: float(np.mean([known[name] for known in numbers if name in known])) for name in names}


def with_roles(main: ModelScores | None, scored: Sequence[tuple[Served, ModelScores]]) -> list[RoledScores]:
    """Under which role which scores are stored: the main ones, their members, the shadows.

    Parameters
    ----------
    main : ModelScores or None
        What is said of the study; None where only shadows serve.
    scored : sequence
        Every package with its scores.
    """
    active = [scores for package, scores in scored if package.role == "active"]
    is_one_package = (
        main is not None and len(active) == 1 and (active[0].name, active[0].version) == (main.name, main.version)
    )
    return [
        *([] if main is None else [("active", main)]),
        *(() if is_one_package else (("member", scores) for scores in active)),
        *((package.role, scores) for package, scores in scored if package.role != "active"),
    ]


def findings_of(stored: Sequence[RoledScores], flag: str) -> list[Finding]:
    """One finding a label. Only the label ``flag`` can flag, and never that of a member or a shadow."""
    return [
        Finding(
            name=label,
            model_name=scores.name,
            model_version=scores.version,
            probability=scores.p_study[label],
            threshold=scores.flag_threshold(label) if label == flag else scores.thresholds.get(label),
            flagged=role == "active" and label == flag and scores.flags(label),
            role=role,
        )
        for role, scores in stored
        for label in scores.labels
    ]


def predictive_value_of(
    packages: Iterable[Served], finding: str, name: str = "flag", age_group: AgeGroup = "unknown"
) -> PredictiveValue | None:
    """How often a flag is right by the cards of the active packages: by that whose flags are right most often.

    Parameters
    ----------
    name : str
        Operating point that flags.
    """
    points = [package.card.point(finding, name) for package in packages if package.role == "active"]
    shares = [
        (share, point.served_at.value)
        for point in points
        if point is not None and point.served_at is not None and (share := point.share_right_for(age_group)) is not None
    ]
    return PredictiveValue(finding, *max(shares)) if shares else None


def slice_scores_of(stored: Sequence[RoledScores], frames: Sequence[ScoredFrame]) -> list[SliceScore]:
    """One row a frame and label of each."""
    instance_numbers = [small_integer(frame.instance.ds, "InstanceNumber") for frame in frames]
    return [
        SliceScore(
            instance_key=frame.instance.key,
            frame=frame.number,
            instance_number=instance_number,
            finding=label,
            probability=float(scores.p[frame.row, column]),
            model_name=scores.name,
            model_version=scores.version,
            role=role,
        )
        for role, scores in stored
        for frame, instance_number in zip(frames, instance_numbers, strict=True)
        for column, label in enumerate(scores.labels)
    ]
