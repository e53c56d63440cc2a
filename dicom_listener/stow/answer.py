"""What answers a request: a status of HTTP, and the Store Instances Response Module (PS3.18 annex I.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as Xml

from dicom_listener.intake.status import OUT_OF_RESOURCES, StoreFailure

DOES_NOT_MATCH: Final = 0xB007
"""Warning Reason: the data set does not match its SOP class (PS3.18 table I.2-1)."""
WARNED_OF: Final = frozenset({"meta_uid_mismatch", "sop_class_missing", "sop_uid_missing", "truncated"})
"""Codes of a stored object's header that its sender is told of."""
TOO_LARGE: Final = "too_large"

FAILED, STORED, OTHERS = "00081198", "00081199", "0008119A"
SOP_CLASS, SOP_INSTANCE, WARNING_REASON, FAILURE_REASON = "00081150", "00081155", "00081196", "00081197"
KEYWORDS: Final = {
    FAILED: "FailedSOPSequence",
    STORED: "ReferencedSOPSequence",
    OTHERS: "OtherFailuresSequence",
    SOP_CLASS: "ReferencedSOPClassUID",
    SOP_INSTANCE: "ReferencedSOPInstanceUID",
    WARNING_REASON: "WarningReason",
    FAILURE_REASON: "FailureReason",
}
NATIVE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

Value = str | int
Item = dict[str, Value]
"""Elements by tag; a number is of VR US, a text of VR UI."""

OK, ACCEPTED, CONFLICT, CONTENT_TOO_LARGE, UNAVAILABLE = 200, 202, 409, 413, 503


@dataclass(frozen=True)
class Result:
    """What became of one part.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid : str
        As the part says it; empty where it does not.
    failure : StoreFailure or None
        Why it is not stored.
    warnings : tuple of str
        Codes of what is wrong with it though it is stored.
    """

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    failure: StoreFailure | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_doubtful(self) -> bool:
        """Whether its sender has to be warned."""
        return not WARNED_OF.isdisjoint(self.warnings)


def status_of(results: Sequence[Result]) -> int:
    """The status of the whole (PS3.18 section 10.5.3.1)."""
    failures = [result.failure for result in results if result.failure is not None]
    if not failures:
        return ACCEPTED if any(result.is_doubtful for result in results) else OK
    if len(failures) < len(results):
        return ACCEPTED
    if all(failure.reason == TOO_LARGE for failure in failures):
        return CONTENT_TOO_LARGE
    if all(failure.status == OUT_OF_RESOURCES and failure.reason != TOO_LARGE for failure in failures):
        return UNAVAILABLE
    return CONFLICT


def sequences_of(results: Sequence[Result]) -> dict[str, list[Item]]:
    """The sequences of the module, by tag; none that is empty.

    Retrieve URL is left out: what is stored is not given back. A part that names no instance is one of the Other
    Failures Sequence.
    """
    failures = [result for result in results if result.failure is not None]
    sequences = {
        FAILED: [result for result in failures if result.sop_instance_uid],
        STORED: [result for result in results if result.failure is None],
        OTHERS: [result for result in failures if not result.sop_instance_uid],
    }
    return {tag: [_item(result) for result in them] for tag, them in sequences.items() if them}


def _item(result: Result) -> Item:
    item: Item = {}
    if result.sop_instance_uid:
        item[SOP_CLASS], item[SOP_INSTANCE] = result.sop_class_uid, result.sop_instance_uid
    if result.failure is not None:
        item[FAILURE_REASON] = result.failure.status
    elif result.is_doubtful:
        item[WARNING_REASON] = DOES_NOT_MATCH
    return item


def as_json(results: Sequence[Result]) -> bytes:
    """The module in the DICOM JSON model (PS3.18 annex F)."""
    return json.dumps(
        {
            tag: {"vr": "SQ", "Value": [{name: _element(value) for name, value in item.items()} for item in items]}
            for tag, items in sequences_of(results).items()
        }
    ).encode()


def _element(value: Value) -> dict[str, object]:
    vr = _vr_of(value)
    return {"vr": vr, "Value": [value]} if value != "" else {"vr": vr}


def _vr_of(value: Value) -> str:
    return "US" if isinstance(value, int) else "UI"


def as_xml(results: Sequence[Result]) -> bytes:
    """The module in the Native DICOM Model (PS3.19 section A.1)."""
    root = Xml.Element("NativeDicomModel", {"xmlns": NATIVE, "xml:space": "preserve"})
    for tag, items in sequences_of(results).items():
        sequence = _attribute(root, tag, "SQ")
        for number, item in enumerate(items, 1):
            node = Xml.SubElement(sequence, "Item", number=str(number))
            for name, value in item.items():
                element = _attribute(node, name, _vr_of(value))
                if value != "":
                    Xml.SubElement(element, "Value", number="1").text = str(value)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + Xml.tostring(root, encoding="unicode").encode()


def _attribute(parent: Xml.Element, tag: str, vr: str) -> Xml.Element:
    return Xml.SubElement(parent, "DicomAttribute", {"tag": tag, "vr": vr, "keyword": KEYWORDS[tag]})
