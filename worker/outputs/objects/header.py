"""Patient, study and geometry attributes of a source image, suitable to be copied into an object of ours."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from firstread.dicom.dates import offset_of, offset_text
from firstread.dicom.uids import is_standard_uid
from firstread.dicom.values import VALUE_ERRORS, decimal_string, text

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Patient, General Study and so on (PS3.3 C.7.1.1, C.7.2.1): present in every object, empty where not known."""

OPTIONAL = ("StudyDescription", "PatientAge", "IssuerOfPatientID", "BodyPartExamined")
UIDS = ("FrameOfReferenceUID",)
GEOMETRY = (
    "PixelSpacing",
    "ImagerPixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PatientOrientation",
    "ViewPosition",
    "Laterality",
    "ImageType",
    "Modality",
    "InstanceNumber",
)
STRUCTURE = ("Rows", "Columns", "NumberOfFrames")
SEQUENCES = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
)
MACROS = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PlanePositionSequence": ("ImagePositionPatient",),
}
SHAPES = {
    "ImageOrientationPatient": (6, False),
    "ImagePositionPatient": (3, False),
    "PixelSpacing": (2, True),
    "ImagerPixelSpacing": (2, True),
    "SliceThickness": (1, True),
    "SpacingBetweenSlices": (1, True),
}
"""How many numbers there must be, and whether all must be above 0, for a reader to make sense of them."""

MIDNIGHT = datetime(2000, 1, 1, tzinfo=UTC)
"""A fixed offset is the same at any moment."""

SEXES = frozenset({"M", "F", "O"})


def clean_header(ds: Dataset) -> tuple[Dataset, list[str]]:
    """Copy what the objects of ours take over from a source.

    Returns
    -------
    Dataset
        Every attribute of ``TYPE_2`` (empty where the source has none, or none that its VR allows), and of the others
        those that are valid.
    list of str
        ``dropped_<keyword>`` for each that was there and is not valid.
    """
    clean, notes = Dataset(), []
    for keyword in TYPE_2:
        value = _sound_text(ds, keyword)
        if value is None:
            notes.append(f"dropped_{keyword}")
        setattr(clean, keyword, value or None)
    if clean.PatientSex and clean.PatientSex not in SEXES:
        clean.PatientSex = None
        notes.append("dropped_PatientSex")
    for keyword in (*OPTIONAL, *GEOMETRY, *STRUCTURE):
        sound = _sound(ds, keyword)
        if sound is not None and sound != "":
            setattr(clean, keyword, sound)
    offset = offset_of(text(ds, "TimezoneOffsetFromUTC", 16))
    if offset is not None:
        clean.TimezoneOffsetFromUTC = offset_text(offset, MIDNIGHT)
    for keyword in UIDS:
        uid = text(ds, keyword)
        if uid and is_standard_uid(uid):
            setattr(clean, keyword, uid)
        elif uid:
            notes.append(f"dropped_{keyword}")
    for keyword in SEQUENCES:
        if keyword in ds:
            setattr(clean, keyword, ds[keyword].value)
            for group in clean[keyword].value:
                _round_macros(group)
    return clean, notes


def _sound_text(ds: Dataset, keyword: str) -> str | None:
    """Text of an attribute; empty where absent, None where it breaks the rules of its VR."""
    value = text(ds, keyword, limit=1024)
    if not value:
        return ""
    vr = dictionary_VR(keyword)
    if vr in {"DA", "TM"}:
        value = value.replace(":", "").replace("-", "") if re.fullmatch(r"[\d:.\-]+", value) else value
    return value if is_valid(vr, value) else None


def _sound(ds: Dataset, keyword: str) -> Any:
    """Value of an attribute, or None where it is absent or not valid."""
    try:
        value = ds.get(keyword)
        if value is None:
            return None
        vr = dictionary_VR(keyword)
        if vr == "DS":
            value = _rounded(value)
        parts = value if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else [value]
        if vr in {"DS", "IS", "CS", "LO", "SH", "AS"} and not all(is_valid(vr, str(part).strip()) for part in parts):
            return None
        DataElement(keyword, vr, value, validation_mode=config.RAISE)
    except VALUE_ERRORS:
        return None
    return value if keyword not in SHAPES or _has_shape(keyword, parts) else None


def _has_shape(keyword: str, parts: Any) -> bool:
    count, positive = SHAPES[keyword]
    return len(parts) == count and not (positive and any(float(part) <= 0.0 for part in parts))


def _rounded(value: Any) -> Any:
    """Decimal Strings of more than 16 characters, which converted files have, as 16 hold them."""
    many = not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")
    rounded = [
        part if is_valid("DS", str(part).strip()) else decimal_string(float(part))
        for part in (value if many else [value])
    ]
    return rounded if many else rounded[0]


def _round_macros(group: Dataset) -> None:
    """Round what the macros of a functional group (PS3.3 C.7.6.16) say of the geometry, in place."""
    for macro, keywords in MACROS.items():
        for item in group.get(macro) or []:
            for keyword in keywords:
                sound = _sound(item, keyword)
                if sound is not None:
                    setattr(item, keyword, sound)
                elif keyword in item:
                    delattr(item, keyword)


def is_valid(vr: str, value: str) -> bool:
    """Whether a text is legal for a value representation (PS3.5 table 6.2-1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            validate_value(vr, value, config.RAISE)
        except VALUE_ERRORS:
            return False
    return "\\" not in value or vr in {"DS", "IS", "CS"}
