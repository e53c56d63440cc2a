"""When a study is complete, and freezing it: the timers of the assembler, all of them in the database."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dicom_listener.studies.assembler import ACTOR
from dicom_listener.studies.freshness import judge
from dicom_listener.studies.senders import RELEASED, Visit, note_close, only_sender
from firstread import effects
from firstread.dicom.modality import modality_of
from firstread.priority import priority_of
from firstread.records import (
    LISTENER,
    Association,
    AssociationStudy,
    Database,
    Instance,
    Process,
    Revision,
    RevisionInstance,
    Study,
    asked_for,
    newest_of_each,
    senders_of,
)
from firstread.records.clock import now_of
from firstread.records.senders import Address, known_as_whole
from firstread.settings import Settings
from firstread.states import RevisionState, move_revision

HEARTBEAT_S = 2.0
LOST_AFTER_S = 15.0
AT_ONCE_S = 0.05
"""Grace of a study whose sender is known to send whole ones."""
PATIENT_MISMATCH = "patient_mismatch"
IMAGES_EXPIRED = "images_expired"


@dataclass(frozen=True)
class Closed:
    """A revision that was frozen, for the doorbell. ``spared_s`` is what of the grace its close did not wait for."""

    revision_id: int
    study_key: int
    number: int
    priority: int
    reason: str
    old: bool = False
    spared_s: float = 0.0


@dataclass
class Look:
    """What one look at the open revisions closed, and in how many seconds a release makes the next one due."""

    closed: list[Closed] = field(default_factory=list)
    next_s: float = math.inf


def close_reason(
    opened_at: datetime,
    last_seen_at: datetime,
    visits: Sequence[Visit],
    settings: Settings,
    at: datetime,
    too_soon: int = 0,
    *,
    at_once: bool = False,
) -> str | None:
    """Why a revision may close at the time ``at``: ``released``, ``quiet``, ``max_wait``; None: it may not yet.

    A delivery that broke off (aborted, or lost with its listener) takes the quick way from the study, until a later
    one from the same sender was released: the sender has tried again and come to its end.

    ``too_soon`` says how often the study was closed a moment ago and went on: each time the grace is doubled, so that a
    sender with an association for each image makes few revisions. ``at_once`` says that the study came in one
    association of a sender whose studies come whole.
    """
    if at - opened_at >= timedelta(seconds=settings.max_wait_s):
        return "max_wait"
    if at - last_seen_at >= timedelta(seconds=settings.quiet_s):
        return "quiet"
    due = release_due(visits, settings, too_soon, at_once=at_once)
    return RELEASED if due is not None and at >= due else None


def release_due(
    visits: Sequence[Visit], settings: Settings, too_soon: int = 0, *, at_once: bool = False
) -> datetime | None:
    """When a revision may close on the release of its last delivery; None while one is open, or broke off.

    The arguments are those of :func:`close_reason`.
    """
    released = [v for v in visits if v.ending == RELEASED]
    for visit in visits:
        if visit.ending is None:
            return None
        if visit.ending != RELEASED and not any(_made_good(visit, later) for later in released):
            return None
    grace_s = AT_ONCE_S if at_once else _grace_s(settings, too_soon)
    graces = {"inbox": settings.inbox_grace_s, "dicom": grace_s}
    due = [v.ended_at + timedelta(seconds=graces.get(v.source, grace_s)) for v in released if v.ended_at is not None]
    return max(due, default=None)


def _grace_s(settings: Settings, too_soon: int) -> float:
    longest_s: float = max(settings.release_grace_s, settings.quiet_s / 2)
    return min(settings.release_grace_s * 2.0**too_soon, longest_s)


def _too_soon(session: Session, study_id: int, opened_at: datetime, settings: Settings) -> int:
    """How many revisions of a study were closed on a release so short a time before this one opened."""
    query = select(func.count(Revision.id)).where(
        Revision.study_id == study_id,
        Revision.close_reason == RELEASED,
        Revision.closed_at >= opened_at - timedelta(seconds=settings.quiet_s),
    )
    return min(session.scalar(query) or 0, 8)


def _made_good(broken: Visit, later: Visit) -> bool:
    """Whether the sender of a delivery that broke off came again; who sends by STOW-RS is known by its host alone."""
    same_sender = (broken.source, broken.calling_ae) == (later.source, later.calling_ae)
    if broken.source == "stow":
        same_sender = same_sender and broken.host == later.host
    return same_sender and later.opened_at >= broken.last_at


def reap_lost(db: Database) -> int:
    """Mark the open deliveries of listeners that fell silent as ``lost``; returns how many."""
    with db.read() as session:
        ids = _orphaned(session)
    if not ids:
        return 0
    with db.write(effects.LOST_COMMIT) as session:
        changed = session.scalars(
            update(Association)
            .where(Association.id.in_(ids), Association.ended_at.is_(None))
            .values(ended_at=now_of(session), ending="lost")
            .returning(Association.id)
        ).all()
    return len(changed)


def silent_listeners(db: Database) -> set[str]:
    """Ids of listeners that fell silent without an orderly end."""
    with db.read() as session:
        since = now_of(session) - timedelta(seconds=LOST_AFTER_S)
        return set(session.scalars(select(Process.id).where(Process.kind == LISTENER, Process.heartbeat_at < since)))


def _listening_since(session: Session) -> datetime:
    """Since when there has been somebody to send to: a study is not quiet while no listener runs."""
    now = now_of(session)
    alive = Process.heartbeat_at >= now - timedelta(seconds=LOST_AFTER_S)
    return session.scalar(select(func.min(Process.started_at)).where(Process.kind == LISTENER, alive)) or now


def _orphaned(session: Session) -> list[int]:
    alive_since = now_of(session) - timedelta(seconds=LOST_AFTER_S)
    alive = select(Process.id).where(Process.kind == LISTENER, Process.heartbeat_at >= alive_since)
    query = select(Association.id).where(Association.ended_at.is_(None), Association.listener_id.not_in(alive))
    return list(session.scalars(query))


def close_due(db: Database, settings: Settings) -> Look:
    """Freeze every revision whose time has come; one transaction each, so that one cannot hold up another."""
    with db.read() as session:
        rows = session.execute(
            select(Revision.study_id, Revision.number, Revision.opened_at, Revision.last_seen_at).where(
                Revision.state == RevisionState.RECEIVING.value
            )
        ).all()
        visits = _visits(session, [row.study_id for row in rows])
        at_once = _at_once(session, settings, {row.study_id: visits[row.study_id] for row in rows if row.number == 1})
        too_soon = {
            row.study_id: _too_soon(session, row.study_id, row.opened_at, settings) for row in rows if row.number > 1
        }
        heard = _listening_since(session)
        now = now_of(session)
    look = Look()
    for row in rows:
        seen_at = max(row.last_seen_at, heard)
        parts = _since(visits[row.study_id], row.opened_at)
        soon, whole = too_soon.get(row.study_id, 0), row.study_id in at_once
        if close_reason(row.opened_at, seen_at, parts, settings, now, soon, at_once=whole):
            done = _close(db, settings, row.study_id)
            if done is not None:
                look.closed.append(done)
        elif (due := release_due(parts, settings, soon, at_once=whole)) is not None:
            look.next_s = min((due - now).total_seconds(), look.next_s)
    return look


def _at_once(session: Session, settings: Settings, first_visits: dict[int, list[Visit]]) -> set[int]:
    """Studies, of those whose first revision is open, that came in one association of a sender of whole ones."""
    if not settings.learns_grace:
        return set()
    senders = {study_id: only_sender(visits) for study_id, visits in first_visits.items()}
    asked: set[Address] = {sender for sender in senders.values() if sender is not None}
    whole = known_as_whole(session, asked)
    return {study_id for study_id, sender in senders.items() if sender in whole}


def _visits(session: Session, study_ids: Iterable[int]) -> dict[int, list[Visit]]:
    visits: dict[int, list[Visit]] = defaultdict(list)
    query = (
        select(AssociationStudy.study_id, AssociationStudy.last_at, Association)
        .join(Association, Association.id == AssociationStudy.association_id)
        .where(AssociationStudy.study_id.in_(list(study_ids)))
    )
    for study_id, last_at, assoc in session.execute(query):
        visits[study_id].append(
            Visit(
                source=assoc.source,
                calling_ae=assoc.calling_ae,
                host=assoc.peer_host,
                opened_at=assoc.opened_at,
                ended_at=assoc.ended_at,
                ending=assoc.ending,
                last_at=last_at,
            )
        )
    return visits


def _since(visits: list[Visit], opened_at: datetime) -> list[Visit]:
    return [visit for visit in visits if visit.last_at >= opened_at]


def _close(db: Database, settings: Settings, study_id: int) -> Closed | None:
    """Freeze the open revision of a study if it is still due once the study is locked."""
    with db.write(effects.CLOSE_COMMIT) as session:
        query = select(Study).where(Study.id == study_id).with_for_update(skip_locked=True)
        study = session.scalar(query)
        if study is None:
            return None
        revision = session.scalar(
            select(Revision).where(Revision.study_id == study_id, Revision.state == RevisionState.RECEIVING.value)
        )
        if revision is None:
            return None
        visits = _visits(session, [study_id])[study_id]
        at_once = revision.number == 1 and bool(_at_once(session, settings, {study_id: visits}))
        parts = _since(visits, revision.opened_at)
        seen_at = max(revision.last_seen_at, _listening_since(session))
        too_soon = _too_soon(session, study_id, revision.opened_at, settings)
        reason = close_reason(revision.opened_at, seen_at, parts, settings, now_of(session), too_soon, at_once=at_once)
        if reason is None:
            return None
        members = _newest(session, study_id)
        session.add_all(RevisionInstance(revision_id=revision.id, instance_id=i.id) for i in members)
        _describe(session, revision, study, members, settings)
        revision.close_reason = reason
        revision.closed_at = move_revision(session, revision, RevisionState.CLOSED, actor=ACTOR, reason=reason)
        if at_once and reason == RELEASED:
            revision.spared_s = _spared_s(parts, settings, revision.closed_at)
        note_close(session, study, revision.number, reason, visits, revision.closed_at)
        old = revision.old and study.priority is None
        return Closed(revision.id, study_id, revision.number, revision.priority, reason, old, revision.spared_s)


def _spared_s(visits: Sequence[Visit], settings: Settings, closed_at: datetime) -> float:
    """What was left of the grace that the study would have had from another sender."""
    released_at = max((v.ended_at for v in visits if v.ended_at is not None), default=closed_at)
    waited_s = (closed_at - released_at).total_seconds()
    return max(0.0, settings.release_grace_s - waited_s)


def _newest(session: Session, study_id: int) -> list[Instance]:
    """The newest row of every instance, oldest first; no result objects that came back."""
    query = (
        select(Instance)
        .where(Instance.study_id == study_id, Instance.own.is_(False))
        .order_by(Instance.received_at, Instance.id)
    )
    return newest_of_each(session.scalars(query))


def _describe(session: Session, revision: Revision, study: Study, members: list[Instance], settings: Settings) -> None:
    """Warnings, pipeline asked for and priority, from all that the study has received."""
    warnings = list(revision.warnings)
    warnings += [code for instance in members for code in instance.warnings]
    if len({i.patient_key for i in members if i.patient_key}) > 1:
        warnings.append(PATIENT_MISMATCH)
    if any(i.deleted_at is not None for i in members):
        warnings.append(IMAGES_EXPIRED)
    revision.warnings = list(dict.fromkeys(warnings))
    revision.forced_pipeline = asked_for(session, study.id)
    senders = senders_of(session, study.study_instance_uid)
    revision.priority = priority_of(
        sorted({modality_of(i.modality, i.sop_class_uid) for i in members} - {""}),
        forced_pipeline=revision.forced_pipeline,
        ordered=settings.forced_for(senders),
        calling_aes=senders,
        by_calling_ae=settings.priority_by_calling_ae,
        dicom_priorities=[i.dicom_priority for i in members if i.dicom_priority is not None],
        by_hand=study.priority,
    )
    judge(revision, members, senders, settings)
