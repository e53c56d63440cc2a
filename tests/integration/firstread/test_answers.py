"""What the triggers keep is what a look at all rows gives, whatever happened, on both engines."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import func, select, text

from firstread.records import Answer, CallTally, Database, Flag, Job, Revision, Study, Tally, fold_tallies, tallied
from firstread.records.migrate import downgrade, upgrade
from firstread.records.triggers import PREFIXES
from tests.builders.former_views import STATE_COUNTS, definitions
from tests.builders.histories import BEGUN, RandomHistory

STEPS = 40

TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT proname FROM pg_proc WHERE pronamespace = CURRENT_SCHEMA()::regnamespace",
}
"""Names of triggers, or of their functions."""


def rows_of(db: Database, query: str) -> list[tuple[object, ...]]:
    with db.read() as session:
        return sorted((tuple(row) for row in session.execute(text(query))), key=repr)


def check(db: Database) -> None:
    """Views and counts against their definitions over all rows."""
    for view, definition in definitions(db.engine.dialect.name).items():
        assert rows_of(db, f"SELECT * FROM {view}") == rows_of(db, definition), view
    with db.read() as session:
        counts = {state: int(n) for state, n in session.execute(text(STATE_COUNTS)) if n}
        assert {key: n for key, n in tallied(session, "state").items() if n} == counts
        flags = dict(session.execute(select(Flag.pipeline, func.count()).group_by(Flag.pipeline)).all())
        assert {key: n for key, n in tallied(session, "flag").items() if n} == flags


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_those_of_the_definition_after_any_history(db: Database, seed: int) -> None:
    history = RandomHistory(db, seed)
    seen = set()
    for _ in range(STEPS):
        history.step()
        check(db)
        with db.read() as session:
            seen |= set(session.scalars(select(Answer.state)))
    assert seen >= {"RECEIVING", "WAITING", "DONE"}


def test_the_migration_fills_what_the_triggers_would_have_kept(db: Database) -> None:
    history = RandomHistory(db, seed=11)
    for _ in range(STEPS):
        history.step()
    kept = "SELECT study_id, pipeline, revision_id, job_id, run, state, flagged, received_at, scored_at FROM answer"
    before, jobs = rows_of(db, kept), rows_of(db, "SELECT * FROM job")
    downgrade(db, "0013")
    with db.engine.connect() as connection:
        names = connection.scalars(text(TRIGGERS[connection.dialect.name])).all()
    assert [name for name in names if name.startswith(PREFIXES)] == []
    upgrade(db)
    assert (rows_of(db, kept), rows_of(db, "SELECT * FROM job")) == (before, jobs)
    check(db)
    for _ in range(10):
        history.step()
    check(db)


def test_a_folded_tally_counts_the_same(db: Database) -> None:
    history = RandomHistory(db, seed=5)
    for _ in range(STEPS):
        history.step()
    with db.read() as session:
        rows = sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in (Tally, CallTally))
    assert fold_tallies(db, above=10**6) == 0
    assert fold_tallies(db, above=0) == rows
    check(db)
    with db.read() as session:
        assert session.scalars(select(func.count()).select_from(Tally)).one() <= 5 + 3


def test_a_claim_beside_a_commit_does_not_take_the_answer(postgres_url: str) -> None:
    """The claim of a later revision's job, made while an earlier one's result is being committed."""
    db = Database(postgres_url)
    upgrade(db)
    with db.write() as session:
        study = Study(study_instance_uid="1.2", source="dicom", received_at=BEGUN)
        session.add(study)
        session.flush()
        for number, state in ((1, "SCORING"), (2, "WAITING")):
            revision = Revision(study_id=study.id, number=number, state="CLOSED", opened_at=BEGUN, last_seen_at=BEGUN)
            session.add(revision)
            session.flush()
            session.add(Job(revision_id=revision.id, pipeline="head_ct", state=state, created_at=BEGUN))
    first, second = (
        f"UPDATE job SET state = '{state}' WHERE id = {key}" for key, state in ((1, "DONE"), (2, "SCORING"))
    )
    with db.write() as session:
        session.execute(text(first))
        claim = threading.Thread(target=lambda: _run(db, second))
        claim.start()
        claim.join(0.5)
        assert claim.is_alive(), "the claim must wait for the answer"
    claim.join(10)
    assert not claim.is_alive()
    with db.read() as session:
        assert session.execute(select(Answer.job_id, Answer.state)).all() == [(1, "DONE")]
    db.dispose()


def _run(db: Database, statement: str) -> None:
    with db.write() as session:
        session.execute(text(statement))
