"""What a rejection note names, and what is none."""

from __future__ import annotations

import copy

import pytest
from pydicom.dataset import Dataset

from firstread.dicom.rejection import TITLES, rejection_note
from tests.builders.listening import small_series
from tests.builders.rejection import rejection


@pytest.mark.parametrize("code", sorted(TITLES))
def test_each_title_names_its_images(code: str) -> None:
    images = small_series(3)
    note = rejection_note(rejection(images[:2], code))
    assert note is not None and note.code == code
    named = [note.names(i.SeriesInstanceUID, i.SOPInstanceUID) for i in images]
    assert named == [True, True, False]
    assert not note.names("1.2.3", images[0].SOPInstanceUID), "another series that shares the SOP Instance UID"


def test_other_titles_schemes_and_classes_reject_nothing() -> None:
    images = small_series(2)
    assert rejection_note(rejection(images, "113000")) is None, "Of Interest"
    assert rejection_note(rejection(images, "113001", scheme="99LOCAL")) is None
    report = rejection(images, "113001")
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    assert rejection_note(report) is None
    assert rejection_note(Dataset()) is None
    empty = rejection(images, "113001")
    del empty.CurrentRequestedProcedureEvidenceSequence, empty.ContentSequence
    note = rejection_note(empty)
    assert note is not None and not note.references


def test_images_of_other_studies_are_not_named_and_content_alone_names_by_uid() -> None:
    images = small_series(2)
    other = copy.deepcopy(rejection(images, "113037"))
    other.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = "1.2.3"
    note = rejection_note(other)
    assert note is not None and not note.references
    bare = rejection(images, "113037")
    del bare.CurrentRequestedProcedureEvidenceSequence
    note = rejection_note(bare)
    assert note is not None and note.names("any series", images[1].SOPInstanceUID)
