"""What must be true at the end of every history."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import exists, select, text
from sqlalchemy.orm import Session

from dicom_listener.inbox.files import REJECTED
from firstread.records import (
    Delivery,
    Flag,
    Instance,
    IntakeRefusal,
    Job,
    Receipt,
    Result,
    Revision,
    RevisionInstance,
    Study,
    Transition,
)
from firstread.states import DeliveryState, JobState
from tests.simulation.pipeline import FINDING, THRESHOLD
from tests.simulation.senders import Image, Senders
from tests.simulation.site import Site

OPEN = text(
    "SELECT EXISTS (SELECT 1 FROM revision WHERE state = 'RECEIVING' OR routed_at IS NULL)"
    " OR EXISTS (SELECT 1 FROM job WHERE state IN ('WAITING', 'SCORING'))"
    " OR EXISTS (SELECT 1 FROM delivery WHERE state = 'PENDING')"
    " OR EXISTS (SELECT 1 FROM flag WHERE id NOT IN (SELECT flag_id FROM escalation_step))"
)
"""Whether anything is still to be done."""


def is_settled(site: Site, senders: Senders) -> bool:
    """Whether everybody has said all, and nothing is left to do."""
    if senders.given.at_work or not site.listeners:
        return False
    if any(listener.rows._queue.unfinished_tasks for listener in site.listeners.values()):
        return False
    if any(not listener.closer.reconciled.is_set() for listener in site.listeners.values()):
        return False
    if _in_inbox(site):
        return False
    with site.db.read() as session:
        return not session.execute(OPEN).scalar_one()


def _in_inbox(site: Site) -> bool:
    root = site.settings.inbox_dir
    return any(path.is_file() for path in root.rglob("*") if REJECTED not in path.relative_to(root).parts)


def complaints(site: Site, senders: Senders, ends_of_attempts: int) -> list[str]:
    """Every invariant that does not hold, in words."""
    with site.db.read() as session:
        return [
            *_images(session, site, senders),
            *_refusals(session, site, senders),
            *_spool(session, site),
            *_studies(session, ends_of_attempts, site.settings.max_attempts),
            *_flags(session, site, senders),
            *_messages(session, site),
            *_moves(session),
        ]


def _images(session: Session, site: Site, senders: Senders) -> Iterator[str]:
    """An acknowledged instance is in exactly one current revision, with bytes that were sent, and they are there."""
    given = senders.given
    contents: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in (*given.sent, *given.dropped):
        contents[one.study, one.sop].add(one.sha256)
    wanted = {(one.study, one.sop) for one in (*given.acknowledged, *given.dropped) if one.is_image}
    for study_uid, sop in sorted(wanted):
        current = session.scalar(
            select(Revision)
            .join(Study, Study.id == Revision.study_id)
            .where(Study.study_instance_uid == study_uid)
            .order_by(Revision.number.desc())
            .limit(1)
        )
        if current is None:
            yield f"lost: {sop[-8:]} was acknowledged, and its study has no revision"
            continue
        rows = session.scalars(
            select(Instance)
            .join(RevisionInstance, RevisionInstance.instance_id == Instance.id)
            .where(RevisionInstance.revision_id == current.id, Instance.sop_instance_uid == sop)
        ).all()
        if len(rows) != 1:
            yield f"lost: {sop[-8:]} was acknowledged, and is {len(rows)} times in the current revision"
        elif rows[0].sha256 not in contents[study_uid, sop]:
            yield f"wrong bytes: {sop[-8:]} was never sent like this"
    for one in _unique(given.acknowledged):
        if one.is_image and session.scalar(select(Instance.id).where(Instance.sha256 == one.sha256)) is None:
            yield f"lost: bytes of {one.sop[-8:]} were acknowledged, and no row knows them"
    for row in session.scalars(select(Instance).where(Instance.deleted_at.is_(None))):
        path = site.settings.spool_dir / row.spool_key
        if not path.is_file():
            yield f"lost: the file of {row.sop_instance_uid[-8:]} is not there"
        elif hashlib.sha256(_body(path.read_bytes())).hexdigest() != row.sha256:
            yield f"torn: the file of {row.sop_instance_uid[-8:]} has other bytes"


def _unique(images: list[Image]) -> list[Image]:
    return list({(one.sop, one.sha256): one for one in images}.values())


def _body(data: bytes) -> bytes:
    """The data set of a stored file: all that follows the file meta group."""
    if data[128:132] != b"DICM":
        return data
    return data[144 + int.from_bytes(data[140:144], "little") :]


def _refusals(session: Session, site: Site, senders: Senders) -> Iterator[str]:
    """What was refused for good has its row, and what is kept of it is there."""
    rows = session.scalars(select(IntakeRefusal)).all()
    for row in rows:
        if row.kept_path is not None and not site.settings.home.joinpath(row.kept_path).is_file():
            yield f"lost: what refusal {row.reason} keeps is not there"
    kept = {row.kept_path for row in rows}
    for folder, source in ((site.settings.home / "refused", "dicom"), (site.settings.inbox_dir / REJECTED, "inbox")):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in (".part", ".txt") and str(path) not in kept:
                yield f"unknown: a refused file of the {source} door has no row"
    if senders.given.refused and not any(row.source == "dicom" for row in rows):
        yield "lost: an object was refused for good, and no row says so"
    litter = [one for one in senders.given.dropped if not one.is_image]
    if litter and not any(row.source == "inbox" for row in rows):
        yield "lost: a file of the inbox was refused, and no row says so"


def _spool(session: Session, site: Site) -> Iterator[str]:
    """Nothing is left in the spool that no row knows."""
    known = set(session.scalars(select(Receipt.spool_key))) | set(session.scalars(select(Instance.spool_key)))
    for path in site.settings.spool_dir.rglob("*"):
        if path.is_file() and path.suffix == ".dcm":
            key = str(path.relative_to(site.settings.spool_dir))
            if key not in known:
                yield "unknown: a file of the spool has no row"


def _studies(session: Session, ends_of_attempts: int, max_attempts: int) -> Iterator[str]:
    """Every study ends, and fails only where so many attempts were ended from outside."""
    for job in session.scalars(select(Job)):
        if job.state == JobState.FAILED and ends_of_attempts < max_attempts:
            yield f"failed: a job failed ({job.reason}) after {ends_of_attempts} faults"
        if job.state == JobState.REJECTED:
            yield f"rejected: a job was rejected ({job.reason})"
    if session.scalar(select(exists().where(Revision.reason == "routing_failed"))) and ends_of_attempts < max_attempts:
        yield "failed: a study was not routed"


def _moves(session: Session) -> Iterator[str]:
    """A job moves from where it is: nobody has it beside somebody else."""
    at: dict[int, str | None] = {}
    for move in session.scalars(select(Transition).where(Transition.subject == "job").order_by(Transition.id)):
        if at.get(move.subject_id) != move.from_state:
            yield f"moved: job {move.subject_id} went from {move.from_state} while it was {at.get(move.subject_id)}"
        at[move.subject_id] = move.to_state


def _flags(session: Session, site: Site, senders: Senders) -> Iterator[str]:
    """A study with an image that flags has its flag; every flag came to both addresses, or a row says why not."""
    contents: dict[tuple[str, str], set[float]] = defaultdict(set)
    for one in (*senders.given.acknowledged, *senders.given.dropped):
        if one.is_image:
            contents[one.study, one.sop].add(one.p)
    must = {study for (study, _), levels in contents.items() if min(levels) >= THRESHOLD}
    failed = {
        study
        for study in must
        if session.scalar(
            select(Job.id)
            .join(Revision, Revision.id == Job.revision_id)
            .join(Study, Study.id == Revision.study_id)
            .where(Study.study_instance_uid == study, Job.state == JobState.FAILED)
        )
    }
    flagged = dict(
        session.execute(select(Study.study_instance_uid, Flag.id).join(Flag, Flag.study_id == Study.id)).tuples().all()
    )
    for study in sorted(must - flagged.keys() - failed):
        yield f"lost: study {study[-8:]} has an image that flags, and no flag"
    got = {(r.destination, r.content.get("study_instance_uid")) for r in site.received if r.content["flags"]}
    for study in sorted(flagged):
        for name in ("board", "pager"):
            if (name, study) not in got and not _said(session, study, name):
                yield f"lost: the flag of study {study[-8:]} never came to {name}"


def _said(session: Session, study: str, name: str) -> bool:
    query = (
        select(Delivery.id)
        .join(Job, Job.id == Delivery.job_id)
        .join(Revision, Revision.id == Job.revision_id)
        .join(Study, Study.id == Revision.study_id)
        .where(Study.study_instance_uid == study, Delivery.destination == name, Delivery.state == DeliveryState.FAILED)
    )
    return session.scalar(query.limit(1)) is not None


def _messages(session: Session, site: Site) -> Iterator[str]:
    """No message goes twice without saying so: one number a message, and a second try is counted."""
    rows = {row.id: row for row in session.scalars(select(Delivery))}
    times: dict[int, int] = defaultdict(int)
    subjects: dict[tuple[object, ...], set[int]] = defaultdict(set)
    for message in site.received:
        number = int(message.content["delivery"])
        row = rows.get(number)
        if row is None:
            yield f"untrue: {message.destination} got message {number} of which there is no row"
            continue
        times[number] += 1
        subject = (message.destination, row.job_id, row.escalation, row.topic)  # nobody asks for a second run here
        subjects[subject].add(number)
        flags = session.scalar(
            select(Result.id).where(Result.job_id == row.job_id, Result.run == row.run, Result.finding == FINDING)
        )
        if flags is None and message.content["flags"]:
            yield f"untrue: {message.destination} was told of a flag without a result"
    for number, count in times.items():
        if count > rows[number].attempts:
            yield f"twice: message {number} came {count} times in {rows[number].attempts} attempts"
    for (destination, *_), numbers in subjects.items():
        if len(numbers) > 1:
            yield f"twice: {destination} got one notice under {len(numbers)} numbers"
    for row in rows.values():
        if row.state == DeliveryState.DELIVERED and not times[row.id]:
            yield f"lost: message {row.id} to {row.destination} counts as delivered, and never came"
