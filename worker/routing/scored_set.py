"""Which images a pipeline looks at in a revision, and whether those of another revision are the same.

Two revisions have the same scored set where the same instances would be looked at, and each is the same picture under
the same description: bytes that are equal, or pixels that decode to the same values with equal attributes. So an added
dose report and the same images in another lossless transfer syntax change nothing; a lossy one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from firstread.clock import monotonic
from firstread.dicom.datasets import UnusableFile
from firstread.dicom.pixels.reading import UnreadablePixels, iter_frames
from firstread.dicom.values import PARSE_ERRORS, number, text
from firstread.storage.faults import raise_fault
from worker.pipelines.base import StoredInstance, StudyImages
from worker.pipelines.registry import PipelineRow

IDENTITY: Final = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber")
"""Whose study it is and who asked for it."""

LIMIT_S: Final = 60.0

_GROUPS: Final = frozenset({0x0018, 0x0020, 0x0028, 0x2050, 0x5200})
"""Acquisition, position, pixels and their tables, presentation, functional groups: these count as a whole."""

_NAMED: Final = frozenset(
    (
        *("SOPClassUID", "Modality", "ImageType", "SeriesDescription", "StudyDescription", "PresentationIntentType"),
        *("AcquisitionDeviceProcessingDescription", "AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"),
        *("ViewCodeSequence", "RequestedProcedureDescription", "PerformedProcedureStepDescription"),
        *("ProcedureCodeSequence", "RequestedProcedureCodeSequence", "PerformedProtocolCodeSequence"),
    )
)
_LEFT_OUT: Final = frozenset(
    (
        # How the pixels are packed, which an encoding without loss may change.
        *("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "HighBit", "PixelRepresentation"),
        *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
        # What systems on the way write about themselves, and what the keys say already.
        *("ContributingEquipmentSequence", "StudyID"),
    )
)


class Change(StrEnum):
    """What became of a scored set from one revision to another."""

    NONE = "none"
    IDENTITY = "identity"
    """The same pictures, all of them under one other identity."""
    IDENTITY_IN_PART = "identity_in_part"
    IMAGES = "images"


class _TooLong(Exception):
    """The comparison takes longer than it may."""


def scored_images(row: PipelineRow, study: StudyImages) -> tuple[StoredInstance, ...]:
    """The images of the series that a pipeline chooses from, by their UIDs; all images where none would do."""
    series = {i.SeriesInstanceUID for candidate in row.load().select(study).series for i in candidate.instances}
    # An image of such a series that cannot be read counts too: it decides whether a negative may stand.
    chosen = {i.key: i for i in study.instances if i.SeriesInstanceUID in series}
    if not chosen:
        chosen = {i.key: i for i in study.instances if number(i.ds, "Rows") and number(i.ds, "Columns")}
    return tuple(sorted(chosen.values(), key=_name))


def compare(
    before: Sequence[StoredInstance],
    after: Sequence[StoredInstance],
    touch: Callable[[], None] = lambda: None,
    limit_s: float = LIMIT_S,
) -> Change:
    """What changed between two scored sets. Pixels are decoded only of instances whose bytes differ.

    Parameters
    ----------
    touch : callable
        Called as each frame is compared: whoever watches this process sees that it goes on.
    limit_s : float
        A set that takes longer to decode counts as changed, so that it holds up nobody.
    """
    if [_name(i) for i in before] != [_name(i) for i in after] or not after:
        return Change.IMAGES
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old.key != new.key]
    end = monotonic() + limit_s

    def step() -> None:
        touch()
        if monotonic() > end:
            raise _TooLong

    try:
        if not all(_same_content(old, new, step) for old, new in pairs):
            return Change.IMAGES
    except _TooLong:
        return Change.IMAGES
    if not any(is_other(identity_of(old.ds), identity_of(new.ds)) for old, new in pairs):
        return Change.NONE
    return Change.IDENTITY if len({identity_of(i.ds) for i in after}) == 1 else Change.IDENTITY_IN_PART


def is_other(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether a second identity contradicts or completes the first; what it leaves empty it does not."""
    return any(value and value != before for before, value in zip(old, new, strict=True))


def _same_content(old: StoredInstance, new: StoredInstance, step: Callable[[], None]) -> bool:
    digest = content_digest(old, step)
    return digest is not None and digest == content_digest(new, step)


def identity_of(ds: Dataset) -> tuple[str, ...]:
    """Identity that an image bears; empty components of a name and the case of letters say nothing."""
    return tuple(text(ds, keyword).rstrip("^ ").upper() for keyword in IDENTITY)


def content_digest(instance: StoredInstance, step: Callable[[], None] = lambda: None) -> str | None:
    """Digest of decoded pixels and of the attributes that select, gate or score; None where they cannot be read.

    ``step`` is called before each frame, and may raise to end it.
    """
    step()
    digest = hashlib.sha256()
    try:
        digest.update(repr(attributes_of(instance.ds)).encode("utf-8", "surrogatepass"))
        for frame in iter_frames(instance.path, content=instance.content):
            step()
            values = frame if frame.dtype.kind == "f" else frame.astype(np.int64)
            digest.update(repr(frame.shape).encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    except (UnreadablePixels, UnusableFile, OSError, *PARSE_ERRORS) as error:
        raise_fault(error)
        return None
    return digest.hexdigest()


def attributes_of(ds: Dataset) -> list[tuple[str, Any]]:
    """Every attribute that may select, gate or score, as plain values; equal lists mean the same description."""
    attributes = [(element.keyword, _value(element)) for element in ds if counts(element)]
    photometric = text(ds, "PhotometricInterpretation", 32).upper()
    return [*attributes, ("colour", "RGB" if photometric.startswith(("RGB", "YBR")) else photometric)]


def counts(element: DataElement) -> bool:
    """Whether an element is one of those that select, gate or score."""
    keyword, tag = element.keyword, element.tag
    if keyword in _NAMED:
        return True
    if tag.group not in _GROUPS or tag.is_private or not keyword or keyword in _LEFT_OUT:
        return False
    return not (tag.group == 0x0020 and (element.VR == "UI" or keyword.startswith("NumberOf")))


def _value(element: DataElement) -> Any:
    if element.VR == "SQ":
        return [[(e.keyword, _value(e)) for e in item if e.keyword and not e.tag.is_private] for item in element.value]
    value = element.value
    if value is None or value == "":
        return ()
    many = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    if element.VR in ("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL"):
        return tuple(round(float(part), 6) for part in many)
    return tuple(part if isinstance(part, bytes) else str(part).strip() for part in many)


def _name(instance: StoredInstance) -> tuple[str, str]:
    return instance.SeriesInstanceUID, instance.SOPInstanceUID
