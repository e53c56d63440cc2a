"""Images that could not be read: the sentence about them, and when they are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from firstread.dicom.pixels.reading import UnreadablePixels
from worker.pipelines.base import StoredInstance, StudyImages

MAX_SHARE: Final = 0.1
"""Share of slices that may be left out of a result that does not flag."""

MOST_CAUSES: Final = 4

GONE: Final = "the file is gone"
UNPARSED: Final = "the header cannot be parsed"


def cause_of(error: Exception) -> str:
    """What stopped the reading of an image, in words."""
    if isinstance(error, UnreadablePixels):
        return str(error)
    return GONE if isinstance(error, FileNotFoundError) else "the file cannot be read"


def sentence(total: int, noun: str, causes: Sequence[str]) -> str:
    """``3 of 32 slices could not be read (2: the file is gone, 1: ...); a finding may lie there.``

    Parameters
    ----------
    total : int
        Images there are, the unread among them.
    noun : str
        What an image is called, in the plural.
    causes : sequence of str
        Why, one an unread image, in words free of patient data.
    """
    counted = Counter(causes).most_common()
    parts = [f"{count}: {cause}" for cause, count in counted[:MOST_CAUSES]]
    if len(counted) > MOST_CAUSES:
        parts.append(f"{sum(count for _, count in counted[MOST_CAUSES:])}: other causes")
    return f"{len(causes)} of {total} {noun} could not be read ({', '.join(parts)}); a finding may lie there."


def lost_beside(study: StudyImages, instances: Iterable[StoredInstance]) -> list[str]:
    """Causes of the study's lost objects that were of a series, or of a class, of these."""
    known = {uid for instance in instances for uid in (instance.SeriesInstanceUID, instance.SOPClassUID)}
    return [entry.cause for entry in study.lost if {entry.SeriesInstanceUID, entry.SOPClassUID} & known]


def too_much(readable: Iterable[float], unread: Sequence[float | None]) -> bool:
    """Whether so many slices are unread, or two beside each other, that the rest does not represent the whole.

    Parameters
    ----------
    readable : iterable of float
        Where the slices lie that were read, on any scale.
    unread : sequence of float or None
        Where the others lie; of several whose place is not known, two may be neighbours.
    """
    seen = [(place, False) for place in readable]
    placed = [(place, True) for place in unread if place is not None]
    if len(unread) > MAX_SHARE * (len(seen) + len(unread)):
        return True
    if len(unread) > 1 and len(placed) < len(unread):
        return True
    order = [missing for _, missing in sorted(seen + placed)]
    return any(a and b for a, b in pairwise(order))
