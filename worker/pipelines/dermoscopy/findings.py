"""From the networks' outputs to what is said about a lesion: classes, diagnoses, outline, measures, evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from firstread.dicom.numbers import small_integer
from firstread.pipelines import DERMOSCOPY
from firstread.settings import Settings
from worker.errors import NonFiniteScore, NoServingPackage
from worker.pipelines.base import Engine, Evidence, Finding, Outcome, Series, Served, SliceScore, Study
from worker.pipelines.dermoscopy.evidence import lesion_picture
from worker.pipelines.dermoscopy.lesion import CLASSES, OTHER_MALIGNANT, folded, unframed
from worker.pipelines.dermoscopy.outline import Outline, speaker
from worker.pipelines.dermoscopy.selection import Photograph, Photographs
from worker.pipelines.next_steps import next_steps_or_defaults
from worker.pipelines.population import age_years, outside
from worker.pipelines.reasons import Caution, Reason, Unsuitable

FLAG: Final = DERMOSCOPY.leading
FALLBACK_THRESHOLD: Final = 0.5


@dataclass(frozen=True)
class Scores:
    """What one package, or the mean of several, says of each picture: probabilities (n,) by finding."""

    name: str
    version: str
    p: dict[str, np.ndarray]
    flag_threshold: float
    warn_thresholds: dict[str, float]

    @property
    def key(self) -> int:
        """The picture most suspicious of melanoma."""
        return int(np.argmax(self.p[FLAG]))


def interpret_lesions(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    packages: Sequence[Served],
    engine: Engine,
) -> Outcome:
    """Everything that is said about the study's pictures; one speaks for the study.

    Several active classifiers are averaged, each then also stands for itself as a ``member``. Which picture speaks,
    and where its outline comes from: :func:`worker.pipelines.dermoscopy.outline.speaker`.

    Raises
    ------
    NonFiniteScore
        If a package gave NaN or Inf.
    NoServingPackage
        If no active package names lesions.
    Unsuitable
        If no lesion is outlined in any picture and none reaches the flag, unless a person asked for the pipeline: then
        it is a warning.
    """
    photographs: Photographs = series.pixels
    for name, arrays in outputs.items():
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise NonFiniteScore(name)
    scored = [(p, scores_of(p, outputs[p.key]["p"])) for p in packages if names_lesions(p, outputs)]
    active = [(package, scores) for package, scores in scored if package.role == "active"]
    if not active:
        raise NoServingPackage("dermoscopy")
    main = active[0][1] if len(active) == 1 else mean_of([scores for _, scores in active])
    spoken = speaker(main.p[FLAG], main.flag_threshold, photographs.pictures, packages, outputs)
    key, outline = spoken.key, spoken.outline
    picture = photographs.pictures[key]
    cautions = _cautions(main, key, picture, packages)
    if spoken.passed_over:
        cautions.append(Caution.PICTURES_LEFT_OUT)
    if spoken.missing:
        if not study.forced and main.p[FLAG][key] < main.flag_threshold:
            raise Unsuitable(Reason.NO_LESION_FOUND)
        cautions.append(Caution.NO_LESION_FOUND)
    findings = _findings(main, key, "active")
    rows = _rows(photographs, main, "active")
    if len(active) > 1:
        for _, scores in active:
            findings += _findings(scores, key, "member")
            rows += _rows(photographs, scores, "member")
    for package, scores in scored:
        if package.role != "active":
            findings += _findings(scores, scores.key, package.role)
            rows += _rows(photographs, scores, package.role)
    texts = next_steps_or_defaults(Settings().next_steps)
    step = " ".join(texts[name] for name in step_names(main, key, [str(c) for c in cautions]))
    heat = engine.gradients(active[0][0].key, inputs[active[0][0].key][key : key + 1], _cam_label(active[0][0]))[0]
    return Outcome(
        findings=findings + _measure_findings(outline),
        slice_scores=rows,
        warnings=tuple(dict.fromkeys(str(c) for c in cautions)),
        evidence=_evidence(picture, outline, heat, main, key, step),
        SeriesInstanceUID=picture.instance.SeriesInstanceUID,
        statistics=_statistics(picture, outline),
        next_step=step,
    )


def names_lesions(package: Served, outputs: dict[str, dict[str, np.ndarray]]) -> bool:
    """Whether a package gives probabilities of diagnoses or of the three classes."""
    return "p" in outputs[package.key] and _cam_label(package) in package.card.labels


def _cam_label(package: Served) -> str:
    return FLAG if FLAG in package.card.labels else "dx_mel"


def scores_of(package: Served, p: np.ndarray) -> Scores:
    """Classes and diagnoses of each picture from a package's ``p`` (n, labels)."""
    card = package.card
    rows = [dict(zip(card.labels, (float(v) for v in row), strict=True)) for row in p]
    found = [folded(row) | {name: value for name, value in row.items() if name.startswith("dx_")} for row in rows]
    threshold = card.threshold(FLAG)
    known: list[str] = [name for name in OTHER_MALIGNANT if name in card.labels]
    warn = {name: t for name in known if (t := card.threshold(name, "warn")) is not None}
    columns = {name: np.asarray([row[name] for row in found]) for name in found[0]}
    return Scores(card.name, card.version, columns, FALLBACK_THRESHOLD if threshold is None else threshold, warn)


def mean_of(members: list[Scores]) -> Scores:
    """The ensemble: the mean of probabilities and thresholds over the members that know a finding."""
    names = dict.fromkeys(name for scores in members for name in scores.p)
    p = {name: np.mean([s.p[name] for s in members if name in s.p], axis=0) for name in names}
    warned = dict.fromkeys(name for scores in members for name in scores.warn_thresholds)
    return Scores(
        "+".join(scores.name for scores in members),
        "+".join(scores.version for scores in members),
        p,
        float(np.mean([scores.flag_threshold for scores in members])),
        {n: float(np.mean([s.warn_thresholds[n] for s in members if n in s.warn_thresholds])) for n in warned},
    )


def step_names(scores: Scores, key: int, cautions: Sequence[str]) -> list[str]:
    """Findings and warnings whose next step is told: a flag before the rest, else the likeliest class."""
    if scores.p[FLAG][key] >= scores.flag_threshold:
        return [FLAG]
    for caution in (Caution.OTHER_MALIGNANCY, Caution.NO_LESION_FOUND):
        if caution in cautions:
            return [str(caution)]
    return [max(CLASSES, key=lambda name: float(scores.p[name][key]))]


def _cautions(main: Scores, key: int, picture: Photograph, packages: Sequence[Served]) -> list[Caution]:
    found = []
    if any(float(main.p[name][key]) >= threshold for name, threshold in main.warn_thresholds.items()):
        found.append(Caution.OTHER_MALIGNANCY)
    if Caution.META_UID_MISMATCH in picture.instance.warnings:
        found.append(Caution.META_UID_MISMATCH)
    age = age_years(picture.instance.ds)
    if any(outside(package.card.population, age) for package in packages if package.role == "active"):
        found.append(Caution.OUTSIDE_TRAINING_POPULATION)
    return found


def _findings(scores: Scores, key: int, role: str) -> list[Finding]:
    """One finding a class and diagnosis. Only ``melanoma`` flags, and never that of a member or a shadow."""
    thresholds = {FLAG: scores.flag_threshold, **scores.warn_thresholds}
    return [
        Finding(
            name=name,
            model_name=scores.name,
            model_version=scores.version,
            probability=float(values[key]),
            threshold=thresholds.get(name),
            flagged=role == "active" and name == FLAG and float(values[key]) >= scores.flag_threshold,
            role=role,
        )
        for name, values in scores.p.items()
    ]


def _measure_findings(outline: Outline | None) -> list[Finding]:
    if outline is None:
        return []
    card, measures = outline.package.card, outline.measures
    values = (
        ("lesion_area", measures.area_fraction, "fraction"),
        ("lesion_diameter", measures.diameter, measures.unit),
        ("border_irregularity", measures.border_irregularity, "ratio"),
    )
    return [Finding(name, card.name, card.version, value=value, unit=unit) for name, value, unit in values]


def _rows(photographs: Photographs, scores: Scores, role: str) -> list[SliceScore]:
    rows = []
    for i, picture in enumerate(photographs.pictures):
        instance_number = small_integer(picture.instance.ds, "InstanceNumber")
        for name, values in scores.p.items():
            rows.append(
                SliceScore(
                    instance_key=picture.instance.key,
                    frame=picture.frame.number,
                    instance_number=instance_number,
                    finding=name,
                    probability=float(values[i]),
                    model_name=scores.name,
                    model_version=scores.version,
                    role=role,
                )
            )
    return rows


def _evidence(
    picture: Photograph, outline: Outline | None, heat: np.ndarray, main: Scores, key: int, step: str
) -> Evidence:
    """Overlay of outline and class activation map, and the mask of the key picture at its own size."""
    evidence = Evidence(key_instance=picture.instance.key, key_frame=picture.frame.number)
    assert picture.rgb is not None
    shape = (picture.rgb.shape[0], picture.rgb.shape[1])
    title = "  ".join(f"{name} {float(main.p[name][key]):.2f}" for name in CLASSES)
    evidence.pictures["lesion"] = lesion_picture(
        picture.rgb,
        None if outline is None else outline.mask,
        unframed(heat, picture.framing, shape),
        title,
        step,
    )
    if outline is not None:
        evidence.mask = outline.mask[None]
        evidence.mask_keys = ((picture.instance.key, picture.frame.number),)
        evidence.mask_label = "lesion"
    return evidence


def _statistics(picture: Photograph, outline: Outline | None) -> dict[str, float]:
    """Numbers for drift: the picture's mean colour, its size, and the lesion's share of it."""
    assert picture.rgb is not None
    red, green, blue = (float(v) for v in picture.rgb.reshape(-1, 3)[::7].mean(axis=0))
    known = {"intensity_mean": (red + green + blue) / 3, "red_mean": red, "green_mean": green, "blue_mean": blue,
             "short_side_px": float(min(picture.shape))}  # fmt: skip
    return known if outline is None else known | {"lesion_area": float(outline.mask.mean())}
