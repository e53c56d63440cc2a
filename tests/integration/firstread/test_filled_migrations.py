"""`migrate` down to the schema of the last release and up again, on a filled database: nothing is lost."""

from __future__ import annotations

from sqlalchemy import inspect, text

from firstread.clock import utcnow
from firstread.records import AssociationRefusal, Database, SenderHabit
from firstread.records.migrate import downgrade, require_head, upgrade
from firstread.records.views import VIEWS
from tests.builders.histories import RandomHistory

RELEASED = "0011"
"""Schema of 0.1.0."""
KEPT_BY_TRIGGERS = {"answer", "called_finding", "call_tally", "tally"}
"""Made anew from the other tables; their keys may be others, and the views are compared."""
LEARNED = {"sender_habit"}
"""What 0.1.0 has no place for, and what is learned again: how senders send."""

Rows = list[tuple[object, ...]]


def contents(db: Database) -> dict[str, Rows]:
    """Every row of every table, and all that the views say."""
    tables = set(inspect(db.engine).get_table_names()) - KEPT_BY_TRIGGERS - LEARNED - {"alembic_version"}
    with db.read() as session:
        return {
            name: sorted(map(tuple, session.execute(text(f'SELECT * FROM "{name}"'))), key=repr)
            for name in (*tables, *VIEWS)
        }


def columns(db: Database) -> dict[str, set[str]]:
    inspector = inspect(db.engine)
    return {name: {column["name"] for column in inspector.get_columns(name)} for name in inspector.get_table_names()}


def test_down_to_the_last_release_and_up_again(db: Database) -> None:
    history = RandomHistory(db, seed=1)
    for _ in range(120):
        history.step()
    with db.write() as session:
        session.add(SenderHabit(calling_ae="CT1", host="ct1", whole_studies=7, noted_at=utcnow()))
        at = {"first_at": utcnow(), "last_at": utcnow()}
        session.add(AssociationRefusal(**at, count=2, calling_ae="CT1", host="ct1", reason="calling_ae"))
    before, shape = contents(db), columns(db)
    assert all(before[name] for name in ("study", "revision", "job", "result", "flag", "transition", "study_result"))
    for target in ("0014", "0012", RELEASED):
        downgrade(db, target)
        assert columns(db) != shape
        upgrade(db)
        require_head(db)
        assert columns(db) == shape
        after = contents(db)
        assert {name: set(map(repr, rows)) ^ set(map(repr, before[name])) for name, rows in after.items()} == {
            name: set() for name in before
        }
