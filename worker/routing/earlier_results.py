"""Whether an earlier result still stands for a new revision, so that nothing need be scored or sent again.

For each pipeline that wants the revision, the scored set is compared with that of the study's last revision that had a
job of the pipeline, or for which one stood. The earlier result stands whatever model made it and even while it is still
awaited: nothing new came to be looked at, and another model is asked for with ``firstread retry``. A job that FAILED is
no result: its images are scored again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from firstread.dicom.values import PARSE_ERRORS
from firstread.records import Database, Job, Revision, Standing
from firstread.states import JobState
from firstread.storage.faults import raise_fault
from firstread.storage.spool import Spool
from worker.errors import WorkerError, describe
from worker.pipelines import registry
from worker.pipelines.base import StoredInstance, StudyImages
from worker.pipelines.reasons import Caution
from worker.pipelines.registry import Orders
from worker.reading import read_study
from worker.routing.identity import Identity, identity_columns
from worker.routing.scored_set import Change, compare, scored_images

UNCHANGED = "unchanged"

OrdersOf = Callable[[Session, Revision], Orders]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StandingResult:
    """An earlier job whose result stands, and why."""

    job_id: int
    reason: str


@dataclass(frozen=True)
class _EarlierJob:
    """The study's last other revision that a pipeline had a say on, and the job that spoke."""

    job_id: int
    state: JobState
    revision_id: int
    number: int


@dataclass
class RoutingDecision:
    """What stands, by pipeline, warnings for the revision, and how much of the study's work was known."""

    stands: dict[str, StandingResult] = field(default_factory=dict)
    identity: Identity | None = None
    """The one new identity that the images have."""
    warnings: list[str] = field(default_factory=list)
    known: tuple[int, int] = (0, 0)


def decide(
    db: Database,
    spool: Spool,
    revision_id: int,
    study: StudyImages,
    names: Collection[str],
    orders_of: OrdersOf,
    touch: Callable[[], None] = lambda: None,
) -> RoutingDecision:
    """Compare a revision with the study's earlier work.

    Parameters
    ----------
    study : Study
        The revision, headers read.
    names : collection of str
        The pipelines that want it.
    orders_of : callable
        Which pipelines people asked for, of a session and a revision.
    touch : callable
        Called as images are compared.
    """
    with db.read() as session:
        revision = session.get_one(Revision, revision_id)
        decision = RoutingDecision(known=known_work(session, revision.study_id))
        if not any(decision.known):
            return decision
        references = {name: _reference(session, revision, name) for name in names}
        orders = orders_of(session, revision)
        earlier = {
            reference.revision_id: (
                orders_of(session, session.get_one(Revision, reference.revision_id)),
                session.get_one(Revision, reference.revision_id).warnings,
            )
            for reference in references.values()
            if reference is not None
        }
    in_part, number = False, revision.number
    for name, reference in references.items():
        if reference is None:
            continue
        asked_before, warned_before = earlier[reference.revision_id]
        if asked_before.name(name) != orders.name(name):
            continue
        images, change = _change(db, spool, study, name, reference, orders.name(name), touch)
        if change in (Change.IDENTITY, Change.IDENTITY_IN_PART) and reference.number > number:
            change = Change.NONE  # routed out of turn: the later identity stands
        if change is Change.IDENTITY:
            decision.identity = identity_columns(images[0].ds)
            decision.stands[name] = StandingResult(reference.job_id, str(Caution.IDENTITY_CORRECTED))
        elif change is Change.IDENTITY_IN_PART:
            in_part = True
            decision.warnings.append(str(Caution.PATIENT_MISMATCH))
        mismatch_is_new = Caution.PATIENT_MISMATCH in study.warnings and (
            Caution.PATIENT_MISMATCH not in (warned_before or ())
        )
        if change is Change.NONE and not mismatch_is_new and reference.state != JobState.FAILED:
            decision.stands[name] = StandingResult(reference.job_id, UNCHANGED)
    if in_part:  # nothing is corrected
        decision.identity = None
        decision.stands = {name: stands for name, stands in decision.stands.items() if stands.reason == UNCHANGED}
    if decision.identity is not None:
        decision.warnings.append(str(Caution.IDENTITY_CORRECTED))
    return decision


def known_work(session: Session, study_id: int) -> tuple[int, int]:
    """How many jobs, and how many standing results, a study has."""
    jobs = select(func.count(Job.id)).join(Revision, Revision.id == Job.revision_id)
    standing = select(func.count(Standing.id)).join(Revision, Revision.id == Standing.revision_id)
    of_study = Revision.study_id == study_id
    return session.scalar(jobs.where(of_study)) or 0, session.scalar(standing.where(of_study)) or 0


def _reference(session: Session, revision: Revision, pipeline: str) -> _EarlierJob | None:
    """By revision number, not by time: revisions may be routed out of turn."""
    other = (Revision.study_id == revision.study_id, Revision.id != revision.id)
    own = select(Job.id, Job.state, Revision.id, Revision.number).join(Revision, Revision.id == Job.revision_id)
    stood = (
        select(Job.id, Job.state, Revision.id, Revision.number)
        .join(Standing, Standing.job_id == Job.id)
        .join(Revision, Revision.id == Standing.revision_id)
    )
    of_pipeline = (*other, Job.pipeline == pipeline)
    rows = [*session.execute(own.where(*of_pipeline)), *session.execute(stood.where(*of_pipeline))]
    if not rows:
        return None
    job_id, state, revision_id, number = max(rows, key=lambda row: row[3])
    return _EarlierJob(job_id, JobState(state), revision_id, number)


def _change(
    db: Database,
    spool: Spool,
    study: StudyImages,
    pipeline: str,
    reference: _EarlierJob,
    forced: bool,
    touch: Callable[[], None],
) -> tuple[Sequence[StoredInstance], Change]:
    """The pipeline's scored set, and what became of it; what cannot be compared counts as changed."""
    row = registry.row(pipeline)
    try:
        before = read_study(db, spool, reference.revision_id, like=study)
        images = scored_images(row, study.asked(forced))
        if any(entry not in before.lost for entry in study.lost):
            return images, Change.IMAGES
        return images, compare(scored_images(row, before.asked(forced)), images, touch)
    except (WorkerError, MemoryError, OSError, *PARSE_ERRORS) as error:
        raise_fault(error)
        log.warning("scored sets not compared: %s", describe(error), extra={"pipeline": pipeline})
        return (), Change.IMAGES
