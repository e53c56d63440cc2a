"""Which tasks of a pipeline a package serves by itself, and which only beside others."""

from __future__ import annotations

from worker.packages.card import Card

SERVED: dict[str, frozenset[str]] = {
    "head_ct": frozenset({"bleed"}),
    "chest_xray": frozenset({"pneumonia", "pneumonia4"}),
    "dermoscopy": frozenset({"lesion"}),
}
"""Pipeline -> tasks whose newest package is active where nobody has decided; of other pipelines, any task."""

BASELINES = frozenset({"bleed_slice"})
"""Tasks that are there to compare with: their packages may be shadows, and never raise or average a flag."""


def serves_unasked(card: Card) -> bool:
    """Whether the newest package of the card's task is active until somebody decides otherwise."""
    return card.task not in BASELINES and card.task in SERVED.get(card.pipeline, frozenset({card.task}))
