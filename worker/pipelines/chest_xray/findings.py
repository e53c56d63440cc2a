"""From the scores of chest films to what is said about a study: findings, flag, warnings, and the model's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from worker.errors import NoServingPackage
from worker.packages.card import JOINT_FLAG
from worker.packages.preprocessing.lungs import lung_field
from worker.pipelines.base import Detail, Evidence, Outcome, ScoredSeries, Served
from worker.pipelines.chest_xray.evidence import Voice, film_maps, low_evidence, map_numbers, occlusion_numbers, overlay
from worker.pipelines.chest_xray.film import Film
from worker.pipelines.chest_xray.maps import FilmPart
from worker.pipelines.chest_xray.scores import (
    BINARY,
    FOUR,
    combined_scores,
    joint_occlusion,
    no_flag_reason,
    partner_missing,
    scores_of,
    voices_of,
)
from worker.pipelines.ensemble import (
    ModelScores,
    RoledScores,
    ScoredFrame,
    findings_of,
    predictive_value_of,
    slice_scores_of,
    with_roles,
)
from worker.pipelines.population import age_group_of, age_years, outside
from worker.pipelines.reasons import Caution, merge_codes

Films = ScoredSeries[tuple[Film, ...], FilmPart]
COVID: Final = "covid19"
CONFOUNDED: Final = "confounded_by_age"
"""Parameter of a card with COVID-19: false where left-out hospitals show that it tells neither."""


def interpret(study: Films) -> Outcome:
    """Everything that is said about the frontal films of a study.

    A study of several frontal films is as suspicious as its most suspicious one, and all findings are that film's. Only
    ``pneumonia`` of the active binary model flags, and only where its card has a threshold for the age group that the
    films' headers agree on; the kind never does.

    Raises
    ------
    NoServingPackage
        If no active package gives a probability of pneumonia.
    """
    films, served, outputs = study.pixels, study.served, study.outputs
    groups = {task: active for task, group in served.items() if (active := _active(group))}
    if BINARY not in groups:
        raise NoServingPackage("chest_xray")
    age_group = age_group_of(film.instance.ds for film in films)
    combined, alone = combined_scores(groups, outputs, age_group)
    top = int(np.argmax(combined[BINARY].of(BINARY)))
    film = films[top]
    stored: list[RoledScores] = []
    for task, group in served.items():
        scored = [(package, scores_of(package, outputs[package.key], age_group).at(top)) for package in group]
        stored += with_roles(combined[task].at(top) if task in combined else None, scored)
    frames = [ScoredFrame(film.instance, film.frame, row) for row, film in enumerate(films)]
    voices = voices_of(groups, combined, alone, top)
    evidence, numbers, doubtful = _evidence(study, top, voices, combined, groups)
    warnings = _warnings(film, [package for group in groups.values() for package in group])
    warnings += [Caution.JOINT_SCORE_MISSING] if partner_missing(groups) else []
    warnings += [Caution.LOW_EVIDENCE] if doubtful else []
    if combined[BINARY].flag_threshold(BINARY) is None:
        reason = no_flag_reason(groups, combined[BINARY] is not alone, age_group)
        warnings.append(Caution.HINT_FOR_AGE if reason == "hint" else Caution.NO_FLAG_FOR_AGE)
    flags = combined[BINARY].at(top).flags(BINARY)
    point = "flag" if combined[BINARY] is alone else JOINT_FLAG
    return Outcome(
        findings=findings_of(stored, BINARY),
        slice_scores=slice_scores_of(stored, frames),
        warnings=tuple(merge_codes(warnings)),
        evidence=evidence,
        SeriesInstanceUID=film.instance.SeriesInstanceUID,
        statistics=_statistics(film, numbers),
        predictive_value=predictive_value_of(groups[BINARY], BINARY, point, age_group) if flags else None,
        details={**_description(film), **numbers},
    )


def _active(group: Sequence[Served]) -> list[Served]:
    return [package for package in group if package.role == "active"]


def _warnings(film: Film, packages: Sequence[Served]) -> list[str]:
    codes: list[str] = []
    age = age_years(film.instance.ds)
    if any(outside_ages(package.card.population, age) for package in packages):
        codes.append(Caution.OUTSIDE_TRAINING_POPULATION)
    if any(COVID in p.card.labels and p.card.parameters.get(CONFOUNDED, True) for p in packages):
        codes.append(Caution.CONFOUNDED_BY_AGE)
    return codes


def outside_ages(population: Mapping[str, Any], age: float | None) -> bool:
    """Whether a known age lies outside the card's ``age_ranges`` (pairs of years, both ends included whole)."""
    ranges = population.get("age_ranges")
    if age is None or not ranges:
        return outside(dict(population), age)
    return not any(float(low) <= age < float(high) + 1.0 for low, high in ranges)


def _evidence(
    study: Films,
    top: int,
    voices: Sequence[Voice],
    combined: Mapping[str, ModelScores],
    groups: Mapping[str, Sequence[Served]],
) -> tuple[Evidence, dict[str, Detail], bool]:
    """Picture, numbers of the maps, and whether a positive finding's map lies mostly outside the lungs."""
    film, x = study.pixels[top], study.inputs.x
    parts = {key: crops[top] for key, crops in study.inputs.crops.items()}
    scores = combined[BINARY].at(top)
    p = scores.p_study[BINARY]
    positive = scores.flags(BINARY)
    field = lung_field(film.grey)
    maps = film_maps(study.engine, voices, x, top, parts)
    numbers = map_numbers(maps, field)
    title = [f"{BINARY} {p:.2f}"]
    if len(voices) > 1:
        kind = voices[1].label
        title.append(f"{kind} {float(combined[FOUR].of(kind)[top]):.2f}")
    if positive:
        blocked = joint_occlusion(study.engine, groups, x, top, parts, p)
        numbers |= occlusion_numbers(blocked, maps.joined, field)
    doubtful = positive and low_evidence(maps.joined, field, voices[0].package)
    evidence = Evidence(key_instance=film.instance.key, key_frame=film.frame)
    evidence.pictures["film"] = overlay(film.grey, maps.joined if positive else None, tuple(title), film.turn.known)
    return evidence, numbers, doubtful


def _description(film: Film) -> dict[str, Detail]:
    """What is kept of the film that the findings are about."""
    return {
        "view": film.view,
        "chest_likeness": round(film.likeness, 2),
        "rows": int(film.grey.shape[0]),
        "orientation_known": film.turn.known,
    }


def _statistics(film: Film, numbers: Mapping[str, Detail]) -> dict[str, float]:
    """Numbers for drift: of the film's grey values between its own 1st and 99th percentile, and of the maps."""
    sample = film.grey[::8, ::8]
    low, high = (float(v) for v in np.percentile(sample, (1, 99)))
    unit = np.clip((sample - low) / max(high - low, 1e-6), 0, 1)
    out = {"intensity_mean": float(unit.mean()), "intensity_sd": float(unit.std()), "rows": float(film.grey.shape[0])}
    age = age_years(film.instance.ds)
    if age is not None:
        out["age_years"] = age
    return out | {name: float(value) for name, value in numbers.items() if isinstance(value, float)}
