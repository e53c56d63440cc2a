"""What every process does alike with a study, its revisions and its jobs: lock them in one order, note a doorbell.

Locks are taken in the order study, revision, job, flag, delivery. Whoever writes to a job or a revision locks its study
first, so two writers of one study go one after the other and never wait for each other in a circle. SQLite has one
writer at a time, and ignores row locks.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from firstread.records.clock import now_of
from firstread.records.database import Database
from firstread.records.intake import Revision, Study
from firstread.records.scoring import Job


def lock_revision(session: Session, revision_id: int) -> tuple[Study, Revision] | None:
    """A revision and its study, locked until the transaction ends; None where the revision is gone."""
    of_revision = select(Revision.study_id).where(Revision.id == revision_id).scalar_subquery()
    study = session.scalar(select(Study).where(Study.id == of_revision).with_for_update())
    revision = session.scalar(select(Revision).where(Revision.id == revision_id).with_for_update())
    return None if study is None or revision is None else (study, revision)


def lock_study_of_job(session: Session, job_id: int) -> Study | None:
    """The study of a job, locked until the transaction ends; None where the job is gone."""
    query = (
        select(Study)
        .join(Revision, Revision.study_id == Study.id)
        .join(Job, Job.revision_id == Revision.id)
        .where(Job.id == job_id)
    )
    return session.scalar(query.with_for_update(of=Study))


def mark_published(db: Database, revision_id: int) -> None:
    """Note that the doorbell of a revision was rung."""
    with db.write() as session:
        session.execute(
            update(Revision)
            .where(Revision.id == revision_id)
            .values(published_at=now_of(session), publish_count=Revision.publish_count + 1)
        )
