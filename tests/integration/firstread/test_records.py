"""Tables, migrations and views on both engines."""

from __future__ import annotations

from datetime import timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import bindparam, inspect, select, text
from sqlalchemy.exc import IntegrityError

from firstread.clock import utcnow
from firstread.records import (
    Base,
    Database,
    Flag,
    Instance,
    Job,
    Process,
    Result,
    Revision,
    RevisionInstance,
    SliceScoreRow,
    Study,
)
from firstread.records.base import UtcDateTime
from firstread.records.migrate import SchemaMismatch, current_revision, downgrade, head_revision, require_head, upgrade
from firstread.records.view_rows import view_rows
from firstread.records.views import VIEWS


def test_upgrade_downgrade_and_upgrade_again(database_url: str) -> None:
    db = Database(database_url)
    with pytest.raises(SchemaMismatch):
        require_head(db)
    upgrade(db)
    assert current_revision(db) == head_revision()
    assert set(inspect(db.engine).get_view_names()) >= set(VIEWS)
    upgrade(db)
    downgrade(db, "base")
    assert inspect(db.engine).get_table_names() == ["alembic_version"]
    assert not inspect(db.engine).get_view_names()
    upgrade(db)
    require_head(db)
    db.dispose()


def test_a_table_made_anew_keeps_its_rows_and_what_hangs_on_them(database_url: str) -> None:
    """SQLite changes a constraint by dropping the table, which must not take images and receipts with it."""
    db = Database(database_url)
    upgrade(db)
    add_study(db, "1.2.3")
    downgrade(db, "0002")
    upgrade(db)
    with db.engine.connect() as connection:
        for table, n in (("instance", 2), ("revision_instance", 2)):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == n
    with pytest.raises(IntegrityError), db.write() as session:
        session.add(RevisionInstance(revision_id=99, instance_id=99))
    db.dispose()


def test_listeners_move_into_the_table_of_processes_and_back(database_url: str) -> None:
    db = Database(database_url)
    upgrade(db, "0011")
    at = utcnow()
    with db.engine.begin() as connection:
        for table, columns, row in (
            ("listener", "id, host, pid, started_at, heartbeat_at", "'l1', 'ct', 7"),
            ("process", "id, host, pid, started_at, heartbeat_at, kind, details", "'w1', 'gpu', 8"),
        ):
            values = f"{row}, :at, :at" + (", 'worker', '{\"state\": \"ready\"}'" if table == "process" else "")
            statement = text(f"INSERT INTO {table} ({columns}) VALUES ({values})")
            connection.execute(statement.bindparams(bindparam("at", type_=UtcDateTime())), {"at": at})
    upgrade(db)
    assert "listener" not in inspect(db.engine).get_table_names()
    with db.read() as session:
        processes = {row.id: row for row in session.scalars(select(Process))}
    assert {key: row.kind for key, row in processes.items()} == {"l1": "listener", "w1": "worker"}
    assert (processes["l1"].host, processes["l1"].pid, processes["l1"].details) == ("ct", 7, {})
    assert (processes["l1"].started_at, processes["l1"].heartbeat_at) == (at, at)
    downgrade(db, "0011")
    with db.engine.connect() as connection:
        assert connection.execute(text("SELECT id, host, pid FROM listener")).all() == [("l1", "ct", 7)]
        assert connection.execute(text("SELECT id, kind FROM process")).all() == [("w1", "worker")]
        heartbeat = text("SELECT heartbeat_at FROM listener").columns(heartbeat_at=UtcDateTime())
        assert connection.scalar(heartbeat) == at
    upgrade(db)
    require_head(db)
    db.dispose()


def test_the_error_of_a_job_moves_into_a_column_of_its_own_and_back(database_url: str) -> None:
    db = Database(database_url)
    upgrade(db)
    _, revision_id = add_study(db, "1.2.3")
    downgrade(db, "0012")
    states = ("DONE", "REJECTED", "FAILED", "WAITING")
    with db.engine.begin() as connection:
        for state in states:
            statement = text(
                "INSERT INTO job (revision_id, pipeline, state, run, attempts, detail, warnings, series_notes,"
                " stage_seconds, statistics, models, created_at)"
                " VALUES (:revision, :state, :state, 0, 0, :detail, '[]', '[]', '{}', '{}', '[]', :at)"
            ).bindparams(bindparam("at", type_=UtcDateTime()))
            values = {"revision": revision_id, "state": state, "detail": f"of {state}", "at": utcnow()}
            connection.execute(statement, values)
    upgrade(db)
    with db.read() as session:
        texts = {job.state: (job.detail, job.error) for job in session.scalars(select(Job))}
        studies = session.execute(text("SELECT state, detail FROM study_result")).all()
    assert texts == {
        "DONE": ("of DONE", None),
        "REJECTED": ("of REJECTED", None),
        "FAILED": (None, "of FAILED"),
        "WAITING": (None, "of WAITING"),
    }
    assert {tuple(row) for row in studies} == {(state, f"of {state}") for state in states}
    downgrade(db, "0012")
    with db.engine.connect() as connection:
        details = connection.execute(text("SELECT state, detail FROM job")).all()
    assert {tuple(row) for row in details} == {(state, f"of {state}") for state in states}
    db.dispose()


def test_models_and_migrations_agree(db: Database) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, Base.metadata) == []


def add_study(db: Database, uid: str) -> tuple[int, int]:
    """A study with two images and a closed revision; returns (study id, revision id)."""
    now = utcnow()
    with db.write() as session:
        study = Study(study_instance_uid=uid, source="dicom", source_name="ct1", received_at=now, patient_id="P1")
        revision = Revision(
            study=study, number=1, state="CLOSED", opened_at=now, last_seen_at=now, closed_at=now, warnings=["w0"]
        )
        session.add_all([study, revision])
        session.flush()
        for number in (1, 2):
            instance = Instance(
                study_id=study.id,
                series_instance_uid=f"{uid}.1",
                sop_instance_uid=f"{uid}.1.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{uid}-{number}",
                size_bytes=10,
                spool_key=f"{uid}-{number}",
                received_at=now,
                instance_number=number,
            )
            session.add(instance)
            session.flush()
            session.add(RevisionInstance(revision_id=revision.id, instance_id=instance.id))
        return study.id, revision.id


def add_job(db: Database, revision_id: int, state: str, p: float | None = None, flagged: bool = False) -> int:
    now = utcnow()
    with db.write() as session:
        job = Job(
            revision_id=revision_id,
            pipeline="head_ct",
            state=state,
            run=1 if p is not None else 0,
            created_at=now,
            finished_at=now,
            warnings=["too_few_slices"],
        )
        session.add(job)
        session.flush()
        if p is not None:
            for role, version in (("active", "1"), ("shadow", "2")):
                session.add(
                    Result(
                        job_id=job.id,
                        run=1,
                        model_name="m",
                        model_version=version,
                        role=role,
                        finding="any",
                        probability=p,
                        threshold=0.5,
                        flagged=flagged and role == "active",
                        created_at=now,
                    )
                )
        return job.id


def rows_of(db: Database, view: str) -> list[dict[str, object]]:
    with db.read() as session:
        return view_rows(session, text(f"SELECT * FROM {view}"))


def test_a_study_without_a_job_shows_its_own_state(db: Database) -> None:
    _, revision_id = add_study(db, "1.2")
    row = rows_of(db, "study_result")[0]
    assert (row["state"], row["finding"], row["flagged"], row["warnings"]) == ("WAITING", None, False, ["w0"])
    with db.write() as session:
        revision = session.get(Revision, revision_id)
        assert revision is not None
        revision.routed_at, revision.reason = utcnow(), "no_pipeline"
    row = rows_of(db, "study_result")[0]
    assert (row["state"], row["reason"]) == ("REJECTED", "no_pipeline")


@pytest.mark.parametrize("later_state", ["FAILED", "REJECTED", "WAITING", "SCORING"])
def test_a_later_revision_that_did_not_end_well_hides_nothing(db: Database, later_state: str) -> None:
    study_id, first = add_study(db, "1.2")
    add_job(db, first, "DONE", 0.9, flagged=True)
    now = utcnow() + timedelta(seconds=5)
    with db.write() as session:
        later = Revision(study_id=study_id, number=2, state="CLOSED", opened_at=now, last_seen_at=now, closed_at=now)
        session.add(later)
        session.flush()
        later_id = later.id
    add_job(db, later_id, later_state)
    rows = rows_of(db, "study_result")
    assert [(r["revision"], r["state"], r["finding"], r["flagged"]) for r in rows] == [(1, "DONE", "any", True)]
    history = rows_of(db, "study_result_history")
    assert sorted((r["revision"], r["role"]) for r in history if r["finding"]) == [(1, "active"), (1, "shadow")]
    assert (2, later_state) in {(r["revision"], r["state"]) for r in history}


def test_a_flag_stays_when_a_later_revision_scores_low(db: Database) -> None:
    study_id, first = add_study(db, "1.2")
    job_id = add_job(db, first, "DONE", 0.9, flagged=True)
    now = utcnow()
    with db.write() as session:
        session.add(
            Flag(
                study_id=study_id,
                pipeline="head_ct",
                finding="any",
                job_id=job_id,
                probability=0.9,
                threshold=0.5,
                model_name="m",
                model_version="1",
                flagged_at=now,
                warnings=[],
            )
        )
        later = Revision(study_id=study_id, number=2, state="CLOSED", opened_at=now, last_seen_at=now, closed_at=now)
        session.add(later)
        session.flush()
        later_id = later.id
    add_job(db, later_id, "DONE", 0.1)
    rows = rows_of(db, "study_result")
    assert [(r["revision"], r["probability"], r["flagged"]) for r in rows] == [(2, 0.1, True)]
    assert [(r["revision"], r["probability"]) for r in rows_of(db, "hemorrhage_flag")] == [(1, 0.9)]


def test_slice_scores_show_the_active_model_of_the_last_run_only(db: Database) -> None:
    _, revision_id = add_study(db, "1.2")
    job_id = add_job(db, revision_id, "DONE", 0.7)
    with db.write() as session:
        for run, role, p in ((0, "active", 0.1), (1, "active", 0.7), (1, "shadow", 0.6)):
            session.add(
                SliceScoreRow(
                    job_id=job_id,
                    run=run,
                    instance_id=1,
                    frame=0,
                    model_name="m",
                    model_version="1",
                    role=role,
                    finding="any",
                    probability=p,
                )
            )
    assert [r["probability"] for r in rows_of(db, "slice_score")] == [0.7]
    assert len(rows_of(db, "slice_score_history")) == 3


def test_a_later_run_that_was_rejected_hides_no_earlier_findings(db: Database) -> None:
    _, revision_id = add_study(db, "1.2")
    job_id = add_job(db, revision_id, "DONE", 0.9, flagged=True)
    with db.write() as session:
        job = session.get_one(Job, job_id)
        job.state, job.run, job.reason = "REJECTED", 2, "unreadable_pixel_data"
    rows = rows_of(db, "study_result")
    assert [(r["state"], r["finding"], r["flagged"]) for r in rows] == [("REJECTED", "any", True)]


def test_one_open_revision_a_study(db: Database) -> None:
    study_id, _ = add_study(db, "1.2")
    now = utcnow()
    with pytest.raises(IntegrityError), db.write() as session:
        for number in (2, 3):
            session.add(Revision(study_id=study_id, number=number, state="RECEIVING", opened_at=now, last_seen_at=now))


def test_times_are_utc_and_naive_ones_are_refused(db: Database) -> None:
    add_study(db, "1.2")
    with db.read() as session:
        study = session.query(Study).one()
        assert study.received_at.utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="naive"), db.write() as session:
        session.add(Study(study_instance_uid="9", source="dicom", received_at=utcnow().replace(tzinfo=None)))
