"""Rejection notes: Key Object Selections with which a department takes images back (IHE IOCM, PS3.3 A.35.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from firstread.dicom.values import VALUE_ERRORS, text

KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"

QUALITY, PATIENT_SAFETY, WRONG_WORKLIST, EXPIRED = "113001", "113037", "113038", "113039"
TITLES: Final = {
    QUALITY: "Rejected for Quality Reasons",
    PATIENT_SAFETY: "Rejected for Patient Safety Reasons",
    WRONG_WORKLIST: "Incorrect Modality Worklist Entry",
    EXPIRED: "Data Retention Policy Expired",
}
"""Document titles of PS3.16 CID 7011 that reject, in the coding scheme DCM."""


@dataclass(frozen=True)
class RejectionNote:
    """What a rejection note says.

    Attributes
    ----------
    code : str
        One of :data:`TITLES`.
    references : frozenset of (str, str)
        Series and SOP Instance UID of each image that it names in its own study; the series is empty where the note
        names the instance alone.
    """

    code: str
    references: frozenset[tuple[str, str]]

    def names(self, series_uid: str, sop_uid: str) -> bool:
        """Whether it names an instance."""
        return (series_uid, sop_uid) in self.references or ("", sop_uid) in self.references


def rejection_note(ds: Dataset) -> RejectionNote | None:
    """The rejection note in a header; None where it is none."""
    if text(ds, "SOPClassUID", 64) != KEY_OBJECT_SELECTION:
        return None
    for title in _items(ds, "ConceptNameCodeSequence"):
        code = text(title, "CodeValue", 16)
        if code in TITLES and text(title, "CodingSchemeDesignator", 16).upper() == "DCM":
            return RejectionNote(code, _references(ds))
    return None


def _references(ds: Dataset) -> frozenset[tuple[str, str]]:
    """What the evidence of the note's own study names, and what its content names without saying where it lies."""
    own = text(ds, "StudyInstanceUID", 64)
    references: set[tuple[str, str]] = set()
    elsewhere: set[str] = set()
    for study in _items(ds, "CurrentRequestedProcedureEvidenceSequence"):
        for series in _items(study, "ReferencedSeriesSequence"):
            uids = {text(sop, "ReferencedSOPInstanceUID", 64) for sop in _items(series, "ReferencedSOPSequence")}
            if text(study, "StudyInstanceUID", 64) == own:
                references |= {(text(series, "SeriesInstanceUID", 64), uid) for uid in uids}
            else:
                elsewhere |= uids
    known = {uid for _, uid in references} | elsewhere
    for item in _items(ds, "ContentSequence"):
        for sop in _items(item, "ReferencedSOPSequence"):
            uid = text(sop, "ReferencedSOPInstanceUID", 64)
            if uid and uid not in known:
                references.add(("", uid))
    return frozenset(references)


def _items(ds: Dataset, keyword: str) -> Iterable[Dataset]:
    try:
        return list(ds.get(keyword) or [])
    except VALUE_ERRORS:
        return []
