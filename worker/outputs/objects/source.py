"""The source of the objects of one job: its rows, the headers of its images, and the evidence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.dates import offset_at, offset_of, offset_text
from firstread.dicom.uids import is_standard_uid, stable_uid
from firstread.dicom.values import PARSE_ERRORS
from firstread.pipelines import leading_finding
from firstread.records import (
    Flag,
    Instance,
    Job,
    OutputObject,
    Result,
    Revision,
    RevisionInstance,
    SliceScoreRow,
    Study,
    newest_of_each,
)
from firstread.report.evidence import key_picture, mask_of, renumbering
from firstread.report.predictive_value import words_of
from firstread.settings import Settings
from firstread.storage.store import spool_of
from worker.outputs.objects.header import clean_header


class NotWritten(Exception):
    """An object cannot be made of this source. ``reason`` is a short code."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass
class ObjectSource:
    """One job's result with everything that its objects need.

    Attributes
    ----------
    header : Dataset
        Clean header of the key image: patient, study and geometry.
    images : list of Instance
        Rows of the scored series, in the order of the revision.
    digest : str
        Of the revision's content and of the result: the same digest means the same objects.
    """

    study: Study
    revision: Revision
    job: Job
    findings: list[Result]
    images: list[Instance]
    key: Instance
    key_frame: int
    header: Dataset
    digest: str
    settings: Settings
    notes: list[str] = field(default_factory=list)
    headers: dict[int, Dataset] = field(default_factory=dict)
    """Clean headers that were read already, by the keys of their images."""
    renumbered: dict[int, int] = field(default_factory=dict)
    """For a result that was carried over: keys of the images that were scored, each with that of its later copy."""
    predecessors: list[Dataset] = field(default_factory=list)
    """References to the reports of which this result's report is the next version."""

    @property
    def pipeline(self) -> str:
        """The pipeline whose result this is."""
        return self.job.pipeline

    @property
    def offset(self) -> timezone | None:
        """Offset from UTC of all times of the objects; None where it is not known.

        That of the image. Else the site's on the day of the study, since one Timezone Offset From UTC (0008,0201)
        rules the copied study times and the objects' own alike (PS3.3 C.12.1.1.8).
        """
        own = offset_of(str(self.header.get("TimezoneOffsetFromUTC") or ""))
        zone = self.settings.zone
        if own is not None or zone is None:
            return own
        day, time = str(self.header.StudyDate or ""), str(self.header.StudyTime or "")
        return offset_at(zone, day, time) or offset_of(offset_text(zone, self._closed_at))

    @property
    def made_at(self) -> datetime:
        """The date of the objects: when the revision was closed, so that a second run makes the same bytes.

        Without a zone, in :attr:`offset`; in this machine's own zone where that is not known.
        """
        return self._closed_at.astimezone(self.offset).replace(tzinfo=None, microsecond=0)

    @property
    def _closed_at(self) -> datetime:
        return self.revision.closed_at or self.revision.last_seen_at

    def uid(self, *parts: str) -> str:
        """A UID that depends on study, content, result and ``parts`` alone."""
        return stable_uid(self.study.study_instance_uid, self.digest, *parts)

    def header_of(self, image: Instance) -> Dataset:
        """Clean header of an image of the series, read once. Raises :class:`NotWritten`."""
        if image.id not in self.headers:
            self.headers[image.id] = read_clean_header(self.settings, self.study, image, self.notes)
        return self.headers[image.id]

    def picture(self) -> np.ndarray | None:
        """Picture of the evidence, (H, W, 3) uint8, or None."""
        return key_picture(self.settings, self.job.evidence_path)

    def mask(self) -> tuple[np.ndarray, list[tuple[int, int]]] | None:
        """Mask (n, H, W) of bool and the (instance key, frame) of each plane, or None."""
        return mask_of(self.settings, self.job.evidence_path, self.renumbered)

    def check_references(self) -> None:
        """Raise :class:`NotWritten` unless every image of the series can be referenced legally."""
        for image in self.images:
            if not is_standard_uid(image.sop_instance_uid) or not is_standard_uid(image.series_instance_uid):
                raise NotWritten("illegal_source_uid")
            if not is_standard_uid(image.sop_class_uid):
                raise NotWritten("no_sop_class")

    def reference(self, image: Instance) -> Dataset:
        """A header with nothing but the identity of an image."""
        ds = Dataset()
        ds.StudyInstanceUID = self.study.study_instance_uid
        ds.SeriesInstanceUID = image.series_instance_uid
        ds.SOPInstanceUID = image.sop_instance_uid
        ds.SOPClassUID = image.sop_class_uid
        return ds


def gather(session: Session, settings: Settings, job: Job) -> ObjectSource:
    """Collect what the objects of a job need. Raises :class:`NotWritten`."""
    revision = session.get_one(Revision, job.revision_id)
    study = session.get_one(Study, revision.study_id)
    if not is_standard_uid(study.study_instance_uid):
        raise NotWritten("illegal_study_uid")
    findings = list(
        session.scalars(
            select(Result)
            .where(Result.job_id == job.id, Result.run == job.run, Result.role == "active")
            .order_by(Result.finding, Result.model_name)
        )
    )
    if not findings:
        raise NotWritten("no_findings")
    members, images = scored_images(session, job)
    key, frame = _key_image(session, job, images)
    notes: list[str] = []
    header = read_clean_header(settings, study, key, notes)
    digest = _digest(members, job, findings)
    source = ObjectSource(
        study, revision, job, findings, images, key, frame, header, digest, settings, notes, {key.id: header}
    )
    if job.carried_from is not None:
        source.renumbered = renumbering(session, job)
        source.predecessors = _predecessors(session, study, job.carried_from)
    return source


def scored_images(session: Session, job: Job) -> tuple[list[Instance], list[Instance]]:
    """Images of a job's revision that count, and those of the series that was scored, or all where none was picked.

    Raises
    ------
    NotWritten
        Where there are none, or they name two patients.
    """
    members = list(
        session.scalars(
            select(Instance)
            .join(RevisionInstance, RevisionInstance.instance_id == Instance.id)
            .where(RevisionInstance.revision_id == job.revision_id, RevisionInstance.left_out.is_(None))
            .order_by(Instance.series_instance_uid, Instance.instance_number, Instance.id)
        )
    )
    images = newest_of_each([m for m in members if m.series_instance_uid == job.series_instance_uid] or members)
    if not images:
        raise NotWritten("no_images")
    if len({image.patient_key for image in images}) > 1:
        raise NotWritten("patient_mismatch")
    return members, images


def _predecessors(session: Session, study: Study, job_id: int) -> list[Dataset]:
    """The last report that was made of an earlier job (Predecessor Documents, PS3.3 C.17.2)."""
    report = session.scalars(
        select(OutputObject)
        .where(OutputObject.job_id == job_id, OutputObject.kind == "sr", OutputObject.sop_instance_uid.is_not(None))
        .order_by(OutputObject.run.desc())
        .limit(1)
    ).first()
    if report is None:
        return []
    ds = Dataset()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_instance_uid, report.series_instance_uid
    ds.SOPClassUID, ds.SOPInstanceUID = report.sop_class_uid, report.sop_instance_uid
    return [ds]


def read_clean_header(settings: Settings, study: Study, image: Instance, notes: list[str]) -> Dataset:
    """Header of a stored image, cleaned; what was dropped is added to ``notes``.

    Raises
    ------
    NotWritten
        Where the file is gone or cannot be read.
    """
    try:
        ds = read_dataset(spool_of(settings).path(image.spool_key))
    except FileNotFoundError as error:
        raise NotWritten("source_deleted") from error
    except (UnusableFile, OSError, *PARSE_ERRORS) as error:
        raise NotWritten("source_unreadable", type(error).__name__) from error
    header, dropped = clean_header(ds)
    notes.extend(note for note in dropped if note not in notes)
    header.StudyInstanceUID = study.study_instance_uid
    header.SeriesInstanceUID = image.series_instance_uid
    header.SOPInstanceUID = image.sop_instance_uid
    header.SOPClassUID = image.sop_class_uid
    return header


def _key_image(session: Session, job: Job, images: list[Instance]) -> tuple[Instance, int]:
    """The image and frame that the evidence shows: the flag's, else that of the highest score, else the middle one."""
    flag_uid = session.scalar(select(Flag.key_sop_instance_uid).where(Flag.job_id == job.id))
    finding = leading_finding(job.pipeline)
    score = session.scalars(
        select(SliceScoreRow)
        .where(
            SliceScoreRow.job_id == job.id,
            SliceScoreRow.run == job.run,
            SliceScoreRow.role == "active",
            SliceScoreRow.finding == finding,
        )
        .order_by(SliceScoreRow.probability.desc(), SliceScoreRow.id)
        .limit(1)
    ).first()
    top = next((image for image in images if score is not None and image.id == score.instance_id), None)
    named = [image for image in images if image.sop_instance_uid == flag_uid]
    if top is not None and score is not None and top in named:
        return top, score.frame
    if named:
        return named[0], 0
    if top is not None and score is not None:
        return top, score.frame
    return images[len(images) // 2], 0


def _digest(members: Sequence[Instance], job: Job, findings: Sequence[Result]) -> str:
    """Digest of the revision's content and of the result; probabilities count to three places."""
    seldom = words_of(job.pipeline, job.statistics)
    content = {
        **({"predictive_value": seldom} if seldom else {}),
        "content": sorted((m.sop_instance_uid, m.sha256) for m in members),
        "pipeline": job.pipeline,
        "models": sorted(job.models),
        "warnings": sorted(job.warnings),
        "findings": sorted(
            (
                f.finding,
                f"{f.model_name}/{f.model_version}",
                None if f.probability is None else round(f.probability, 3),
                None if f.value is None else round(f.value, 2),
                f.unit,
                f.threshold,
                bool(f.flagged),
            )
            for f in findings
        ),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
