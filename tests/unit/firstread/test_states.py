from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import select

from firstread.clock import utcnow
from firstread.records import Database, Job, Revision, Study, Transition
from firstread.states import JOB_MOVES, IllegalMove, JobState, RevisionState, move_job, move_revision


def new_study(uid: str = "1.2.3") -> Study:
    return Study(study_instance_uid=uid, source="dicom", received_at=utcnow())


def new_revision(study: Study, number: int = 1) -> Revision:
    now = utcnow()
    return Revision(study=study, number=number, opened_at=now, last_seen_at=now, state=None)


def test_every_move_leaves_a_row(sqlite_db: Database) -> None:
    with sqlite_db.write() as session:
        revision = new_revision(new_study())
        session.add(revision.study)
        move_revision(session, revision, RevisionState.RECEIVING, actor="listener")
        move_revision(session, revision, RevisionState.CLOSED, actor="listener", reason="released")
    with sqlite_db.read() as session:
        rows = session.scalars(select(Transition).order_by(Transition.id)).all()
        assert [(r.from_state, r.to_state, r.reason) for r in rows] == [
            (None, "RECEIVING", None),
            ("RECEIVING", "CLOSED", "released"),
        ]
        assert all(r.subject == "revision" and r.at.tzinfo is not None for r in rows)


@pytest.mark.parametrize(("start", "to"), list(product(JobState, JobState)))
def test_jobs_move_only_as_the_table_says(sqlite_db: Database, start: JobState, to: JobState) -> None:
    with sqlite_db.write() as session:
        revision = new_revision(new_study())
        move_revision(session, revision, RevisionState.RECEIVING, actor="test")
        job = Job(revision_id=revision.id, pipeline="head_ct", state=start.value, created_at=utcnow())
        session.add(job)
        session.flush()
        if to in JOB_MOVES[start]:
            move_job(session, job, to, actor="test")
            assert job.state == to
        else:
            with pytest.raises(IllegalMove):
                move_job(session, job, to, actor="test")
            assert job.state == start


def test_closed_revisions_never_open_again(sqlite_db: Database) -> None:
    with sqlite_db.write() as session:
        revision = new_revision(new_study())
        move_revision(session, revision, RevisionState.RECEIVING, actor="test")
        move_revision(session, revision, RevisionState.CLOSED, actor="test")
        with pytest.raises(IllegalMove):
            move_revision(session, revision, RevisionState.RECEIVING, actor="test")
