"""Scores of chest films: of each package, of several of one task, and of the binary and the four-class one joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from firstread.pipelines import CHEST_XRAY
from worker.pipelines.base import Engine, Served
from worker.pipelines.chest_xray.evidence import Voice, joint_shares
from worker.pipelines.chest_xray.maps import OCCLUSION_GRID, Grid, Part, log_odds, occlusion_map

BINARY: Final = CHEST_XRAY.leading
FOUR: Final = "pneumonia4"
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


def combined_scores(
    groups: Mapping[str, Sequence[Served]], outputs: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, Scores], Scores]:
    """Scores by task, of active packages alone, the binary one joined where its card asks; and the binary one alone."""
    combined = {task: _mean([scores_of(p, outputs[p.key]) for p in group]) for task, group in groups.items()}
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


def scores_of(package: Served, arrays: Mapping[str, np.ndarray]) -> Scores:
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


def flag_threshold(scores: Scores) -> float:
    """Where the binary score flags."""
    threshold = scores.thresholds[BINARY]
    return FALLBACK_THRESHOLD if threshold is None else threshold


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


def joint_occlusion(
    engine: Engine,
    groups: Mapping[str, Sequence[Served]],
    inputs: Mapping[str, np.ndarray],
    film: int,
    parts: Mapping[str, Part],
    p_plain: float,
    grid: Grid = OCCLUSION_GRID,
) -> np.ndarray:
    """How far the log odds of the score that flags fall where one film is blurred: float32, the grid's shape.

    ``p_plain`` is that score for the film as it is.

    ``groups`` are the active packages by task; the four-class ones are asked only where they have joined the score.
    """
    blend = groups[BINARY][0].card.parameters.get("blend")
    asked = {BINARY: groups[BINARY]}
    if blend and FOUR in groups and not partner_missing(groups):
        asked[FOUR] = groups[FOUR]
    keys = [package.key for group in asked.values() for package in group]

    def score(blocked: Mapping[str, np.ndarray]) -> np.ndarray:
        outputs = {key: engine.run(key, x) for key, x in blocked.items()}
        return log_odds(combined_scores(asked, outputs)[0][BINARY].of(BINARY))

    plain = float(log_odds(np.asarray(p_plain)))
    return occlusion_map({key: inputs[key][film] for key in keys}, score, plain, parts, grid)
