"""From slice probabilities and masks to what is said about a head: findings, flag, volume, key slice, evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from firstread.dicom.numbers import small_integer
from firstread.pipelines import HEAD_CT
from worker.errors import NonFiniteScore, NoServingPackage
from worker.packages.preprocessing.compose import restore
from worker.packages.probabilities import slice_probabilities, study_probability
from worker.pipelines.base import Engine, Evidence, Finding, Outcome, Series, Served, SliceScore, Study
from worker.pipelines.head_ct.stack import HeadStack
from worker.pipelines.heatmap import picture, window
from worker.pipelines.population import age_years, outside
from worker.pipelines.reasons import Caution, Reason, Unsuitable

FLAG: Final = HEAD_CT.leading
FALLBACK_THRESHOLD: Final = 0.5
BRAIN_WINDOW: Final = (0.0, 80.0)


@dataclass(frozen=True)
class Scores:
    """What one package, or the mean of several, says: ``p_slab`` (m, labels) and ``p_study`` by label."""

    name: str
    version: str
    labels: tuple[str, ...]
    p_slab: np.ndarray
    p_study: dict[str, float]
    thresholds: dict[str, float]


def interpret_head(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    packages: Sequence[Served],
    engine: Engine,
) -> Outcome:
    """Everything that is said about one series.

    Several active packages are averaged; each then also stands for itself as a ``member``. Shadow packages are
    stored and never flag.

    Raises
    ------
    NonFiniteScore
        If a package gave NaN or Inf.
    NoServingPackage
        If no active package gives a probability of a bleed.
    Unsuitable
        If too many slices could not be read for a negative, and the rest does not flag.
    """
    head: HeadStack = series.pixels
    for key, arrays in outputs.items():
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise NonFiniteScore(key)
    scored = [(p, _scores(p, outputs[p.key])) for p in packages if "p" in outputs[p.key] and FLAG in p.card.labels]
    active = [scores for package, scores in scored if package.role == "active"]
    if not active:
        raise NoServingPackage("head_ct")
    main = active[0] if len(active) == 1 else _mean(active)
    if head.too_much_unread and main.p_study[FLAG] < main.thresholds[FLAG]:
        raise Unsuitable(Reason.UNREADABLE_PIXEL_DATA)
    findings = _findings(main, "active")
    if len(active) > 1:
        findings += [finding for scores in active for finding in _findings(scores, "member")]
        rows = [row for scores in active for row in _slice_scores(head, scores, "member")]
    else:
        rows = []
    for package, scores in scored:
        if package.role != "active":
            findings += _findings(scores, package.role)
            rows += _slice_scores(head, scores, package.role)
    rows = _slice_scores(head, main, "active") + rows
    warnings = _warnings(study, head, packages)
    evidence, more, volume = _evidence(head, main, inputs, outputs, packages, engine)
    return Outcome(
        findings=findings + volume,
        slice_scores=rows,
        warnings=tuple(dict.fromkeys([*warnings, *more])),
        evidence=evidence,
        SeriesInstanceUID=series.SeriesInstanceUID,
        statistics=_statistics(head),
    )


def _scores(package: Served, arrays: dict[str, np.ndarray]) -> Scores:
    card = package.card
    p_slab = slice_probabilities(arrays, card.parameters, card.labels)
    p_study = {
        label: study_probability(p_slab[:, column], card.parameters, label) for column, label in enumerate(card.labels)
    }
    thresholds = {label: card.threshold(label) for label in card.labels}
    return Scores(
        card.name,
        card.version,
        tuple(card.labels),
        p_slab,
        p_study,
        {label: FALLBACK_THRESHOLD if t is None else t for label, t in thresholds.items()},
    )


def _mean(members: list[Scores]) -> Scores:
    """The ensemble: the mean over those members that know a label, of probabilities and of thresholds."""
    labels = tuple(dict.fromkeys(label for scores in members for label in scores.labels))
    columns, p_study, thresholds = [], {}, {}
    for label in labels:
        knowing = [scores for scores in members if label in scores.labels]
        columns.append(np.mean([scores.p_slab[:, scores.labels.index(label)] for scores in knowing], axis=0))
        p_study[label] = float(np.mean([scores.p_study[label] for scores in knowing]))
        thresholds[label] = float(np.mean([scores.thresholds[label] for scores in knowing]))
    name = "+".join(scores.name for scores in members)
    version = "+".join(scores.version for scores in members)
    return Scores(name, version, labels, np.stack(columns, axis=1), p_study, thresholds)


def _findings(scores: Scores, role: str) -> list[Finding]:
    """One finding a label. Only ``any`` flags, and never that of a member or a shadow."""
    return [
        Finding(
            name=label,
            model_name=scores.name,
            model_version=scores.version,
            probability=scores.p_study[label],
            threshold=scores.thresholds[label],
            flagged=role == "active" and label == FLAG and scores.p_study[label] >= scores.thresholds[label],
            role=role,
        )
        for label in scores.labels
    ]


def _slice_scores(head: HeadStack, scores: Scores, role: str) -> list[SliceScore]:
    rows = []
    for entry, slab in zip(head.slices, head.slab_of, strict=True):
        if slab < 0:
            continue
        instance_number = small_integer(entry.instance.ds, "InstanceNumber")
        for column, label in enumerate(scores.labels):
            rows.append(
                SliceScore(
                    instance_key=entry.instance.key,
                    frame=entry.frame.number,
                    instance_number=instance_number,
                    finding=label,
                    probability=float(scores.p_slab[slab, column]),
                    model_name=scores.name,
                    model_version=scores.version,
                    role=role,
                )
            )
    return rows


def _warnings(study: Study, head: HeadStack, packages: Sequence[Served]) -> list[str]:
    codes = [code for entry in head.slices for code in entry.instance.warnings if code == Caution.META_UID_MISMATCH]
    age = age_years(head.slices[0].instance.ds)
    populations = [package.card.population for package in packages if package.role == "active"]
    thick = head.stack.thickness_mm
    ends = [None] if thick is None else [float(thick.min()), float(thick.max())]
    if any(outside(population, age, thickness_mm) for population in populations for thickness_mm in ends):
        codes.append(Caution.OUTSIDE_TRAINING_POPULATION)
    return [str(code) for code in dict.fromkeys(codes)]


def _evidence(
    head: HeadStack,
    main: Scores,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    packages: Sequence[Served],
    engine: Engine,
) -> tuple[Evidence, list[str], list[Finding]]:
    assert head.hu is not None
    column = main.labels.index(FLAG)
    key_slab = int(np.argmax(main.p_slab[:, column]))
    flagged = main.p_study[FLAG] >= main.thresholds[FLAG]
    evidence = Evidence()
    warnings: list[str] = []
    volume: list[Finding] = []
    active = [package for package in packages if package.role == "active"]
    segmenter = next((package for package in active if "mask" in outputs[package.key]), None)
    heat = None
    if segmenter is not None:
        p_mask = _at_source(head, segmenter, outputs[segmenter.key]["mask"])
        blood = p_mask >= float(segmenter.card.parameters.get("mask_threshold", 0.5))
        heat = p_mask[key_slab]
        evidence.mask, evidence.mask_keys, evidence.mask_label = *_mask_of_slices(head, blood), "hemorrhage"
        volume, warnings = _volume(head, blood, segmenter)
        if flagged and not blood.any():
            warnings.append(str(Caution.LOW_EVIDENCE))
    elif flagged:
        classifier = next(p for p in active if FLAG in p.card.labels)
        cam = engine.gradients(classifier.key, inputs[classifier.key][key_slab : key_slab + 1], FLAG)
        heat = _at_source(head, classifier, cam, key_slab)[0]
    members = np.flatnonzero(head.slab_of == key_slab)
    key = head.slices[int(members[len(members) // 2])]
    evidence.key_instance, evidence.key_frame = key.instance.key, key.frame.number
    title = (f"{FLAG} {main.p_study[FLAG]:.2f}", f"slice {main.p_slab[key_slab, column]:.2f}")
    grey = window(head.hu[key_slab], *BRAIN_WINDOW)
    evidence.pictures["key_slice"] = picture(grey, heat, title, head.turn.sides_known)
    return evidence, warnings, volume


def _at_source(head: HeadStack, package: Served, maps: np.ndarray, first: int = 0) -> np.ndarray:
    """Put maps (k, h, w) of slabs ``first``.. back on the display grid: float32 (k, H, W)."""
    assert head.hu is not None
    boxes = head.boxes[package.key]
    shape = (head.hu.shape[1], head.hu.shape[2])
    return np.stack([restore(plane, boxes[first + i], shape) for i, plane in enumerate(maps)])


def _mask_of_slices(head: HeadStack, blood: np.ndarray) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """Masks (n, H, W) in the orientation in which each frame is stored, and the frames they belong to."""
    decoded = [i for i, slab in enumerate(head.slab_of) if slab >= 0]
    assert head.grid is not None
    turned = head.turn.undo(head.grid.stored(blood))
    mask = np.ascontiguousarray(turned[head.slab_of[decoded]])
    return mask, tuple((head.slices[i].instance.key, head.slices[i].frame.number) for i in decoded)


def _volume(head: HeadStack, blood: np.ndarray, segmenter: Served) -> tuple[list[Finding], list[str]]:
    """Volume of the mask in mL; none where pixel spacing or slice positions are not known."""
    extent = head.extent_mm
    assert head.grid is not None
    if head.grid.pixel_mm is None or extent is None:
        return [], [str(Caution.SPACING_UNKNOWN)]
    area_mm2 = blood.sum(axis=(1, 2)) * head.grid.pixel_mm[0] * head.grid.pixel_mm[1]
    decoded = head.slab_of >= 0
    depth_mm = np.bincount(head.slab_of[decoded], weights=extent[decoded], minlength=len(blood))
    card = segmenter.card
    value = float((area_mm2 * depth_mm).sum() / 1000.0)
    return [Finding("bleed_volume", card.name, card.version, value=value, unit="mL")], []


def _statistics(head: HeadStack) -> dict[str, float]:
    """Numbers for drift: of the tissue between 0 and 80 HU, and of the geometry."""
    assert head.hu is not None
    sample = head.hu[:, ::4, ::4]
    tissue = sample[(sample > BRAIN_WINDOW[0]) & (sample < BRAIN_WINDOW[1])]
    known = {
        "intensity_mean": float(tissue.mean()) if tissue.size else None,
        "intensity_sd": float(tissue.std()) if tissue.size else None,
        "thickness_mm": head.thickness_mm,
        "spacing_mm": head.stack.spacing_mm,
        "n_slices": float(len(head.slices)),
    }
    return {name: float(value) for name, value in known.items() if value is not None}
