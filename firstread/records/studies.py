"""Queries over studies: which one a person means, which are a self-test's, who sent one, and who is served first.

Locks are taken in the order study, revision, job, flag, delivery. Whoever writes to a job or a revision locks its study
first, so two writers of one study take turns and cannot deadlock. SQLite has one
writer at a time, and ignores row locks.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from firstread.effects import Effect
from firstread.errors import FirstreadError
from firstread.records.clock import now_of
from firstread.records.database import Database
from firstread.records.intake import OWN, Instance, Receipt, Revision, SelfTest, Study
from firstread.records.scoring import Job

PRIORITY = func.coalesce(Study.priority, Revision.priority)
"""That set by hand, else that of the close. Queries must join revision and study, as for all that follow."""

WAITS_AS_OLD = and_(Revision.old, Study.priority.is_(None))
"""Made long ago; a priority by hand makes it count as fresh."""

ORDER = (PRIORITY, WAITS_AS_OLD, Revision.closed_at, Revision.id)
"""Lower priorities first, fresh studies before old ones, then first closed first."""

KEY_MARK = "#"
LARGEST_KEY = 2**31 - 1


class UnknownStudy(FirstreadError):
    """No study has that name, or several have it."""


def find_study(session: Session, name: str, *, keys: bool = True, bare: bool = True) -> Study:
    """The study of a StudyInstanceUID, of an accession number that only one has, or of a key as in logs and mails.

    Parameters
    ----------
    name : str
        ``12`` or ``#12`` for a key; ``#12`` is one whatever accession numbers there are.
    bare : bool
        False, for whatever changes something: only ``#12`` is a key, since a bare number may be an accession number
        that never came here, and would mean another patient.
    keys : bool
        False: what comes from other systems, where a number is never a key of ours.

    Raises
    ------
    UnknownStudy
        If there is none, if several studies have that accession number, or if one study has it and another has the key.
    """
    key = _key(name) if keys and (bare or name.startswith(KEY_MARK)) else None
    if name.startswith(KEY_MARK) and key is not None:
        rows = []
    else:
        study = session.scalar(select(Study).where(Study.study_instance_uid == name, no_self_test(Study.id)))
        if study is not None:
            return study
        query = select(Study).where(Study.accession_number == name, no_self_test(Study.id)).limit(2)
        rows = list(session.scalars(query))
        if len(rows) > 1:
            raise UnknownStudy("several studies have that accession number; give the StudyInstanceUID")
    if key is not None:
        by_key = session.scalar(select(Study).where(Study.id == key, no_self_test(Study.id)))
        if by_key is not None and rows and by_key is not rows[0]:
            raise UnknownStudy(f"that is one study's accession number and another's key; {KEY_MARK}{key} is the key")
        rows = rows or ([by_key] if by_key is not None else [])
    if not rows:
        raise UnknownStudy("no such study; `firstread results` lists those that there are")
    return rows[0]


def _key(name: str) -> int | None:
    digits = name.removeprefix(KEY_MARK)
    return int(digits) if digits.isascii() and digits.isdigit() and int(digits) <= LARGEST_KEY else None


def is_self_test(session: Session, study_id: int) -> bool:
    """Whether a study is a self-test's phantom."""
    query = select(Study.id).join(SelfTest, SelfTest.study_instance_uid == Study.study_instance_uid)
    return session.scalar(query.where(Study.id == study_id)) is not None


def no_self_test(study_id: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """Condition that a row's study is a patient's, for queries that count or hand on."""
    phantom = aliased(Study)
    of_self_test = phantom.study_instance_uid == SelfTest.study_instance_uid
    return ~select(phantom.id).join(SelfTest, of_self_test).where(phantom.id == study_id).exists()


def senders_of(session: Session, study_uid: str) -> list[str]:
    """Calling AE titles that delivered something of a study, sorted; result objects do not count."""
    query = select(Receipt.calling_ae).where(Receipt.study_instance_uid == study_uid, Receipt.outcome != OWN).distinct()
    return sorted(ae for ae in session.scalars(query) if ae)


def asked_for(session: Session, study_id: int) -> str | None:
    """The pipeline in whose inbox folder the newest file lay; later copies without an order leave it."""
    ordered = select(Instance.pipeline_hint).where(
        Instance.study_id == study_id, Instance.own.is_(False), Instance.pipeline_hint.is_not(None)
    )
    return session.scalar(ordered.order_by(Instance.received_at.desc(), Instance.id.desc()).limit(1))


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


def mark_published(db: Database, revision_id: int, effect: Effect) -> None:
    """Note that the doorbell of a revision was rung."""
    with db.write(effect) as session:
        session.execute(
            update(Revision)
            .where(Revision.id == revision_id)
            .values(published_at=now_of(session), publish_count=Revision.publish_count + 1)
        )
