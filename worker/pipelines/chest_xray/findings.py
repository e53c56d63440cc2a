"""From the scores of chest films to what is said about a study: findings, flag, warnings, and the model's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from firstread.dicom.numbers import small_integer
from worker.errors import NonFiniteScore, NoServingPackage
from worker.packages.preprocessing.lungs import lung_field
from worker.pipelines.base import Engine, Evidence, Finding, Outcome, Series, Served, SliceScore, Study
from worker.pipelines.chest_xray.evidence import Voice, film_maps, low_evidence, map_numbers, occlusion_numbers, overlay
from worker.pipelines.chest_xray.scores import (
    BINARY,
    FOUR,
    Scores,
    combined_scores,
    flag_threshold,
    joint_occlusion,
    partner_missing,
    scores_of,
    voices_of,
)
from worker.pipelines.chest_xray.selection import Film
from worker.pipelines.population import age_years, outside
from worker.pipelines.reasons import Caution

COVID: Final = "covid19"


def interpret_films(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
) -> Outcome:
    """Everything that is said about the frontal films of a study.

    A study of several frontal films is as suspicious as its most suspicious one, and all findings are that film's. Only
    ``pneumonia`` of the active binary model flags; the kind never does. Several active packages of one task are
    averaged, and each then also stands for itself as a ``member``.

    Raises
    ------
    NonFiniteScore
        If a package gave NaN or Inf.
    NoServingPackage
        If no active package gives a probability of pneumonia.
    """
    films: list[Film] = series.pixels
    for key, arrays in outputs.items():
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise NonFiniteScore(key)
    groups = {task: _active(group) for task, group in served.items() if _active(group)}
    if BINARY not in groups:
        raise NoServingPackage("chest_xray")
    combined, alone = combined_scores(groups, outputs)
    top = int(np.argmax(combined[BINARY].of(BINARY)))
    findings, rows = [], []
    for task, group in served.items():
        if task in combined:
            findings += _findings(combined[task], top, "active")
            rows += _film_scores(films, combined[task], "active")
        for package in group:
            joined = task == BINARY and combined[BINARY] is not alone
            if package.role != "active" or joined or len(groups.get(task, ())) > 1:
                role = "member" if package.role == "active" else package.role
                scores = scores_of(package, outputs[package.key])
                findings += _findings(scores, top, role)
                rows += _film_scores(films, scores, role)
    voices = voices_of(groups, combined, alone, top)
    evidence, numbers, doubtful = _evidence(films, top, voices, combined, groups, inputs, engine)
    warnings = _warnings(films[top], [p for group in groups.values() for p in group])
    warnings += [str(Caution.JOINT_SCORE_MISSING)] if partner_missing(groups) else []
    series.SeriesInstanceUID = films[top].instance.SeriesInstanceUID
    series.details |= _description(films[top]) | numbers
    return Outcome(
        findings=findings,
        slice_scores=rows,
        warnings=tuple(dict.fromkeys([*warnings, *([str(Caution.LOW_EVIDENCE)] if doubtful else [])])),
        evidence=evidence,
        SeriesInstanceUID=series.SeriesInstanceUID,
        statistics=_statistics(films[top], numbers),
    )


def _active(group: Sequence[Served]) -> list[Served]:
    return [package for package in group if package.role == "active"]


def _findings(scores: Scores, film: int, role: str) -> list[Finding]:
    out = []
    for column, label in enumerate(scores.labels):
        threshold = flag_threshold(scores) if label == BINARY else scores.thresholds[label]
        p = float(scores.p[film, column])
        flagged = role == "active" and label == BINARY and threshold is not None and p >= threshold
        out.append(
            Finding(
                name=label,
                model_name=scores.name,
                model_version=scores.version,
                probability=p,
                threshold=threshold,
                flagged=flagged,
                role=role,
            )
        )
    return out


def _film_scores(films: Sequence[Film], scores: Scores, role: str) -> list[SliceScore]:
    rows = []
    for film, p in zip(films, scores.p, strict=True):
        instance_number = small_integer(film.instance.ds, "InstanceNumber")
        for label, value in zip(scores.labels, p, strict=True):
            rows.append(
                SliceScore(
                    instance_key=film.instance.key,
                    frame=film.frame,
                    instance_number=instance_number,
                    finding=label,
                    probability=float(value),
                    model_name=scores.name,
                    model_version=scores.version,
                    role=role,
                )
            )
    return rows


def _warnings(film: Film, packages: Sequence[Served]) -> list[str]:
    codes = []
    age = age_years(film.instance.ds)
    if any(outside_ages(package.card.population, age) for package in packages):
        codes.append(str(Caution.OUTSIDE_TRAINING_POPULATION))
    if any(COVID in package.card.labels for package in packages):
        codes.append(str(Caution.CONFOUNDED_BY_AGE))
    return codes


def outside_ages(population: Mapping[str, Any], age: float | None) -> bool:
    """Whether a known age lies outside the card's ``age_ranges`` (pairs of years, both ends included whole)."""
    ranges = population.get("age_ranges")
    if age is None or not ranges:
        return outside(dict(population), age)
    return not any(float(low) <= age < float(high) + 1.0 for low, high in ranges)


def _evidence(
    films: Sequence[Film],
    top: int,
    voices: Sequence[Voice],
    combined: Mapping[str, Scores],
    groups: Mapping[str, Sequence[Served]],
    inputs: Mapping[str, np.ndarray],
    engine: Engine,
) -> tuple[Evidence, dict[str, Any], bool]:
    """Picture, numbers of the maps, and whether a positive finding's map lies mostly outside the lungs."""
    film = films[top]
    assert film.grey is not None, "gate decodes"
    scores = combined[BINARY]
    p = float(scores.of(BINARY)[top])
    positive = p >= flag_threshold(scores)
    field = lung_field(film.grey)
    maps = film_maps(engine, voices, inputs, top, film.parts)
    numbers = map_numbers(maps, field)
    title = [f"{BINARY} {p:.2f}"]
    if len(voices) > 1:
        kind = voices[1].label
        title.append(f"{kind} {float(combined[FOUR].of(kind)[top]):.2f}")
    if positive:
        blocked = joint_occlusion(engine, groups, inputs, top, film.parts, p)
        numbers |= occlusion_numbers(blocked, maps.joined, field)
    doubtful = positive and low_evidence(maps.joined, field, voices[0].package)
    evidence = Evidence(key_instance=film.instance.key, key_frame=film.frame)
    evidence.pictures["film"] = overlay(film.grey, maps.joined if positive else None, tuple(title), film.turn.known)
    return evidence, numbers, doubtful


def _description(film: Film) -> dict[str, Any]:
    """What is kept of the film that the findings are about."""
    return {
        "view": film.view,
        "chest_likeness": round(film.likeness, 2),
        "rows": 0 if film.grey is None else int(film.grey.shape[0]),
        "orientation_known": film.turn.known,
    }


def _statistics(film: Film, numbers: Mapping[str, Any]) -> dict[str, float]:
    """Numbers for drift: of the film's grey values between its own 1st and 99th percentile, and of the maps."""
    assert film.grey is not None
    sample = film.grey[::8, ::8]
    low, high = (float(v) for v in np.percentile(sample, (1, 99)))
    unit = np.clip((sample - low) / max(high - low, 1e-6), 0, 1)
    out = {"intensity_mean": float(unit.mean()), "intensity_sd": float(unit.std()), "rows": float(film.grey.shape[0])}
    age = age_years(film.instance.ds)
    if age is not None:
        out["age_years"] = age
    return out | {name: float(value) for name, value in numbers.items() if isinstance(value, float)}
