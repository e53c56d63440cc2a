"""The self-test of ``firstread doctor``: a phantom that goes the whole way, notifies nobody and leaves nothing behind.

A study is a self-test only where its StudyInstanceUID was written into the database before its first image was sent.
Such a UID is drawn at random and never used twice, so nothing that a sender writes can make a patient's study one.
"""

from __future__ import annotations

import shutil
import uuid
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.records import (
    Association,
    AssociationStudy,
    Database,
    Instance,
    Job,
    OutputObject,
    Receipt,
    Revision,
    SelfTest,
    Study,
    Transition,
)
from firstread.settings import Settings
from firstread.states import JobState, RevisionState
from firstread.storage.store import EVIDENCE_PREFIX, spool_of, store_of

LEFTOVER_S = 900.0
"""At this age no ``firstread doctor`` waits for a self-test any more."""


def register(db: Database) -> str:
    """A StudyInstanceUID that is a self-test's from here on (PS3.5 annex B.2)."""
    uid = f"2.25.{uuid.uuid4().int}"
    with db.write() as session:
        session.add(SelfTest(study_instance_uid=uid, started_at=utcnow()))
    return uid


def remove(db: Database, settings: Settings, study_instance_uid: str) -> bool:
    """Remove all that a self-test left: files first, so that no restart of a listener makes its rows again.

    The UID stays a self-test's until the end, whatever happens in between. While a process works on the study
    nothing is removed: SQLite gives the keys of removed rows to the next study, which that process would then change.

    Returns
    -------
    bool
        False where it is still in work.
    """
    with db.read() as session:
        study_id = session.scalar(select(Study.id).where(Study.study_instance_uid == study_instance_uid))
        if study_id is None and session.scalar(_old(study_instance_uid)) is None:
            return False  # its first row may be on its way
        if study_id is not None and session.scalar(_in_work(study_id)) is not None:
            return False
    if study_id is not None:
        _remove_files(db, settings, study_id)
    with db.write() as session:
        if study_id is not None:
            _remove_rows(session, study_id, study_instance_uid)
        session.execute(delete(SelfTest).where(SelfTest.study_instance_uid == study_instance_uid))
    return True


def remove_leftovers(db: Database, settings: Settings) -> int:
    """Remove self-tests whose ``firstread doctor`` was killed or gave up waiting."""
    with db.read() as session:
        uids = list(session.scalars(_old()))
    return sum(remove(db, settings, uid) for uid in uids)


def _old(study_instance_uid: str | None = None) -> Select[str]:
    query = select(SelfTest.study_instance_uid).where(SelfTest.started_at < utcnow() - timedelta(seconds=LEFTOVER_S))
    return query if study_instance_uid is None else query.where(SelfTest.study_instance_uid == study_instance_uid)


def _in_work(study_id: int) -> Select[int]:
    """A revision that is not closed or not routed yet, or whose job was begun and has not ended."""
    begun = (Job.state == JobState.SCORING.value) | ((Job.state == JobState.WAITING.value) & (Job.attempts > 0))
    return (
        select(Revision.id)
        .outerjoin(Job, Job.revision_id == Revision.id)
        .where(
            Revision.study_id == study_id,
            (Revision.state != RevisionState.CLOSED.value) | Revision.routed_at.is_(None) | begun,
        )
        .limit(1)
    )


def _remove_files(db: Database, settings: Settings, study_id: int) -> None:
    with db.read() as session:
        keys = list(session.scalars(select(Instance.spool_key).where(Instance.study_id == study_id)))
        jobs = select(Job.id).join(Revision, Revision.id == Job.revision_id).where(Revision.study_id == study_id)
        evidence = list(
            session.scalars(select(Job.evidence_path).where(Job.id.in_(jobs), Job.evidence_path.is_not(None)))
        )
        objects = list(
            session.scalars(
                select(OutputObject.path).where(OutputObject.job_id.in_(jobs), OutputObject.path.is_not(None))
            )
        )
    spool, store = spool_of(settings), store_of(settings)
    for key in keys:
        spool.delete(key)
    for path in evidence:
        folder = Path(str(path)).parent
        shutil.rmtree(settings.evidence_dir / folder, ignore_errors=True)
        if store is not None:
            for name in store.keys(f"{EVIDENCE_PREFIX}{folder}/"):
                store.delete(name)
    for path in objects:
        (settings.objects_dir / str(path)).unlink(missing_ok=True)


def _remove_rows(session: Session, study_id: int, study_instance_uid: str) -> None:
    """Every row of a study and of what hangs on it. Rows that refer to a job or study go by the schema's cascades."""
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update())
    revisions = list(session.scalars(select(Revision.id).where(Revision.study_id == study_id)))
    jobs = list(session.scalars(select(Job.id).where(Job.revision_id.in_(revisions))))
    visits = list(session.scalars(select(AssociationStudy.association_id).where(AssociationStudy.study_id == study_id)))
    for subject, keys in (("revision", revisions), ("job", jobs)):
        session.execute(delete(Transition).where(Transition.subject == subject, Transition.subject_id.in_(keys)))
    session.execute(delete(Receipt).where(Receipt.study_instance_uid == study_instance_uid))
    session.execute(delete(Study).where(Study.id == study_id))
    others = select(AssociationStudy.association_id)
    session.execute(delete(Association).where(Association.id.in_(visits), Association.id.not_in(others)))
