"""A revision's rows and files as the study that pipelines see."""

from __future__ import annotations

import logging

from sqlalchemy import select, true

from firstread.dicom.datasets import Content, UnusableFile, read_content
from firstread.records import Database, Revision, RevisionInstance, newest_of_each
from firstread.records import Instance as InstanceRow
from firstread.records import Study as StudyRow
from firstread.storage.spool import Spool
from worker.errors import FilesMissing
from worker.pipelines.base import Lost, StoredInstance, StudyImages
from worker.pipelines.reasons import Caution
from worker.pipelines.unread import GONE, UNPARSED

log = logging.getLogger(__name__)


def read_study(
    db: Database, spool: Spool, revision_id: int, like: StudyImages | None = None, *, whole: bool = False
) -> StudyImages:
    """The study of a revision, headers read.

    Where an instance came with several contents, the newest is taken. A file that is gone or unreadable is left
    out with the warning ``file_missing`` or ``unreadable_header``, and stands in ``lost``.

    Parameters
    ----------
    like : Study, optional
        Another revision of the study: headers that it has are not read again.
    whole : bool
        With the images that a rejection note left out.

    Raises
    ------
    FilesMissing
        If no file is left.
    """
    with db.read() as session:
        revision = session.get_one(Revision, revision_id)
        study = session.get_one(StudyRow, revision.study_id)
        rows = session.scalars(
            select(InstanceRow)
            .join(RevisionInstance, RevisionInstance.instance_id == InstanceRow.id)
            .where(
                RevisionInstance.revision_id == revision_id, true() if whole else RevisionInstance.left_out.is_(None)
            )
            .order_by(InstanceRow.id)
        ).all()
    warnings = list(revision.warnings or [])
    newest = newest_of_each(rows)
    known = {instance.key: instance for instance in like.instances} if like is not None else {}
    spool.prefetch([row.spool_key for row in newest if row.id not in known])
    instances: list[StoredInstance] = []
    lost: list[Lost] = []
    for row in newest:
        instance = known.get(row.id)
        if instance is None:
            content = _parsed(spool, row)
            if isinstance(content, Caution):
                warnings.append(str(content))
                cause = GONE if content is Caution.FILE_MISSING else UNPARSED
                lost.append(Lost(row.series_instance_uid, row.sop_class_uid, row.instance_number, cause))
                continue
            instance = StoredInstance(
                key=row.id,
                path=spool.path(row.spool_key),
                ds=content.ds,
                SOPInstanceUID=row.sop_instance_uid,
                SeriesInstanceUID=row.series_instance_uid,
                SOPClassUID=row.sop_class_uid,
                warnings=tuple(row.warnings or ()),
                content=content,
            )
        instances.append(instance)
        warnings.extend(row.warnings or ())
    if not instances:
        raise FilesMissing(f"revision {revision_id}: none of {len(rows)} files is readable")
    return StudyImages(
        StudyInstanceUID=study.study_instance_uid,
        revision=revision.number,
        instances=tuple(instances),
        warnings=tuple(dict.fromkeys(warnings)),
        lost=tuple(lost),
    )


def _parsed(spool: Spool, row: InstanceRow) -> Content | Caution:
    """A stored object as parsed, or the warning that says why it is not."""
    if row.deleted_at is not None:
        return Caution.FILE_MISSING
    try:
        return read_content(spool.path(row.spool_key))
    except FileNotFoundError:
        return Caution.FILE_MISSING
    except UnusableFile as error:
        log.warning("header unreadable", extra={"reason": error.reason, "study": row.study_id})
        return Caution.UNREADABLE_HEADER
