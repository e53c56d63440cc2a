"""From the networks' outputs to what is said about a lesion: classes, diagnoses, outline, measures, next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from firstread.pipelines import DERMOSCOPY
from worker.pipelines.base import Finding, Outcome, OutputsByPackage, ScoredSeries, Served
from worker.pipelines.dermoscopy.evidence import evidence_of
from worker.pipelines.dermoscopy.lesion import CLASSES, OTHER_MALIGNANT, folded
from worker.pipelines.dermoscopy.outline import Outline, key_picture
from worker.pipelines.dermoscopy.photographs import Photograph
from worker.pipelines.ensemble import (
    FALLBACK_THRESHOLD,
    ModelScores,
    ScoredFrame,
    active_scores,
    findings_of,
    mean_scores,
    packages_of,
    predictive_value_of,
    slice_scores_of,
    with_roles,
)
from worker.pipelines.next_steps import next_steps_or_defaults
from worker.pipelines.population import age_years, outside
from worker.pipelines.reasons import Caution, Reason, Unsuitable, merge_codes

FLAG: Final = DERMOSCOPY.leading
Lesion = ScoredSeries[tuple[Photograph, ...], None]


def interpret(lesion: Lesion) -> Outcome:
    """Everything that is said about the study's pictures; the key picture's scores are those of the study.

    Which picture that is, and where its outline comes from:
    :func:`worker.pipelines.dermoscopy.outline.key_picture`.

    Raises
    ------
    NoServingPackage
        If no active package names lesions.
    Unsuitable
        If no lesion is outlined in any picture and none reaches the flag, unless a person asked for the pipeline: then
        it is a warning.
    """
    photographs, outputs = lesion.pixels, lesion.outputs
    packages = packages_of(lesion.served)
    naming = [package for package in packages if names_lesions(package, outputs)]
    scored = [(package, scores_of(package, outputs[package.key]["p"])) for package in naming]
    mean = mean_scores(active_scores("dermoscopy", scored))
    threshold = mean.flag_threshold(FLAG)
    key = key_picture(mean.of(FLAG), threshold, photographs, packages, outputs)
    photograph, main = photographs[key.index], mean.at(key.index)
    cautions = _cautions(main, photograph, packages)
    if key.passed_over:
        cautions.append(Caution.PICTURES_LEFT_OUT)
    if key.missing:
        if not lesion.study.forced and not main.flags(FLAG):
            raise Unsuitable(Reason.NO_LESION_FOUND)
        cautions.append(Caution.NO_LESION_FOUND)
    stored = with_roles(main, [(package, _at_picture(package, scores, key.index)) for package, scores in scored])
    frames = [ScoredFrame(picture.instance, picture.frame.number, row) for row, picture in enumerate(photographs)]
    sentences = next_steps_or_defaults(lesion.next_steps)
    next_step = " ".join(sentences[name] for name in step_names(main, cautions))
    mapped = next(package for package in naming if package.role == "active")
    x = lesion.inputs.x[mapped.key][key.index : key.index + 1]
    heat = lesion.engine.gradients(mapped.key, x, _label_of_map(mapped))[0]
    return Outcome(
        findings=findings_of(stored, FLAG) + _measure_findings(key.outline),
        slice_scores=slice_scores_of(stored, frames),
        warnings=tuple(merge_codes(cautions)),
        evidence=evidence_of(photograph, key.outline, heat, main, next_step),
        SeriesInstanceUID=photograph.instance.SeriesInstanceUID,
        statistics=_statistics(photograph, key.outline),
        predictive_value=predictive_value_of(naming, FLAG) if main.flags(FLAG) else None,
        next_step=next_step,
    )


def names_lesions(package: Served, outputs: OutputsByPackage) -> bool:
    """Whether a package gives probabilities of diagnoses or of the three classes."""
    return "p" in outputs[package.key] and _label_of_map(package) in package.card.labels


def _label_of_map(package: Served) -> str:
    return FLAG if FLAG in package.card.labels else "dx_mel"


def scores_of(package: Served, p: np.ndarray) -> ModelScores:
    """Classes and diagnoses of each picture from a package's ``p`` (n, labels)."""
    card = package.card
    rows = [dict(zip(card.labels, (float(v) for v in row), strict=True)) for row in p]
    named = [folded(row) | {name: value for name, value in row.items() if name.startswith("dx_")} for row in rows]
    labels = tuple(named[0])
    flag = card.point(FLAG)
    thresholds = {FLAG: FALLBACK_THRESHOLD if flag is None else flag.threshold_for("unknown")}
    for name in OTHER_MALIGNANT:
        if name in card.labels and (warn := card.threshold(name, "warn")) is not None:
            thresholds[name] = warn
    columns = np.asarray([[row[label] for label in labels] for row in named])
    return ModelScores(card.name, card.version, labels, columns, thresholds)


def _at_picture(package: Served, scores: ModelScores, key: int) -> ModelScores:
    """Scores at the key picture; those of a shadow at the picture that it finds most suspicious itself."""
    return scores.at(key if package.role == "active" else int(np.argmax(scores.of(FLAG))))


def step_names(scores: ModelScores, cautions: Sequence[str]) -> list[str]:
    """Findings and warnings whose next step is given: a flag before the rest, else the likeliest class."""
    if scores.flags(FLAG):
        return [FLAG]
    for caution in (Caution.OTHER_MALIGNANCY, Caution.NO_LESION_FOUND):
        if caution in cautions:
            return [str(caution)]
    return [max(CLASSES, key=lambda name: scores.p_study[name])]


def _cautions(main: ModelScores, photograph: Photograph, packages: Sequence[Served]) -> list[Caution]:
    cautions = []
    if main.flag_threshold(FLAG) is None:
        cautions.append(Caution.HINT_ONLY)
    if any(name in main.thresholds and main.flags(name) for name in OTHER_MALIGNANT):
        cautions.append(Caution.OTHER_MALIGNANCY)
    if Caution.META_UID_MISMATCH in photograph.instance.warnings:
        cautions.append(Caution.META_UID_MISMATCH)
    age = age_years(photograph.instance.ds)
    if any(outside(package.card.population, age) for package in packages if package.role == "active"):
        cautions.append(Caution.OUTSIDE_TRAINING_POPULATION)
    return cautions


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


def _statistics(photograph: Photograph, outline: Outline | None) -> dict[str, float]:
    """Numbers for drift: the picture's mean colour, its size, and the lesion's share of it."""
    red, green, blue = (float(v) for v in photograph.rgb.reshape(-1, 3)[::7].mean(axis=0))
    numbers = {
        "intensity_mean": (red + green + blue) / 3,
        "red_mean": red,
        "green_mean": green,
        "blue_mean": blue,
        "short_side_px": float(min(photograph.shape)),
    }
    return numbers if outline is None else numbers | {"lesion_area": float(outline.mask.mean())}
