"""Retention: which files go, when, and what is never touched.

A study is finished when every revision is closed and routed, every job is terminal, and no delivery is pending, nor
failed within the last 30 days: so long a person may have it tried again. Only finished studies lose files; rows stay.
For want of space the images of those go that have no open flag, the oldest first. Files that were refused belong to no
study and have an age of their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from firstread.actions import audit
from firstread.clock import utcnow
from firstread.records import (
    Database,
    Deletion,
    Delivery,
    Flag,
    Instance,
    Job,
    OutputObject,
    Revision,
    Study,
)
from firstread.records.studies import LARGEST_KEY
from firstread.settings import Settings
from firstread.states import TERMINAL, DeliveryState, JobState, RevisionState
from firstread.storage.store import EVIDENCE_PREFIX, retention_watermark_bytes, spool_of, store_of
from firstread.upkeep.refused import remove_refused

TERMINAL_STATES = tuple(state.value for state in TERMINAL)
OUTCOMES = (JobState.REJECTED.value, JobState.DONE.value, JobState.FAILED.value)
"""Outcomes of a study, the one that counts most last."""

FAILED_DELIVERY_KEEPS = timedelta(days=30)
"""How long a delivery that failed for good keeps the files of its study, so that a person can have it tried again."""

BATCH = 200


@dataclass
class Removed:
    """What one pass removed."""

    studies: int = 0
    files: int = 0
    size_bytes: int = 0
    evidence: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def clean(
    db: Database,
    settings: Settings,
    *,
    now: datetime | None = None,
    free_bytes: Callable[[], int] | None = None,
    dry_run: bool = False,
) -> Removed:
    """Remove what the rules allow: by age, then, under the watermark, the oldest finished studies before their time.

    Parameters
    ----------
    free_bytes : callable, optional
        Free space of the spool's disk.
    dry_run : bool
        Count, and remove nothing.
    """
    now = now or utcnow()
    free = free_bytes or (lambda: shutil.disk_usage(settings.spool_dir).free)
    removed = Removed()
    days_of = settings.retention_days
    before = {outcome: now - timedelta(days=days_of[outcome]) for outcome in OUTCOMES if outcome in days_of}
    for study_id, _, _ in finished_studies(db, before=before, now=now) if before else ():
        _remove_images(db, settings, study_id, "age", removed, now, dry_run)
    make_room(db, settings, removed, now=now, free_bytes=free, dry_run=dry_run)
    if "evidence" in days_of:
        _remove_evidence(db, settings, now - timedelta(days=days_of["evidence"]), removed, dry_run)
    if "refused" in days_of:
        refused_before = now - timedelta(days=days_of["refused"])
        removed.refused, size_bytes = remove_refused(db, settings, refused_before, dry_run)
        removed.size_bytes += size_bytes
    return removed


def make_room(
    db: Database,
    settings: Settings,
    removed: Removed,
    *,
    now: datetime | None = None,
    free_bytes: Callable[[], int] | None = None,
    dry_run: bool = False,
) -> bool:
    """Remove images of finished studies without an open flag, the oldest first, until the disk has room again.

    What was removed counts, and not only what the disk says: a file that somebody has open, and some file systems,
    give their space back later. A twentieth more goes, so that the next image does not set it off again.

    Returns
    -------
    bool
        Whether the disk was short of space.
    """
    if not settings.retention_free_mb or not settings.spool_dir.is_dir():
        return False
    free = free_bytes or (lambda: shutil.disk_usage(settings.spool_dir).free)
    watermark = retention_watermark_bytes(settings, shutil.disk_usage(settings.spool_dir).total)
    missing = watermark - free()
    if missing <= 0:
        return False
    spare = watermark // 20
    before = removed.size_bytes
    now = now or utcnow()
    for study_id, _, _ in finished_studies(db, no_open_flag=True, now=now):
        _remove_images(db, settings, study_id, "disk", removed, now, dry_run)
        if removed.size_bytes - before >= missing + spare or (not dry_run and free() >= watermark + spare):
            break
    return True


def finished_studies(
    db: Database,
    *,
    before: Mapping[str, datetime] | None = None,
    no_open_flag: bool = False,
    now: datetime | None = None,
) -> Iterator[tuple[int, str, datetime]]:
    """Finished studies that still have files, the longest finished first: key, outcome, and when last touched.

    The outcome is FAILED if any job failed, else DONE if any is done, else REJECTED.

    Parameters
    ----------
    before : mapping, optional
        Outcome to the moment until which a study was last touched; studies of other outcomes are left out.
    """
    after: tuple[datetime, int] | None = None
    while True:
        with db.read() as session:
            rows = session.execute(_page(now or utcnow(), before, after, no_open_flag)).all()
        if not rows:
            return
        for study_id, last, rank in rows:
            yield study_id, OUTCOMES[rank], last
        after = (rows[-1][1], rows[-1][0])


def _page(
    now: datetime, before: Mapping[str, datetime] | None, after: tuple[datetime, int] | None, no_open_flag: bool
) -> Select[int, datetime, int]:
    on_disk = select(Instance.study_id).where(Instance.deleted_at.is_(None))
    # A study without a revision holds nothing but result objects that came from elsewhere.
    last = func.max(func.coalesce(Job.finished_at, Revision.closed_at, Study.received_at)).label("last")
    rank = func.max(case({state: rank for rank, state in enumerate(OUTCOMES)}, value=Job.state, else_=0)).label("rank")
    query = (
        select(Study.id, last, rank)
        .outerjoin(Revision, Revision.study_id == Study.id)
        .outerjoin(Job, Job.revision_id == Revision.id)
        .where(on_disk.where(Instance.study_id == Study.id).exists(), *_finished(Study.id, now))
        # Those before the first that still has images are behind us, however many there were.
        .where(Study.id >= on_disk.order_by(Instance.study_id).limit(1).scalar_subquery())
        .group_by(Study.id)
        .order_by(last, Study.id)
        .limit(BATCH)
    )
    if no_open_flag:
        query = query.where(~_open_flag(Study.id).exists())
    if before is not None:
        due = [and_(rank == OUTCOMES.index(outcome), last <= moment) for outcome, moment in before.items()]
        # Nothing is done with a study before it came: from the first that is younger than every rule none is looked at.
        other = aliased(Study)
        younger = select(other.id).where(other.received_at > max(before.values())).order_by(other.received_at).limit(1)
        query = query.where(Study.id < func.coalesce(younger.scalar_subquery(), LARGEST_KEY)).having(or_(*due))
    if after is not None:
        at, key = after
        query = query.having((last > at) | ((last == at) & (Study.id > key)))
    return query


def _finished(study_id: Any, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Conditions under which a study may lose files."""
    other = Revision.__table__.alias("other")
    of_study = other.c.study_id == study_id
    open_revision = select(other.c.id).where(
        of_study, (other.c.state != RevisionState.CLOSED.value) | other.c.routed_at.is_(None)
    )
    job = Job.__table__.alias("job_of_study")
    delivery = aliased(Delivery, name="delivery_of_study")
    jobs = select(job.c.id).join(other, other.c.id == job.c.revision_id).where(of_study)
    return (
        ~open_revision.exists(),
        ~jobs.where(job.c.state.not_in(TERMINAL_STATES)).exists(),
        ~jobs.join(delivery, delivery.job_id == job.c.id).where(_keeps_files(delivery, now)).exists(),
    )


def _keeps_files(delivery: type[Delivery], now: datetime) -> ColumnElement[bool]:
    """Whether a delivery keeps the files of its study."""
    failed_at = func.coalesce(delivery.finished_at, delivery.created_at)
    failed_lately = (delivery.state == DeliveryState.FAILED) & (failed_at > now - FAILED_DELIVERY_KEEPS)
    return (delivery.state == DeliveryState.PENDING) | failed_lately


def _open_flag(study_id: Any) -> Select[int]:
    return select(Flag.id).where(Flag.study_id == study_id, Flag.acknowledged_at.is_(None))


def kept_back(db: Database) -> dict[str, int]:
    """Studies with images that may not go for want of space, by what keeps them: ``work``, ``delivery``, ``flag``."""
    now = utcnow()
    delivery = (
        select(Delivery.id)
        .join(Job, Job.id == Delivery.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .where(Revision.study_id == Study.id, _keeps_files(Delivery, now))
    )
    finished = _finished(Study.id, now)
    reasons = {
        "work": ~and_(*finished[:2]),
        "delivery": and_(*finished[:2], delivery.exists()),
        "flag": and_(*finished, _open_flag(Study.id).exists()),
    }
    images = select(Instance.id).where(Instance.study_id == Study.id, Instance.deleted_at.is_(None)).exists()
    with db.read() as session:
        return {
            name: session.scalar(select(func.count()).select_from(Study).where(images, condition)) or 0
            for name, condition in reasons.items()
        }


def is_finished(session: Session, study_id: int, now: datetime) -> bool:
    """Whether a study may lose files."""
    query = select(Study.id).where(Study.id == study_id, *_finished(study_id, now))
    return session.scalar(query) is not None


def _remove_images(
    db: Database, settings: Settings, study_id: int, reason: str, removed: Removed, now: datetime, dry_run: bool
) -> None:
    """Remove a study's images and objects. Files first: after a crash in between the next pass finishes the work."""
    deleted_at = utcnow()
    with db.write() as session:
        session.execute(select(Study.id).where(Study.id == study_id).with_for_update())
        if not is_finished(session, study_id, now):
            return
        images = session.scalars(
            select(Instance).where(Instance.study_id == study_id, Instance.deleted_at.is_(None))
        ).all()
        objects = session.scalars(
            select(OutputObject)
            .join(Job, Job.id == OutputObject.job_id)
            .join(Revision, Revision.id == Job.revision_id)
            .where(Revision.study_id == study_id, OutputObject.path.is_not(None), OutputObject.deleted_at.is_(None))
        ).all()
        size = sum(row.size_bytes for row in images) + sum(row.size_bytes or 0 for row in objects)
        removed.studies += 1
        removed.files += len(images) + len(objects)
        removed.size_bytes += size
        removed.reasons[reason] = removed.reasons.get(reason, 0) + 1
        if dry_run:
            return
        spool = spool_of(settings)
        for image in images:
            spool.delete(image.spool_key)
            image.deleted_at = deleted_at
        for row in objects:
            (settings.objects_dir / str(row.path)).unlink(missing_ok=True)
            row.deleted_at = deleted_at
        for what, rows in (("images", images), ("objects", objects)):
            if rows:
                session.add(
                    Deletion(
                        study_id=study_id,
                        what=what,
                        reason=reason,
                        files=len(rows),
                        size_bytes=sum(row.size_bytes or 0 for row in rows),
                        at=deleted_at,
                    )
                )
        detail = {"reason": reason, "files": len(images) + len(objects), "size_bytes": size}
        audit.record(session, "retention.delete", subject=f"study/{study_id}", detail=detail, actor="retention")


def _remove_evidence(db: Database, settings: Settings, before: datetime, removed: Removed, dry_run: bool) -> None:
    """Remove pictures and masks of old jobs, never those of a flag that nobody has acknowledged."""
    waiting = select(Flag.study_id).where(Flag.acknowledged_at.is_(None))
    with db.read() as session:
        jobs = session.execute(
            select(Job.id, Job.evidence_path, Revision.study_id)
            .join(Revision, Revision.id == Job.revision_id)
            .where(
                Job.evidence_path.is_not(None),
                Job.finished_at <= before,
                Job.state.in_(TERMINAL_STATES),
                Revision.study_id.not_in(waiting),
            )
        ).all()
    for job_id, path, study_id in jobs:
        removed.evidence += 1
        if dry_run:
            continue
        folder = (settings.evidence_dir / str(path)).parent
        size, files = _remove_folder(folder, settings.evidence_dir)
        store = store_of(settings)
        if store is not None:
            for key in store.keys(f"{EVIDENCE_PREFIX}{Path(str(path)).parent}/"):
                store.delete(key)
        with db.write() as session:
            session.execute(update(Job).where(Job.id == job_id, Job.evidence_path == path).values(evidence_path=None))
            session.execute(update(Flag).where(Flag.evidence_path == path).values(evidence_path=None))
            session.add(
                Deletion(study_id=study_id, what="evidence", reason="age", files=files, size_bytes=size, at=utcnow())
            )


def _remove_folder(folder: Path, root: Path) -> tuple[int, int]:
    """Remove one folder below the root; returns bytes and files."""
    if not folder.resolve().is_relative_to(root.resolve()) or folder.resolve() == root.resolve():
        return 0, 0
    if not folder.is_dir():
        return 0, 0
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    shutil.rmtree(folder)
    return size, len(files)
