"""Random histories of studies: revisions, jobs, results, flags, retries, removals, in any order that may happen."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from firstread.records import Database, Flag, Instance, Job, Result, Revision, SliceScoreRow, Standing, Study, Verdict
from firstread.states import ROUTING_FAILED, JobState, RevisionState, move_job, move_revision

PIPELINES = ("head_ct", "chest_xray", "dermoscopy")
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)

RowT = TypeVar("RowT", Instance, Job, Revision, Study)


class RandomHistory:
    """Does one random thing at a time to a few studies.

    Parameters
    ----------
    seed : int
        The same one gives the same history.
    studies : int
        The most studies at once.
    """

    def __init__(self, db: Database, seed: int, studies: int = 5) -> None:
        self._db = db
        self._random = random.Random(seed)
        self._studies = studies
        self._count = 0

    def step(self) -> None:
        """One transaction with one to three events."""
        events = (
            self._image,
            self._image,
            self._close,
            self._close,
            self._route,
            self._route,
            self._claim,
            self._claim,
            self._commit,
            self._commit,
            self._fail,
            self._retry,
            self._judge,
            self._remove_job,
            self._remove_study,
        )
        with self._db.write() as session:
            for _ in range(self._random.randint(1, 3)):
                self._random.choice(events)(session)

    def _now(self) -> datetime:
        self._count += 1
        return BEGUN + timedelta(hours=7 * self._count)

    def _pick(self, session: Session, model: type[RowT], *condition: ColumnElement[bool]) -> RowT | None:
        rows = session.scalars(select(model).where(*condition).order_by(model.id)).all()
        return self._random.choice(rows) if rows else None

    def _image(self, session: Session) -> None:
        """An image of a new or known study, in its open revision or a new one."""
        now = self._now()
        studies = list(session.scalars(select(Study).order_by(Study.id)))
        if len(studies) < self._studies:
            study = Study(study_instance_uid=f"1.2.{self._count}", source="dicom", received_at=now, patient_id="P")
            study.station_name = self._random.choice(["CT1", None])
            session.add(study)
            session.flush()
        else:
            study = self._random.choice(studies)
        numbers = {row.number: row for row in session.scalars(select(Revision).where(Revision.study_id == study.id))}
        last = numbers[max(numbers)] if numbers else None
        if last is None or last.state != RevisionState.RECEIVING:
            last = Revision(study_id=study.id, number=len(numbers) + 1, opened_at=now, last_seen_at=now, warnings=[])
            move_revision(session, last, RevisionState.RECEIVING, actor="test")
        last.last_seen_at = now
        uid = f"1.3.{self._count}"
        session.add(
            Instance(
                study_id=study.id,
                series_instance_uid="1.3",
                sop_instance_uid=uid,
                sop_class_uid="1.2",
                transfer_syntax_uid="1.2",
                sha256=uid,
                size_bytes=1,
                spool_key=uid,
                received_at=now,
            )
        )

    def _close(self, session: Session) -> None:
        revision = self._pick(session, Revision, Revision.state == RevisionState.RECEIVING.value)
        if isinstance(revision, Revision):
            revision.closed_at = self._now()
            move_revision(session, revision, RevisionState.CLOSED, actor="test")

    def _route(self, session: Session) -> None:
        """Jobs for some pipelines; an earlier result may stand, and none may want it."""
        unrouted = (Revision.state == RevisionState.CLOSED.value, Revision.routed_at.is_(None))
        revision = self._pick(session, Revision, *unrouted)
        if not isinstance(revision, Revision):
            return
        revision.routed_at = self._now()
        wanted = self._random.sample(PIPELINES, self._random.choice([0, 1, 1, 2]))
        revision.reason = None if wanted else "no_pipeline"
        there = set(session.scalars(select(Job.pipeline).where(Job.revision_id == revision.id)))
        for pipeline in wanted:
            earlier = session.scalar(
                select(Job.id)
                .join(Revision, Revision.id == Job.revision_id)
                .where(Revision.study_id == revision.study_id, Job.pipeline == pipeline)
                .order_by(Revision.number.desc())
                .limit(1)
            )
            stood = session.scalar(
                select(Standing.id).where(Standing.revision_id == revision.id, Standing.pipeline == pipeline)
            )
            if earlier is not None and stood is None and self._random.random() < 0.3:
                row = Standing(revision_id=revision.id, pipeline=pipeline, job_id=earlier, reason="unchanged")
                row.at = revision.routed_at
                session.add(row)
            elif pipeline not in there:
                job = Job(revision_id=revision.id, pipeline=pipeline, created_at=revision.routed_at, warnings=["w"])
                state = self._random.choice([JobState.WAITING] * 3 + [JobState.FAILED, JobState.DONE])
                job.run = 1 if state is JobState.DONE else 0
                job.reason = ROUTING_FAILED if state is JobState.FAILED else None
                job.finished_at = None if state is JobState.WAITING else self._now()
                move_job(session, job, state, actor="test")
                if state is JobState.DONE:
                    self._results(session, job)

    def _claim(self, session: Session) -> None:
        job = self._pick(session, Job, Job.state == JobState.WAITING.value)
        if isinstance(job, Job):
            job.reason = job.detail = job.error = None
            move_job(session, job, JobState.SCORING, actor="test")

    def _commit(self, session: Session) -> None:
        """Results, then the move or the other way round: both orders are in the code."""
        job = self._pick(session, Job, Job.state == JobState.SCORING.value)
        if not isinstance(job, Job):
            return
        job.run += 1
        job.finished_at = self._now()
        if self._random.random() < 0.25:
            job.reason, job.detail = "not_a_head", "two slices"
            move_job(session, job, JobState.REJECTED, actor="test")
            return
        job.reason = None
        job.next_step = self._random.choice([None, "Dermatology."])
        if self._random.random() < 0.5:
            move_job(session, job, JobState.DONE, actor="test")
            session.flush()
            self._results(session, job)
        else:
            self._results(session, job)
            move_job(session, job, JobState.DONE, actor="test")

    def _results(self, session: Session, job: Job) -> None:
        revision = session.get_one(Revision, job.revision_id)
        for finding in ("any", "subdural"):
            for role in ("active", "member", "shadow"):
                p = self._random.random()
                flagged = role != "shadow" and finding == "any" and p > 0.6
                session.add(
                    Result(
                        job_id=job.id,
                        run=job.run,
                        model_name="m",
                        model_version="1",
                        role=role,
                        finding=finding,
                        probability=p,
                        threshold=0.6 if finding == "any" and self._random.random() < 0.9 else None,
                        flagged=flagged,
                        created_at=job.finished_at,
                    )
                )
                if flagged and self._random.random() < 0.8:
                    self._flag(session, job, revision, finding, p)
        image = session.scalar(select(Instance.id).where(Instance.study_id == revision.study_id).limit(1))
        for role in ("active", "shadow"):
            score = {"job_id": job.id, "run": job.run, "instance_id": image, "frame": 0, "role": role}
            names = {"model_name": "m", "model_version": "1", "finding": "any", "probability": 0.5}
            session.add(SliceScoreRow(**score, **names))

    def _flag(self, session: Session, job: Job, revision: Revision, finding: str, p: float) -> None:
        key = (Flag.study_id == revision.study_id, Flag.pipeline == job.pipeline, Flag.finding == finding)
        session.flush()
        flag = session.scalar(select(Flag).where(*key))
        if flag is None:
            flag = Flag(study_id=revision.study_id, pipeline=job.pipeline, finding=finding, flagged_at=job.finished_at)
            session.add(flag)
        flag.job_id, flag.probability, flag.threshold = job.id, p, 0.6
        flag.model_name, flag.model_version, flag.warnings = "m", "1", []

    def _fail(self, session: Session) -> None:
        job = self._pick(session, Job, Job.state == JobState.SCORING.value)
        if isinstance(job, Job):
            job.error, job.finished_at = "ValueError", self._now()
            move_job(session, job, self._random.choice([JobState.FAILED, JobState.WAITING]), actor="test")

    def _retry(self, session: Session) -> None:
        """By hand: a job that ended waits again, or a revision that nobody wanted is routed again."""
        job = self._pick(session, Job, Job.state.in_(["DONE", "REJECTED", "FAILED"]))
        if isinstance(job, Job) and self._random.random() < 0.7:
            job.reason = job.detail = job.error = None
            move_job(session, job, JobState.WAITING, actor="test")
            return
        revision = self._pick(session, Revision, Revision.routed_at.is_not(None))
        if isinstance(revision, Revision):
            revision.routed_at = revision.reason = None

    def _judge(self, session: Session) -> None:
        job = self._pick(session, Job)
        if isinstance(job, Job):
            study_id = session.get_one(Revision, job.revision_id).study_id
            key = {"study_id": study_id, "pipeline": job.pipeline, "finding": "any"}
            session.add(Verdict(**key, truth=self._random.randint(0, 1), source="reader", at=self._now()))

    def _remove_job(self, session: Session) -> None:
        job = self._pick(session, Job)
        if isinstance(job, Job) and self._random.random() < 0.2:
            session.execute(delete(Job).where(Job.id == job.id))

    def _remove_study(self, session: Session) -> None:
        study = self._pick(session, Study)
        if isinstance(study, Study) and self._random.random() < 0.2:
            session.execute(delete(Verdict).where(Verdict.study_id == study.id))
            session.execute(delete(Study).where(Study.id == study.id))
            session.expire_all()
