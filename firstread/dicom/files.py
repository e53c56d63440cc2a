"""The typed summary of a header that intake records, and reading it from any file that may hold a data set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileMetaDataset

from firstread.dicom.datasets import NoStudy, NotDicom, UnusableFile, content_of, read_dataset
from firstread.dicom.dates import CreationTime, creation_time_of
from firstread.dicom.uids import UID_LIMIT
from firstread.dicom.values import number, text

__all__ = [
    "Header",
    "NoStudy",
    "NotDicom",
    "UnusableFile",
    "header_in",
    "header_of",
    "patient_key",
    "read_dataset",
    "read_header",
]


@dataclass(frozen=True)
class Header:
    """What intake needs to know about one instance.

    Text is clean: no padding, no control characters. None stands for absent or empty. ``patient_key`` is a SHA-256
    digest that tells two patients apart without naming either; None where the data set names nobody.
    ``warnings`` are codes: ``meta_uid_mismatch``, ``sop_class_missing``, ``sop_uid_missing``, ``truncated``,
    ``no_transfer_syntax``, ``large_element_skipped``.
    """

    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    SOPClassUID: str | None
    TransferSyntaxUID: str | None
    Modality: str | None
    PatientID: str | None
    patient_key: str | None
    AccessionNumber: str | None
    StationName: str | None
    Manufacturer: str | None
    ManufacturerModelName: str | None
    BodyPartExamined: str | None
    InstanceNumber: int | None
    NumberOfFrames: int
    Rows: int | None
    Columns: int | None
    created: CreationTime | None = None
    warnings: tuple[str, ...] = ()


def read_header(path: Path) -> Header:
    """Summary of a file's header.

    Raises
    ------
    NotDicom
        If there is no data set in the file (``reason`` says what is wrong).
    NoStudy
        If Study, Series or SOP Instance UID are missing or impossible.
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as fp:
        return header_in(fp)


def header_in(fp: BinaryIO) -> Header:
    """:func:`read_header` of an open file."""
    content = content_of(fp)
    return header_of(content.ds, content.ds.file_meta, content.notes)


def header_of(ds: Dataset, meta: FileMetaDataset | None = None, notes: tuple[str, ...] = ()) -> Header:
    """Summary of a data set. Where it and the file meta group name different instances, the data set wins.

    Parameters
    ----------
    ds : Dataset
        Data set, pixel data not needed.
    meta : FileMetaDataset or None
        File meta group: stands in for a missing SOP Class UID or SOP Instance UID.
    notes : tuple of str
        Codes that reading found already.

    Raises
    ------
    NotDicom
        ``truncated``, where the file ended before its UIDs.
    NoStudy
        ``missing_uids`` (the detail names which) or ``bad_uid``.
    """
    group2 = meta if meta is not None else FileMetaDataset()
    warnings = list(notes)
    sop_uid, meta_uid = (
        _uid(ds, "SOPInstanceUID"),
        _uid(group2, "MediaStorageSOPInstanceUID"),
    )
    if not sop_uid and meta_uid:
        warnings.append("sop_uid_missing")
        sop_uid = meta_uid
    elif meta_uid and sop_uid != meta_uid:
        warnings.append("meta_uid_mismatch")
    sop_class = _uid(ds, "SOPClassUID")
    if not sop_class:
        warnings.append("sop_class_missing")
        sop_class = _uid(group2, "MediaStorageSOPClassUID")
    uids = {
        "StudyInstanceUID": _uid(ds, "StudyInstanceUID"),
        "SeriesInstanceUID": _uid(ds, "SeriesInstanceUID"),
        "SOPInstanceUID": sop_uid,
    }
    missing = [keyword for keyword, uid in uids.items() if not uid]
    if missing and "truncated" in notes:
        raise NotDicom("truncated", "the file ends before its identifiers")
    if missing:
        raise NoStudy("missing_uids", f"the data set has no {', '.join(missing)}")
    frames = _whole(ds, "NumberOfFrames")
    return Header(
        **uids,
        SOPClassUID=sop_class or None,
        TransferSyntaxUID=_uid(group2, "TransferSyntaxUID") or None,
        Modality=text(ds, "Modality", 16).upper() or None,
        PatientID=text(ds, "PatientID", 128) or None,
        patient_key=patient_key(ds),
        AccessionNumber=text(ds, "AccessionNumber", 64) or None,
        StationName=text(ds, "StationName", 64) or None,
        Manufacturer=text(ds, "Manufacturer", 128) or None,
        ManufacturerModelName=text(ds, "ManufacturerModelName", 128) or None,
        BodyPartExamined=text(ds, "BodyPartExamined", 64).upper() or None,
        InstanceNumber=_whole(ds, "InstanceNumber"),
        NumberOfFrames=frames if frames is not None and frames > 0 else 1,
        Rows=_whole(ds, "Rows"),
        Columns=_whole(ds, "Columns"),
        created=creation_time_of(ds),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def patient_key(ds: Dataset) -> str | None:
    """Digest of who the patient is: of Patient ID, else of name and birth date; None where the header names nobody.

    One patient's name is spelled in many ways, so it counts only where there is no ID; and the issuer of an ID is
    filled in by some systems on the way and not by others, so it does not count.
    """
    patient_id = text(ds, "PatientID", 128)
    if patient_id:
        who = f"id\x1f{patient_id}"
    else:
        name = " ".join(text(ds, "PatientName").replace("^", " ").upper().split())
        if not name:
            return None
        who = f"name\x1f{name}\x1f{text(ds, 'PatientBirthDate', 32)}"
    return hashlib.sha256(who.encode("utf-8", "surrogatepass")).hexdigest()


def _uid(ds: Dataset, keyword: str) -> str:
    uid = text(ds, keyword, UID_LIMIT + 1)
    if len(uid) > UID_LIMIT:
        raise NoStudy("bad_uid", f"{keyword} has more than {UID_LIMIT} characters")
    return uid


def _whole(ds: Dataset, keyword: str) -> int | None:
    value = number(ds, keyword)
    return int(value) if value is not None and abs(value) < 2**31 else None
