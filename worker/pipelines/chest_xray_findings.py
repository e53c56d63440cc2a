"""From the scores of chest films to what is said about a study: findings, flag, warnings, and the model's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from firstread.dicom.datasets import number
from worker.errors import NonFiniteScore, NoServingPackage
from worker.pipelines.base import Engine, Evidence, Finding, Outcome, Series, Served, SliceScore, Study
from worker.pipelines.chest_evidence import (
    Voice,
    film_maps,
    joint_shares,
    low_evidence,
    map_numbers,
    occlusion_numbers,
    overlay,
)
from worker.pipelines.chest_maps import WHOLE, log_odds
from worker.pipelines.chest_xray_selection import Film
from worker.pipelines.lungs import lung_field
from worker.pipelines.population import age_years, outside
from worker.pipelines.reasons import Caution

BINARY: Final = "pneumonia"
FOUR: Final = "pneumonia4"
COVID: Final = "covid19"
NORMAL: Final = "normal"
FALLBACK_THRESHOLD: Final = 0.5


@dataclass(frozen=True)
class Scores:
    """What one package, or the mean of several, says of each film: ``p`` (films, labels)."""

    name: str
    version: str
    labels: tuple[str, ...]
    p: np.ndarray
    thresholds: Mapping[str, float | None]

    def of(self, label: str) -> np.ndarray:
        """Probability of a label for each film."""
        return np.asarray(self.p[:, self.labels.index(label)])


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
                scores = _scores(package, outputs[package.key])
                findings += _findings(scores, top, role)
                rows += _film_scores(films, scores, role)
    voices = voices_of(groups, combined, alone, top)
    evidence, numbers, doubtful = _evidence(films, top, voices, combined, inputs, engine)
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


def combined_scores(
    groups: Mapping[str, Sequence[Served]], outputs: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, Scores], Scores]:
    """Scores by task, of active packages alone, the binary one joined where its card asks; and the binary one alone."""
    combined = {task: _mean([_scores(p, outputs[p.key]) for p in group]) for task, group in groups.items()}
    alone = combined[BINARY]
    blend = groups[BINARY][0].card.parameters.get("blend")
    four = None if partner_missing(groups) else combined.get(FOUR)
    return combined | {BINARY: _blended(alone, four, blend)}, alone


def partner_missing(groups: Mapping[str, Sequence[Served]]) -> bool:
    """Whether the binary card asks for a four-class package to join its score, and another one (or none) is active.

    The weights and the threshold of a joint score were fitted with one package and hold for no other. A card whose
    ``blend`` names no ``partner`` takes any.
    """
    blend = groups[BINARY][0].card.parameters.get("blend")
    if not blend:
        return False
    partner, active = blend.get("partner"), groups.get(FOUR, ())
    if not partner:
        return not active
    found = [{"name": p.card.name, "version": p.card.version, "sha256": p.card.sha256} for p in active]
    return found != [partner]


def _active(group: Sequence[Served]) -> list[Served]:
    return [package for package in group if package.role == "active"]


def _scores(package: Served, arrays: Mapping[str, np.ndarray]) -> Scores:
    card = package.card
    thresholds = {label: card.threshold(label) for label in card.labels}
    return Scores(card.name, card.version, tuple(card.labels), np.asarray(arrays["p"], dtype=np.float64), thresholds)


def _mean(members: list[Scores]) -> Scores:
    """Mean of packages with the same labels, of probabilities and of thresholds; one package is itself."""
    first = members[0]
    alike = [scores for scores in members if scores.labels == first.labels]
    if len(alike) == 1:
        return first
    thresholds: dict[str, float | None] = {}
    for label in first.labels:
        known = [t for scores in alike if (t := scores.thresholds[label]) is not None]
        thresholds[label] = float(np.mean(known)) if known else None
    return Scores(
        "+".join(scores.name for scores in alike),
        "+".join(scores.version for scores in alike),
        first.labels,
        np.mean([scores.p for scores in alike], axis=0),
        thresholds,
    )


def _blended(own: Scores, four: Scores | None, blend: Mapping[str, Any] | None) -> Scores:
    """The binary score joined with what the four-class model says against ``normal``, where the card asks for it.

    ``blend`` holds weights of the two log odds (``own``, ``four``), a ``bias``, and the ``threshold`` of the joint
    score, fitted on validation films, and the ``partner`` that they were fitted with. Without it, or without that
    four-class model, the binary score stands alone.
    """
    if four is None or not blend or NORMAL not in four.labels:
        return own
    against_normal = log_odds(1.0 - four.of(NORMAL))
    joint = blend["own"] * log_odds(own.of(BINARY)) + blend["four"] * against_normal + blend["bias"]
    return Scores(
        f"{own.name}+{four.name}",
        f"{own.version}+{four.version}",
        (BINARY,),
        (1.0 / (1.0 + np.exp(-joint)))[:, None],
        {BINARY: float(blend["threshold"])},
    )


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
        order = number(film.instance.ds, "InstanceNumber")
        for label, value in zip(scores.labels, p, strict=True):
            rows.append(
                SliceScore(
                    instance_key=film.instance.key,
                    frame=film.frame,
                    instance_number=None if order is None else int(order),
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


def voices_of(
    groups: Mapping[str, Sequence[Served]], combined: Mapping[str, Scores], own: Scores, film: int
) -> list[Voice]:
    """Who made the binary score of one film: the binary model, and the four-class one with its strongest kind.

    A four-class model that has not joined the score has a share of 0: its map is a second opinion and no more.
    """
    serving = groups[BINARY][0]
    if FOUR not in groups:
        return [Voice(serving, BINARY, 1.0)]
    four = combined[FOUR]
    kind = max((label for label in four.labels if label != NORMAL), key=lambda label: float(four.of(label)[film]))
    shares = (1.0, 0.0)
    if combined[BINARY] is not own:
        blend = serving.card.parameters["blend"]
        shares = joint_shares(float(own.of(BINARY)[film]), float(four.of(NORMAL)[film]), blend)
    return [Voice(serving, BINARY, shares[0]), Voice(groups[FOUR][0], kind, shares[1])]


def _evidence(
    films: Sequence[Film],
    top: int,
    voices: Sequence[Voice],
    combined: Mapping[str, Scores],
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
        part = film.parts.get(voices[0].package.key, WHOLE)
        numbers |= occlusion_numbers(engine, voices[0], inputs, top, maps.joined, field, part)
    doubtful = positive and low_evidence(maps.joined, field, voices[0].package)
    evidence = Evidence(key_instance=film.instance.key, key_frame=film.frame)
    evidence.pictures["film"] = overlay(film.grey, maps.joined if positive else None, tuple(title))
    return evidence, numbers, doubtful


def _description(film: Film) -> dict[str, Any]:
    """What is kept of the film that the findings are about."""
    return {
        "view": film.view,
        "chest_likeness": round(film.likeness, 2),
        "rows": 0 if film.grey is None else int(film.grey.shape[0]),
        "orientation_known": film.turn.known,
    }


def flag_threshold(scores: Scores) -> float:
    """Where the binary score flags."""
    threshold = scores.thresholds[BINARY]
    return FALLBACK_THRESHOLD if threshold is None else threshold


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
