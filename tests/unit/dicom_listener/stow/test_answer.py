"""Status and body of the answer to a STOW-RS request."""

from __future__ import annotations

import json
from collections.abc import Callable
from xml.etree.ElementTree import fromstring

import pydicom
import pytest
from dicomweb_client.web import _load_xml_dataset

from dicom_listener.intake.status import StoreFailure
from dicom_listener.stow.answer import Result, as_json, as_xml, status_of

GOOD = Result("1.2", "1.2.3")
DOUBTFUL = Result("1.2", "1.2.4", warnings=("truncated",))
FINE = Result("1.2", "1.2.5", warnings=("large_element_skipped",))


def _failed(status: int, reason: str, uid: str = "1.2.9") -> Result:
    return Result("1.2", uid, StoreFailure(status, reason))


NO_ROOM, LARGE, STRANGE = _failed(0xA700, "disk_full"), _failed(0xA700, "too_large"), _failed(0xC000, "not_dicom", "")


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([GOOD, FINE], 200),
        ([GOOD, DOUBTFUL], 202),
        ([GOOD, STRANGE], 202),
        ([GOOD, NO_ROOM], 202),
        ([STRANGE], 409),
        ([STRANGE, LARGE], 409),
        ([LARGE, LARGE], 413),
        ([NO_ROOM], 503),
        ([NO_ROOM, LARGE], 409),
        ([NO_ROOM, STRANGE], 409),
    ],
)
def test_the_status_of_the_whole(results: list[Result], status: int) -> None:
    assert status_of(results) == status


def _from_json(results: list[Result]) -> pydicom.Dataset:
    return pydicom.Dataset.from_json(json.loads(as_json(results)))


def _from_xml(results: list[Result]) -> pydicom.Dataset:
    return _load_xml_dataset(fromstring(as_xml(results)))


@pytest.mark.parametrize("read", [_from_json, _from_xml])
def test_the_module_names_each_instance_once(read: Callable[[list[Result]], pydicom.Dataset]) -> None:
    ds = read([GOOD, DOUBTFUL, LARGE, STRANGE])
    stored, failed, others = ds.ReferencedSOPSequence, ds.FailedSOPSequence, ds.OtherFailuresSequence
    assert [(item.ReferencedSOPInstanceUID, item.get("WarningReason")) for item in stored] == [
        ("1.2.3", None),
        ("1.2.4", 0xB007),
    ]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in failed] == [("1.2.9", 0xA700)]
    assert [item.FailureReason for item in others] == [0xC000]
    assert "RetrieveURL" not in ds and "RetrieveURL" not in stored[0]
