"""Closed revisions that wait for a worker: files in the spool, rows in the database."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom import dcmwrite
from pydicom.dataset import Dataset
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.dicom.files import header_of
from firstread.dicom.uids import stable_uid
from firstread.phantoms.ct import file_meta, write_series
from firstread.records import Database, Instance, Job, Revision, RevisionInstance, Study
from firstread.settings import Settings
from firstread.states import RevisionState, move_revision
from tests.builders.stored_images import image_header, spool_bytes

PROBE = "PROBE"


def probe_images(uid: str, behaviour: str = "ok", n: int = 2) -> list[Dataset]:
    """Small CT images whose SeriesDescription says what the probe pipeline does."""
    images = []
    for number in range(1, n + 1):
        ds = image_header("ct", number, uid)
        ds.SeriesDescription = behaviour
        ds.PixelData = bytes(2 * 64 * 64)
        images.append(ds)
    return images


def probe_files(folder: Path, uid: str, behaviour: str = "ok", n: int = 2) -> list[Path]:
    """:func:`probe_images` as files."""
    images = probe_images(uid, behaviour, n)
    for ds in images:
        ds.file_meta = file_meta(ds.SOPClassUID, ds.SOPInstanceUID)
    return write_series(images, folder)


def add_closed(session: Session, study_id: int, at: datetime, number: int = 1, **values: Any) -> Revision:
    """A revision without images that was opened and closed at one time; keywords set further columns."""
    times = {"opened_at": at, "last_seen_at": at, "closed_at": at}
    revision = Revision(study_id=study_id, number=number, state="CLOSED", **times, **({"warnings": []} | values))
    session.add(revision)
    session.flush()
    return revision


def put_revision(
    db: Database,
    settings: Settings,
    images: Sequence[Dataset],
    *,
    priority: int = 5,
    forced_pipeline: str | None = None,
    closed_at: datetime | None = None,
) -> int:
    """Store images and close a revision of their study; returns the revision's key."""
    at = closed_at or utcnow()
    spooled = [(ds, *_spool(settings, ds)) for ds in images]
    with db.write() as session:
        uid = str(images[0].StudyInstanceUID)
        study = session.scalar(select(Study).where(Study.study_instance_uid == uid))
        if study is None:
            study = Study(
                study_instance_uid=uid,
                modality="CT",
                source="dicom",
                received_at=at,
                patient_id=images[0].get("PatientID"),
                accession_number=images[0].get("AccessionNumber"),
            )
            session.add(study)
            session.flush()
        number = session.scalar(select(func.max(Revision.number)).where(Revision.study_id == study.id)) or 0
        revision = Revision(
            study_id=study.id,
            number=number + 1,
            opened_at=at - timedelta(seconds=3),
            last_seen_at=at - timedelta(seconds=2),
            priority=priority,
            forced_pipeline=forced_pipeline,
            warnings=[],
        )
        move_revision(session, revision, RevisionState.RECEIVING, actor="test")
        for ds, key, digest, size in spooled:
            header = header_of(ds, ds.file_meta)
            instance = session.scalar(
                select(Instance).where(Instance.study_id == study.id, Instance.sha256 == digest)
            ) or Instance(
                study_id=study.id,
                series_instance_uid=header.SeriesInstanceUID,
                sop_instance_uid=header.SOPInstanceUID,
                sop_class_uid=header.SOPClassUID or "",
                transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
                modality=ds.get("Modality"),
                sha256=digest,
                patient_key=header.patient_key,
                size_bytes=size,
                spool_key=key,
                received_at=at,
                warnings=[],
            )
            session.add(instance)
            session.flush()
            session.add(RevisionInstance(revision_id=revision.id, instance_id=instance.id))
        revision.closed_at = at
        move_revision(session, revision, RevisionState.CLOSED, actor="test")
        return revision.id


def put_probe(db: Database, settings: Settings, name: str, behaviour: str = "ok", n: int = 2, **values: Any) -> int:
    """A study for the probe pipeline; ``name`` makes its UID."""
    return put_revision(db, settings, probe_images(stable_uid("probe", name), behaviour, n), **values)


def job_of(db: Database, revision_id: int, pipeline: str = "probe") -> Job | None:
    """The job of a revision, as it stands."""
    with db.read() as session:
        return session.scalar(select(Job).where(Job.revision_id == revision_id, Job.pipeline == pipeline))


def _spool(settings: Settings, ds: Dataset) -> tuple[str, str, int]:
    if "file_meta" not in ds.__dict__:
        ds.file_meta = file_meta(ds.SOPClassUID, ds.SOPInstanceUID)
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return spool_bytes(settings, buffer.getvalue())
