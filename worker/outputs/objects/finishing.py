"""What all objects of ours share: equipment, dates, character set, and UIDs."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import highdicom as hd
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.valuerep import DA, DT, TM

from firstread.dicom.dates import offset_text
from firstread.dicom.own_objects import MANUFACTURER, MODEL
from firstread.report.words import series_title
from worker.outputs.objects.source import ObjectSource

SERIAL_NUMBER = "0"
_OWN_UIDS = frozenset({Tag("SOPInstanceUID"), Tag("SeriesInstanceUID")})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SERIES_NUMBERS = {"sr": 9901, "seg": 9902, "sc": 9903}


def software_version() -> str:
    """Version of this distribution; ``unknown`` in a tree that was never installed."""
    try:
        return version("firstread")
    except PackageNotFoundError:
        return "unknown"


def common_arguments(source: ObjectSource, kind: str, template: int) -> dict[str, Any]:
    """Arguments that all of highdicom's constructors take. ``template`` is the version of the object's template."""
    made_at = source.made_at
    return {
        "series_instance_uid": source.uid(kind, "series"),
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": source.uid(kind, "instance"),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": (software_version(), f"{kind} template {template}"),
        "device_serial_number": SERIAL_NUMBER,
        "series_description": series_title(source.pipeline, kind),
        "series_date": made_at.date(),
        "series_time": made_at.time(),
        "content_date": made_at.date(),
        "content_time": made_at.time(),
    }


def finish_object(ds: Dataset, source: ObjectSource, kind: str, template: int) -> Dataset:
    """Set what depends on the clock to the source's date, complete patient and study, and make the UIDs.

    The UIDs are made from study, content, result, the template's version and all other bytes of the object: whatever
    changes them (another version of this program, of its texts or of a library, another time zone) makes another
    object, and never one that an archive knows with other bytes.
    """
    made_at = source.made_at
    ds.InstanceCreationDate = DA(made_at.date())
    ds.InstanceCreationTime = TM(made_at.time())
    for keyword in ("ContentDate", "DateOfSecondaryCapture"):
        if keyword in ds:
            setattr(ds, keyword, DA(made_at.date()))
    for keyword in ("ContentTime", "TimeOfSecondaryCapture"):
        if keyword in ds:
            setattr(ds, keyword, TM(made_at.time()))
    for item in ds.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = DT(made_at)
    for keyword in ("StudyDescription", "IssuerOfPatientID", "PatientAge"):
        if keyword in source.header:
            setattr(ds, keyword, source.header[keyword].value)
    ds.SpecificCharacterSet = "ISO_IR 192"
    offset = source.offset
    if offset is not None:
        ds.TimezoneOffsetFromUTC = offset_text(offset, EPOCH)
    elif "TimezoneOffsetFromUTC" in ds:
        del ds.TimezoneOffsetFromUTC
    body = _digest(ds)
    ds.SeriesInstanceUID = source.uid(kind, "series", str(template), body)
    ds.SOPInstanceUID = source.uid(kind, "instance", str(template), body)
    return ds


def _digest(ds: Dataset) -> str:
    """SHA-256 of everything but the object's own UIDs."""
    rest = Dataset()
    for element in ds:
        if element.tag not in _OWN_UIDS:
            rest.add(element)
    buffer = io.BytesIO()
    dcmwrite(buffer, rest, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def algorithm(name: str, version: str) -> hd.AlgorithmIdentificationSequence:
    """Identification of a model package for a segment."""
    return hd.AlgorithmIdentificationSequence(
        name=name[:64], version=version[:64], family=codes.DCM.ArtificialIntelligence
    )
