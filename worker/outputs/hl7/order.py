"""Whose study it is, and of which order, as a message to a RIS names them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from pydicom.dataset import Dataset
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.dates import offset_at, offset_text
from firstread.dicom.values import PARSE_ERRORS, text
from firstread.records import Flag, Instance, Job, Revision, Study
from firstread.settings import Settings
from firstread.storage.store import spool_of
from worker.outputs.destinations.file import NotDelivered
from worker.outputs.objects.header import clean_header
from worker.outputs.objects.source import NotWritten, scored_images
from worker.pipelines.reasons import Caution

NO_ACCESSION_NUMBER = "no_accession_number"
ACCESSION_NUMBERS_DIFFER = "accession_numbers_differ"
NO_PATIENT_ID = "no_patient_id"
SOURCE_DELETED = "source_deleted"

_ANY_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
"""A fixed offset is the same at any moment."""

_SEXES = frozenset({"M", "F", "O"})
_UNKNOWN_NAME = ("", "", "", "", "", "", "U")
"""XPN of a patient whose name is not known (v2.5.1 section 3.4.2.5)."""


class NoOrder(Exception):
    """A result cannot be told to a RIS, which would not know whose it is; the text is a short code."""


@dataclass(frozen=True)
class Order:
    """Patient and order of a study.

    Attributes
    ----------
    issuer : str
        Issuer of Patient ID (0010,0021); empty where the images name none.
    names : list of tuple of str
        Components of an XPN for each writing of the name: alphabetic, ideographic, phonetic.
    studied_at : str
        Date and time of the study as a TS.
    """

    patient_id: str
    issuer: str
    names: list[tuple[str, ...]]
    birth_date: str
    sex: str
    accession_number: str
    study_instance_uid: str
    studied_at: str

    def private(self) -> list[str]:
        """Every value that nothing but the message itself may hold."""
        parts = [part for name in self.names for part in name[:6]]
        return [part for part in (*parts, self.patient_id, self.accession_number, *self._birth_dates()) if part]

    def _birth_dates(self) -> list[str]:
        """The birth date as receivers write it."""
        day = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", self.birth_date)
        if day is None:
            return [self.birth_date]
        y, m, d = day.groups()
        return [self.birth_date, f"{y}-{m}-{d}", f"{y}/{m}/{d}", f"{d}.{m}.{y}", f"{d}/{m}/{y}", f"{m}/{d}/{y}"]


def read_order(session: Session, settings: Settings, job: Job) -> Order:
    """Patient and order of a job's images, by their headers; the study's row says what no header does.

    Raises
    ------
    NoOrder
        Where the images name two patients or two orders, no Patient ID or no Accession Number, or were deleted.
    NotDelivered
        Where they cannot be read now.
    """
    revision = session.get_one(Revision, job.revision_id)
    study = session.get_one(Study, revision.study_id)
    header, accession_numbers = _header(settings, _images(session, job))
    patient_id = str(header.get("PatientID") or study.patient_id or "").strip()
    if len(accession_numbers) > 1:
        raise NoOrder(ACCESSION_NUMBERS_DIFFER)
    accession_number = next(iter(accession_numbers), "") or (study.accession_number or "").strip()
    if not patient_id:
        raise NoOrder(NO_PATIENT_ID)
    if not accession_number:
        raise NoOrder(NO_ACCESSION_NUMBER)
    sex = str(header.get("PatientSex") or "")
    return Order(
        patient_id=patient_id,
        issuer=str(header.get("IssuerOfPatientID") or ""),
        names=names_of(str(header.get("PatientName") or "")),
        birth_date=str(header.get("PatientBirthDate") or ""),
        sex=sex if sex in _SEXES else "",
        accession_number=accession_number,
        study_instance_uid=study.study_instance_uid,
        studied_at=study_time(header, settings.zone) or timestamp(revision.last_seen_at, settings.zone),
    )


def has_flag(session: Session, settings: Settings, job: Job, order: Order) -> bool:
    """Whether a flag was raised for an order or for the job's study, whichever study, result or pipeline raised it.

    Studies are of one order where patient and accession number are the same, by their rows or by the images that were
    flagged: a row may have been corrected since.

    Raises
    ------
    NotDelivered
        Where the images of another study cannot be read now.
    """
    own = session.get_one(Revision, job.revision_id).study_id
    near = or_(Study.id == own, Study.patient_id == order.patient_id, Study.accession_number == order.accession_number)
    studies = session.scalars(select(Study).where(near, Study.id.in_(select(Flag.study_id)))).all()
    wanted = (order.patient_id, order.accession_number)
    if any(study.id == own or (study.patient_id, study.accession_number) == wanted for study in studies):
        return True
    return any(
        _named_in_images(session, settings, study, each) == wanted
        for study in studies
        for revision in study.revisions
        for each in session.scalars(select(Job).where(Job.revision_id == revision.id))
    )


def _named_in_images(session: Session, settings: Settings, study: Study, job: Job) -> tuple[str, str]:
    """Patient ID and accession number by the first image of a job that can be read, else by the study's row."""
    try:
        ds = next(_headers(settings, _images(session, job)), Dataset())
    except NoOrder:
        ds = Dataset()
    return (
        text(ds, "PatientID", 128) or study.patient_id or "",
        text(ds, "AccessionNumber", 64) or study.accession_number or "",
    )


def _images(session: Session, job: Job) -> list[Instance]:
    """Images that were scored."""
    if Caution.PATIENT_MISMATCH in job.warnings:
        raise NoOrder(str(Caution.PATIENT_MISMATCH))
    try:
        return scored_images(session, job)[1]
    except NotWritten as error:
        raise NoOrder(error.reason) from error


def _header(settings: Settings, images: Sequence[Instance]) -> tuple[Dataset, set[str]]:
    """Clean header of the first image that can be read, and every accession number that one of them names."""
    first: Dataset | None = None
    accession_numbers = set()
    for ds in _headers(settings, images, every=True):
        first = ds if first is None else first
        accession_numbers.add(text(ds, "AccessionNumber", 64))
    if first is not None:
        return clean_header(first)[0], accession_numbers - {""}
    if all(image.deleted_at is not None for image in images):
        raise NoOrder(SOURCE_DELETED)
    raise NotDelivered("the images cannot be read now")


def _headers(settings: Settings, images: Sequence[Instance], *, every: bool = False) -> Iterator[Dataset]:
    """Headers of the images that are there; what is missing or broken is left out, as by scoring.

    Parameters
    ----------
    every : bool
        All of them will be asked for.

    Raises
    ------
    NotDelivered
        Where disk or store do not answer: another attempt finds more.
    """
    spool = spool_of(settings)
    there = [image for image in images if image.deleted_at is None]
    try:
        if every:
            spool.prefetch(image.spool_key for image in there)
        for image in there:
            try:
                ds = read_dataset(spool.path(image.spool_key))
            except (FileNotFoundError, UnusableFile, *PARSE_ERRORS):
                continue
            yield ds
    except OSError as error:
        raise NotDelivered(f"the images cannot be read now ({type(error).__name__})") from error


def names_of(name: str) -> list[tuple[str, ...]]:
    """A Person Name (PS3.5 section 6.2) as XPN, one for each of its component groups."""
    groups = name.split("=")[:3]
    names: list[tuple[str, ...]] = []
    for group, writing in zip(groups, ("A", "I", "P"), strict=False):
        family, given, middle, prefix, suffix = [part.strip() for part in (group.split("^") + [""] * 5)[:5]]
        if family or given or middle:
            names.append((family, given, middle, suffix, prefix, "", "L", writing if len(groups) > 1 else ""))
    return names or [_UNKNOWN_NAME]


def study_time(header: Dataset, zone: tzinfo | None) -> str:
    """Study Date and Study Time as a TS (v2.5.1 section 2.A.77), to the second; empty where no date is known.

    The offset from UTC is that of the image, else that of the site's zone at that time.
    """
    day, time = str(header.get("StudyDate") or ""), str(header.get("StudyTime") or "")
    if not re.fullmatch(r"\d{8}", day):
        return ""
    known = re.match(r"(\d\d\d\d(\d\d)?)?", time)
    digits = known[0] if known else ""
    if not digits:
        return day
    offset = str(header.get("TimezoneOffsetFromUTC") or "")
    of_zone = offset_at(zone, day, time) if zone is not None and not offset else None
    return day + digits + (offset if of_zone is None else offset_text(of_zone, _ANY_MOMENT))


def timestamp(at: datetime, zone: tzinfo | None) -> str:
    """A moment as a TS with its offset from UTC, in a zone; in this machine's where none is known."""
    local = at.astimezone(zone)
    own = local.tzinfo
    assert own is not None, "astimezone makes an aware time"
    return local.strftime("%Y%m%d%H%M%S") + offset_text(own, local)
