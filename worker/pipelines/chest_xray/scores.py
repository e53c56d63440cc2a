"""Scores of chest films: of each package, of several of one task, and of the binary and the four-class one joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from firstread.pipelines import CHEST_XRAY
from worker.packages.card import JOINT_FLAG, Card
from worker.packages.operating_points import AgeGroup, NoFlag
from worker.pipelines.base import Engine, Served
from worker.pipelines.chest_xray.evidence import Voice, joint_shares
from worker.pipelines.chest_xray.maps import OCCLUSION_GRID, FilmPart, PatchGrid, log_odds, occlusion_map
from worker.pipelines.ensemble import ModelScores, mean_scores

BINARY: Final = CHEST_XRAY.leading
FOUR: Final = "pneumonia4"
NORMAL: Final = "normal"


def combined_scores(
    groups: Mapping[str, Sequence[Served]],
    outputs: Mapping[str, Mapping[str, np.ndarray]],
    age_group: AgeGroup = "unknown",
) -> tuple[dict[str, ModelScores], ModelScores]:
    """Scores by task, of active packages alone, the binary one joined where its card asks; and the binary one alone.

    Thresholds are those of the age group.
    """
    combined = {
        task: _mean_of_alike([scores_of(p, outputs[p.key], age_group) for p in group]) for task, group in groups.items()
    }
    alone = combined[BINARY]
    four = None if partner_missing(groups) else combined.get(FOUR)
    return combined | {BINARY: _blended(alone, four, groups[BINARY][0].card, age_group)}, alone


def no_flag_reason(groups: Mapping[str, Sequence[Served]], joined: bool, age_group: AgeGroup) -> NoFlag | None:
    """Why the binary score never flags in an age group: the first reason that is not ``hint``, else ``hint``."""
    name = JOINT_FLAG if joined else "flag"
    cards = [served.card for served in groups[BINARY]][: 1 if joined else None]
    points = [card.point(BINARY, name) for card in cards]
    reasons = [reason for point in points if point is not None and (reason := point.no_flag_for(age_group)) is not None]
    return next((reason for reason in reasons if reason != "hint"), reasons[0] if reasons else None)


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
    identities = [{"name": p.card.name, "version": p.card.version, "sha256": p.card.sha256} for p in active]
    return identities != [partner]


def scores_of(package: Served, arrays: Mapping[str, np.ndarray], age_group: AgeGroup = "unknown") -> ModelScores:
    """Scores of each film by one package, with the thresholds of the age group."""
    card = package.card
    points = {label: card.point(label) for label in card.labels}
    known = {label: point.threshold_for(age_group) for label, point in points.items() if point is not None}
    return ModelScores(card.name, card.version, tuple(card.labels), np.asarray(arrays["p"], dtype=np.float64), known)


def _mean_of_alike(members: Sequence[ModelScores]) -> ModelScores:
    """Mean of the packages that have the labels of the first."""
    return mean_scores([scores for scores in members if scores.labels == members[0].labels])


def _blended(own: ModelScores, four: ModelScores | None, card: Card, age_group: AgeGroup) -> ModelScores:
    """The binary score joined with what the four-class model says against ``normal``, where the card asks for it.

    ``blend`` holds weights of the two log odds (``own``, ``four``), a ``bias``, and the ``threshold`` of the joint
    score, fitted on validation films, and the ``partner`` that they were fitted with. Where the card has an operating
    point ``joint_flag`` by age, ``blend`` has no ``threshold``. Without it, or without that four-class model, the
    binary score stands alone.
    """
    blend: Mapping[str, Any] | None = card.parameters.get("blend")
    if four is None or not blend or NORMAL not in four.labels:
        return own
    against_normal = log_odds(1.0 - four.of(NORMAL))
    joint = blend["own"] * log_odds(own.of(BINARY)) + blend["four"] * against_normal + blend["bias"]
    return ModelScores(
        f"{own.name}+{four.name}",
        f"{own.version}+{four.version}",
        (BINARY,),
        (1.0 / (1.0 + np.exp(-joint)))[:, None],
        {BINARY: float(blend["threshold"]) if "threshold" in blend else card.threshold(BINARY, JOINT_FLAG, age_group)},
    )


def voices_of(
    groups: Mapping[str, Sequence[Served]], combined: Mapping[str, ModelScores], own: ModelScores, film: int
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


def joint_occlusion(
    engine: Engine,
    groups: Mapping[str, Sequence[Served]],
    inputs: Mapping[str, np.ndarray],
    film: int,
    parts: Mapping[str, FilmPart],
    p_plain: float,
    grid: PatchGrid = OCCLUSION_GRID,
) -> np.ndarray:
    """How far the log odds of the score that flags fall where one film is blurred: float32, the grid's shape.

    Parameters
    ----------
    groups : mapping
        Active packages by task; the four-class ones are run only where they have joined the score.
    p_plain : float
        The score that flags for the film as it is.
    """
    blend = groups[BINARY][0].card.parameters.get("blend")
    joined = {BINARY: groups[BINARY]}
    if blend and FOUR in groups and not partner_missing(groups):
        joined[FOUR] = groups[FOUR]
    keys = [package.key for group in joined.values() for package in group]

    def score(blocked: Mapping[str, np.ndarray]) -> np.ndarray:
        outputs = {key: engine.run(key, x) for key, x in blocked.items()}
        return log_odds(combined_scores(joined, outputs)[0][BINARY].of(BINARY))

    plain = float(log_odds(np.asarray(p_plain)))
    return occlusion_map({key: inputs[key][film] for key in keys}, score, plain, parts, grid)
