"""Which tasks of a pipeline a package serves by itself, and which only beside others."""

from __future__ import annotations

from firstread import pipelines
from worker.packages.card import Card


def is_baseline(card: Card) -> bool:
    """Whether a package is there to compare with: it may be a shadow, and never raises or averages a flag."""
    return any(card.task in pipeline.baselines for pipeline in pipelines.PIPELINES)


def serves_unasked(card: Card) -> bool:
    """Whether the newest package of the card's task is active until somebody decides otherwise."""
    pipeline = pipelines.described(card.pipeline)
    return not is_baseline(card) and (pipeline is None or card.task in pipeline.tasks)
