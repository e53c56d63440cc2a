"""The objects of a study, made where they are not there yet, and copied to a folder if asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import select

from firstread.records import Database, Job, Revision
from firstread.records.lookup import find_study
from firstread.settings import Settings
from worker.outputs.objects.files import ensure_objects, objects_dir


def study_objects(db: Database, settings: Settings, study_uid: str, out: Path | None = None) -> list[dict[str, Any]]:
    """Make and list the objects of every result of a study.

    Parameters
    ----------
    out : Path, optional
        Folder to copy the files to, named by their SOPInstanceUID, which is ours.

    Raises
    ------
    firstread.records.lookup.UnknownStudy
        If there is no such study.
    """
    with db.read() as session:
        study = find_study(session, study_uid)
        jobs = session.execute(
            select(Job.id, Job.pipeline, Revision.number)
            .join(Revision, Revision.id == Job.revision_id)
            .where(Revision.study_id == study.id, Job.state == "DONE")
            .order_by(Revision.number, Job.pipeline)
        ).all()
    listed = []
    for job_id, pipeline, revision in jobs:
        for row in ensure_objects(db, settings, job_id):
            file = None
            if row.path is not None and row.deleted_at is None:
                file = objects_dir(settings) / row.path
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
