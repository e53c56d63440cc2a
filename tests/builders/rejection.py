"""Rejection notes: Key Object Selections with a title of IHE IOCM."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from firstread.dicom.rejection import TITLES
from firstread.dicom.uids import stable_uid


def rejection(images: Sequence[Dataset], code: str, scheme: str = "DCM") -> Dataset:
    """A note that names ``images``, which lie in one study; equal arguments give equal bytes."""
    first = images[0]
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.88.59", "KO"
    ds.StudyInstanceUID = first.StudyInstanceUID
    ds.SeriesInstanceUID = stable_uid(first.StudyInstanceUID, "notes", code)
    ds.SOPInstanceUID = stable_uid(ds.SeriesInstanceUID, *(i.SOPInstanceUID for i in images))
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"):
        setattr(ds, keyword, first.get(keyword, ""))
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, scheme, TITLES.get(code, "Of Interest")
    ds.ConceptNameCodeSequence = Items([title])
    evidence = Dataset()
    evidence.StudyInstanceUID = first.StudyInstanceUID
    evidence.ReferencedSeriesSequence = Items()
    for uid in dict.fromkeys(image.SeriesInstanceUID for image in images):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = Items(_reference(i) for i in images if i.SeriesInstanceUID == uid)
        evidence.ReferencedSeriesSequence.append(series)
    ds.CurrentRequestedProcedureEvidenceSequence = Items([evidence])
    ds.ContentSequence = Items(_item(image) for image in images)
    return ds


def _reference(image: Dataset) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return ds


def _item(image: Dataset) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = "CONTAINS", "IMAGE"
    ds.ReferencedSOPSequence = Items([_reference(image)])
    return ds
