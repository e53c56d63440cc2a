"""The look of every minute reads what may go, and not all that ever came."""

from __future__ import annotations

from datetime import datetime, timedelta

from firstread.clock import utcnow
from firstread.records import Database, Instance, Revision, Study
from firstread.upkeep.retention import _page, finished_studies
from tests.builders.query_plans import plan_of, statements_of, work_of

NOW = utcnow()
DAY = timedelta(days=1)
RULES = {"DONE": NOW - 30 * DAY, "REJECTED": NOW - 7 * DAY}


def put(db: Database, number: int, at: datetime, *, gone: bool) -> None:
    """A finished study with one image, which retention has removed or not."""
    study = Study(study_instance_uid=f"1.2.{number}", source="dicom", received_at=at)
    revision = Revision(
        study=study, number=1, state="CLOSED", opened_at=at, last_seen_at=at, closed_at=at, routed_at=at, warnings=[]
    )
    image = Instance(
        study=study,
        series_instance_uid="1",
        sop_instance_uid=f"1.2.{number}.1",
        sop_class_uid="1",
        transfer_syntax_uid="1",
        sha256="0",
        size_bytes=1,
        spool_key=f"key-{number}",
        received_at=at,
        deleted_at=at if gone else None,
    )
    with db.write() as session:
        session.add_all([study, revision, image])


def fill(db: Database, first: int, many: int) -> None:
    """So many studies that are gone, two that are due, and as many that are young."""
    for n in range(many):
        put(db, first + n, NOW - 400 * DAY, gone=True)
    for n in range(2):
        put(db, first + many + n, NOW - 60 * DAY, gone=False)
    for n in range(many):
        put(db, first + many + 2 + n, NOW - DAY, gone=False)


def work(db: Database) -> int:
    return work_of(db, lambda session: session.execute(_page(NOW, RULES, None, False)).all())


def test_neither_what_is_gone_nor_what_is_young_makes_the_look_longer(sqlite_db: Database) -> None:
    fill(sqlite_db, 0, 5)
    few = work(sqlite_db)
    with sqlite_db.write() as session:
        for table in (Instance, Revision, Study):
            session.query(table).delete()
    fill(sqlite_db, 1000, 40)
    assert work(sqlite_db) <= few + 5
    due = [study_id for study_id, _, _ in finished_studies(sqlite_db, before=RULES, now=NOW)]
    assert len(due) == 2


def test_the_plan_goes_by_keys(sqlite_db: Database) -> None:
    (statement,) = statements_of(sqlite_db, lambda session: session.execute(_page(NOW, RULES, None, False)).all())
    steps = [line.strip() for line in plan_of(sqlite_db, statement)]
    assert any(step.startswith("SEARCH study USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)") for step in steps)
    # the first image that is there, which is the first entry of the index
    assert [s for s in steps if s.startswith("SCAN")] == ["SCAN instance USING INDEX ix_instance_on_disk"]
