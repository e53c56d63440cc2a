"""From slice probabilities and masks to what is said about a head: findings, flag, warnings, bleed volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from firstread.pipelines import HEAD_CT
from worker.packages.patient_score import mask_areas
from worker.packages.probabilities import slice_probabilities, study_probability
from worker.pipelines.base import Finding, Outcome, Served
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
from worker.pipelines.head_ct.bleed_volume import bleed_volume_ml
from worker.pipelines.head_ct.evidence import BRAIN_WINDOW, Head, blood_of, evidence_of
from worker.pipelines.head_ct.hounsfield import HounsfieldVolume
from worker.pipelines.population import age_years, outside
from worker.pipelines.reasons import Caution, Reason, Unsuitable, merge_codes

TASK: Final = "bleed"
FLAG: Final = HEAD_CT.leading


def interpret(head: Head) -> Outcome:
    """Everything that is said about one series.

    Raises
    ------
    NoServingPackage
        If no active package gives a probability of a bleed.
    Unsuitable
        If too many slices could not be read for a negative, and the rest does not flag.
    """
    volume = head.pixels
    packages = packages_of(head.served, TASK)
    scored = [
        (package, _scores(package, head.outputs[package.key]))
        for package in packages
        if "p" in head.outputs[package.key] and FLAG in package.card.labels
    ]
    main = mean_scores(active_scores("head_ct", scored))
    if volume.too_much_unread and not main.flags(FLAG):
        raise Unsuitable(Reason.UNREADABLE_PIXEL_DATA)
    stored = with_roles(main, scored)
    findings = findings_of(stored, FLAG)
    warnings: list[str] = []
    active = [package for package in packages if package.role == "active"]
    segmenter = next((package for package in active if "mask" in head.outputs[package.key]), None)
    blood = None
    if segmenter is not None:
        blood = blood_of(head, segmenter)
        volume_ml = bleed_volume_ml(volume, blood)
        if volume_ml is None:
            warnings.append(Caution.SPACING_UNKNOWN)
        else:
            card = segmenter.card
            findings.append(Finding("bleed_volume", card.name, card.version, value=volume_ml, unit="mL"))
        if main.flags(FLAG) and not blood.any():
            warnings.append(Caution.LOW_EVIDENCE)
    return Outcome(
        findings=findings,
        slice_scores=slice_scores_of(stored, _frames(volume)),
        warnings=tuple(merge_codes(_warnings(volume, active), warnings)),
        evidence=evidence_of(head, main, FLAG, segmenter, blood, active),
        SeriesInstanceUID=head.SeriesInstanceUID,
        statistics=_statistics(volume),
        predictive_value=predictive_value_of(active, FLAG) if main.flags(FLAG) else None,
    )


def _scores(package: Served, arrays: dict[str, np.ndarray]) -> ModelScores:
    card = package.card
    p = slice_probabilities(arrays, card.parameters, card.labels)
    areas = mask_areas(arrays["mask"]) if "mask" in arrays else None
    p_study = {label: study_probability(p[:, i], card.parameters, label, areas) for i, label in enumerate(card.labels)}
    thresholds = {label: card.threshold(label) for label in card.labels}
    known = {label: FALLBACK_THRESHOLD if t is None else t for label, t in thresholds.items()}
    return ModelScores(card.name, card.version, tuple(card.labels), p, known, p_study)


def _frames(volume: HounsfieldVolume) -> list[ScoredFrame]:
    """The slices that were read, each with its slab."""
    return [
        ScoredFrame(entry.instance, entry.frame.number, int(slab))
        for entry, slab in zip(volume.head.slices, volume.slab_of, strict=True)
        if slab >= 0
    ]


def _warnings(volume: HounsfieldVolume, active: Sequence[Served]) -> list[str]:
    slices = volume.head.slices
    codes = [code for entry in slices for code in entry.instance.warnings if code == Caution.META_UID_MISMATCH]
    age = age_years(slices[0].instance.ds)
    thick = volume.head.stack.thickness_mm
    ends = [None] if thick is None else [float(thick.min()), float(thick.max())]
    if any(outside(package.card.population, age, thickness_mm) for package in active for thickness_mm in ends):
        codes.append(Caution.OUTSIDE_TRAINING_POPULATION)
    return codes


def _statistics(volume: HounsfieldVolume) -> dict[str, float]:
    """Numbers for drift: of the tissue between 0 and 80 HU, and of the geometry."""
    sample = np.ascontiguousarray(volume.hu[:, ::4, ::4])
    tissue = sample[(sample > BRAIN_WINDOW[0]) & (sample < BRAIN_WINDOW[1])]
    numbers = {
        "intensity_mean": float(tissue.mean()) if tissue.size else None,
        "intensity_sd": float(tissue.std()) if tissue.size else None,
        "thickness_mm": volume.head.thickness_mm,
        "spacing_mm": volume.head.stack.spacing_mm,
        "n_slices": float(len(volume.head.slices)),
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}
