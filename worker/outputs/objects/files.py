"""Objects as files below ``objects`` in the home, each with its row; made once a run, the same on a second call."""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread import effects
from firstread.clock import utcnow
from firstread.records import Database, Job, OutputObject, Revision
from firstread.records.studies import find_study
from firstread.settings import Settings
from firstread.states import JobState
from firstread.storage import disk
from firstread.storage.home import make_private
from worker.outputs.metrics import OBJECTS
from worker.outputs.objects.capture import make_capture
from worker.outputs.objects.report import make_report
from worker.outputs.objects.segmentation import make_segmentation
from worker.outputs.objects.source import NotWritten, ObjectSource, gather

MAKERS: dict[str, Callable[[ObjectSource], Dataset]] = {
    "sr": make_report,
    "seg": make_segmentation,
    "sc": make_capture,
}
IMPLEMENTATION_CLASS_UID = "2.25.146813203862318912366017812853187327161"

REFUSALS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, NotImplementedError, RuntimeError)
"""What highdicom and pydicom raise on a source that breaks the standard\'s rules."""

_COLUMNS_OF_THE_FILE = (
    "sop_instance_uid",
    "sop_class_uid",
    "series_instance_uid",
    "path",
    "size_bytes",
    "sha256",
    "reason",
    "notes",
)

log = logging.getLogger(__name__)
_lock = threading.Lock()


def ensure_objects(db: Database, settings: Settings, job_id: int) -> list[OutputObject]:
    """The rows of a job's objects for its last run; made now where they are not there yet.

    A row without ``path`` says in ``reason`` why its object was not written. A file that was lost is made again, with
    the same UID and the same bytes.
    """
    with _lock:
        with db.read() as session:
            job = session.get_one(Job, job_id)
            rows = _rows(session, job)
            if len(rows) == len(MAKERS) and all(_is_there(settings, row) for row in rows):
                return rows
            objects = _make_all(session, settings, job)
        with db.write(effects.OBJECT_COMMIT) as session:
            job = session.get_one(Job, job_id)
            for kind, row in objects.items():
                known = next((r for r in _rows(session, job) if r.kind == kind), None)
                if known is None:
                    session.add(row)
                elif known.deleted_at is None:
                    for name in _COLUMNS_OF_THE_FILE:
                        setattr(known, name, getattr(row, name))
            session.flush()
            return _rows(session, job)


def study_objects(db: Database, settings: Settings, study_uid: str, out: Path | None = None) -> list[dict[str, Any]]:
    """Make and list the objects of every result of a study.

    Parameters
    ----------
    out : Path, optional
        Folder to copy the files to, named by their SOPInstanceUID, which is ours.

    Raises
    ------
    firstread.records.studies.UnknownStudy
        If there is no such study.
    """
    with db.read() as session:
        study = find_study(session, study_uid)
        jobs = session.execute(
            select(Job.id, Job.pipeline, Revision.number)
            .join(Revision, Revision.id == Job.revision_id)
            .where(Revision.study_id == study.id, Job.state == JobState.DONE)
            .order_by(Revision.number, Job.pipeline)
        ).all()
    listed = []
    for job_id, pipeline, revision in jobs:
        for row in ensure_objects(db, settings, job_id):
            file = None
            if row.path is not None and row.deleted_at is None:
                file = settings.objects_dir / row.path
                if out is not None:
                    out.mkdir(parents=True, exist_ok=True)
                    file = Path(shutil.copyfile(file, out / f"{row.sop_instance_uid}.dcm"))
            listed.append(
                {
                    "pipeline": pipeline,
                    "revision": revision,
                    "kind": row.kind,
                    "sop_instance_uid": row.sop_instance_uid,
                    "file": str(file) if file else None,
                    "reason": row.reason,
                    "notes": row.notes,
                }
            )
    return listed


def _rows(session: Session, job: Job) -> list[OutputObject]:
    query = select(OutputObject).where(OutputObject.job_id == job.id, OutputObject.run == job.run)
    return list(session.scalars(query.order_by(OutputObject.id)))


def _is_there(settings: Settings, row: OutputObject) -> bool:
    return row.path is None or row.deleted_at is not None or (settings.objects_dir / row.path).is_file()


def _make_all(session: Session, settings: Settings, job: Job) -> dict[str, OutputObject]:
    try:
        source = gather(session, settings, job)
    except NotWritten as refusal:
        return {kind: _refused(job, kind, refusal.reason, []) for kind in MAKERS}
    objects = {kind: _make(settings, job, kind, maker, source) for kind, maker in MAKERS.items()}
    for kind, row in objects.items():
        OBJECTS.labels(kind, "written" if row.path else "left_out", row.reason or "").inc()
    return objects


def _make(
    settings: Settings, job: Job, kind: str, maker: Callable[[ObjectSource], Dataset], source: ObjectSource
) -> OutputObject:
    try:
        ds = maker(source)
        data = encode(ds)
    except NotWritten as refusal:
        return _refused(job, kind, refusal.reason, source.notes)
    except REFUSALS as error:
        log.warning("job %d: no %s object (%s)", job.id, kind, type(error).__name__)
        return _refused(job, kind, f"not_possible_{type(error).__name__}", source.notes)
    relative = f"{job.id}/{job.run}/{kind}.dcm"
    _write(settings.objects_dir / relative, data)
    return OutputObject(
        job_id=job.id,
        run=job.run,
        kind=kind,
        sop_instance_uid=str(ds.SOPInstanceUID),
        sop_class_uid=str(ds.SOPClassUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        path=relative,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        notes=list(source.notes),
        created_at=utcnow(),
    )


def _refused(job: Job, kind: str, reason: str, notes: list[str]) -> OutputObject:
    return OutputObject(job_id=job.id, run=job.run, kind=kind, reason=reason, notes=list(notes), created_at=utcnow())


def encode(ds: Dataset) -> bytes:
    """The object as a DICOM file (PS3.10), explicit little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = "FIRSTREAD"
    ds.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    make_private(path.parent)
    partial = path.with_suffix(".part")
    names = effects.OBJECT
    with disk.create(names.create, partial) as file:
        disk.write(names.write, file, data)
        disk.sync(names.sync, file)
    disk.rename(names.rename, partial, path)
    disk.sync_folder(names.sync_folder, path.parent)
