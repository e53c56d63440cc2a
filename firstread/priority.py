"""Who is served first: 0 before 9, as on the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypeVar

from firstread import pipelines

Moment = TypeVar("Moment", datetime, float)

HIGHEST, LOWEST = 0, 9
DEFAULT = 6
"""Of studies that no pipeline is known to want."""

DICOM_HIGH, DICOM_LOW = 1, 2


def priority_of(
    modalities: Iterable[str],
    *,
    forced_pipeline: str | None = None,
    ordered: Iterable[str] = (),
    calling_aes: Iterable[str] = (),
    by_calling_ae: Mapping[str, int] | None = None,
    dicom_priorities: Iterable[int] = (),
    by_hand: int | None = None,
) -> int:
    """Priority of a revision at its close.

    The pipeline's default (the one asked for by folder, else those guessed from Modality and ``ordered`` for the
    sender), then the most urgent rule for a calling AE,
    then the Priority of the C-STORE (PS3.7 9.1.1.1: high moves two steps up, low one down); by hand overrides all.
    """
    if by_hand is not None:
        return min(max(by_hand, HIGHEST), LOWEST)
    priority = _default(modalities, forced_pipeline, ordered)
    rules = [(by_calling_ae or {})[ae] for ae in calling_aes if ae in (by_calling_ae or {})]
    priority = min([priority, *rules])
    wishes = set(dicom_priorities)
    if DICOM_HIGH in wishes:
        priority -= 2
    elif wishes == {DICOM_LOW}:
        priority += 1
    return min(max(priority, HIGHEST), LOWEST)


def is_ordered(
    modalities: Iterable[str],
    *,
    forced_pipeline: str | None = None,
    calling_aes: Iterable[str] = (),
    by_calling_ae: Mapping[str, int] | None = None,
    dicom_priorities: Iterable[int] = (),
) -> bool:
    """Whether somebody asked for a study to be served early: by an inbox folder, a rule for its sender, or C-STORE.

    A rule that would put the sender's studies behind their default does not count as a request.
    """
    if forced_pipeline is not None or DICOM_HIGH in set(dicom_priorities):
        return True
    default = _default(modalities, None, ())
    return any((by_calling_ae or {}).get(ae, LOWEST + 1) <= default for ae in calling_aes)


def on_broker(priority: int, old: bool) -> int:
    """Priority of a doorbell: that of an old study lies a step behind fresh ones of its own, as far as there is one."""
    return min(priority + 1, LOWEST) if old else priority


def _default(modalities: Iterable[str], forced_pipeline: str | None, ordered: Iterable[str]) -> int:
    guessed = [pipelines.of_modality(modality) for modality in modalities]
    asked = [pipelines.described(name) for name in ordered]
    served = [pipelines.described(forced_pipeline)] if forced_pipeline else [*guessed, *asked]
    return min((DEFAULT if pipeline is None else pipeline.priority for pipeline in served), default=DEFAULT)


def claim_order(priority: int, old: bool, alone: bool, closed_at: Moment) -> tuple[int, bool, bool, Moment]:
    """Key by which waiting work is claimed, the smallest first.

    The more urgent first, of one priority fresh studies before old ones, then jobs that may share a worker before those
    that run alone, then what was complete first.
    """
    return (priority, old, alone, closed_at)


def engine_rank(priority: int, old: bool) -> int:
    """Place in the engine's queue, 0 first: an old study's images come after fresh ones of its priority."""
    return 2 * priority + old
