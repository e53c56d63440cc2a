"""Whether a study was made just now, or long ago: old ones wait behind fresh ones, and nobody is notified at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from firstread.dicom.dates import CreationTime, Span, newest_of
from firstread.dicom.modality import modality_of
from firstread.priority import is_ordered
from firstread.records import Instance, Revision
from firstread.settings import Settings

DATE_IN_FUTURE = "date_in_future"
CLOCK_SLACK = timedelta(minutes=10)
"""How far a scanner's clock may run ahead without a word."""

NO_IMAGES = frozenset({"SR", "PR", "KO", "SEG", "DOC"})
"""Modalities of objects that may be made long after the images."""


def judge(revision: Revision, members: Sequence[Instance], calling_aes: Collection[str], settings: Settings) -> None:
    """Note on a revision when it was made, whether it is old, and a date that lies in the future.

    A study without a date is fresh, and so is one that somebody asked to be served early; the age is that at the
    arrival of the last image, so that nothing grows old while it waits.
    """
    span = made_span(members, settings)
    revision.made_at = span.last if span else None
    revision.old = False
    if span is None:
        return
    if span.first > revision.last_seen_at + CLOCK_SLACK and DATE_IN_FUTURE not in revision.warnings:
        revision.warnings = [*revision.warnings, DATE_IN_FUTURE]
    late = settings.fresh_h > 0 and span.last < revision.last_seen_at - timedelta(hours=settings.fresh_h)
    revision.old = late and not is_ordered(
        {modality_of(i.modality, i.sop_class_uid) for i in members} - {""},
        forced_pipeline=revision.forced_pipeline,
        calling_aes=calling_aes,
        by_calling_ae=settings.priority_by_calling_ae,
        dicom_priorities=[i.dicom_priority for i in members if i.dicom_priority is not None],
    )


def made_span(members: Sequence[Instance], settings: Settings) -> Span | None:
    """When the newest image was made; of other objects only where there is no image."""
    images = [i for i in members if i.modality not in NO_IMAGES] or members
    return newest_of((CreationTime(i.made_kind, i.made_dt) for i in images if i.made_kind and i.made_dt), settings.zone)
