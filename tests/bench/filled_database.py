"""A database with the rows of some years: studies, images, jobs, results, slice scores, flags, deliveries.

Three of five studies are heads; every number follows from the study's, so that two engines get the same rows. Large
tables are filled by the database itself, and what triggers keep is filled at the end, as ``firstread migrate`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from firstread.pipelines import findings_of
from firstread.records import (
    AuditEvent,
    Database,
    Delivery,
    DriftRow,
    Flag,
    IntakeRefusal,
    Job,
    Result,
    Revision,
    Study,
    Transition,
    Verdict,
)
from firstread.records.definitions import fill_answers
from firstread.records.triggers import create_triggers, drop_triggers
from tests.bench.documented_queries import UID, Subject

NEWEST = datetime(2026, 11, 1, 12, tzinfo=UTC)
STUDIES_A_YEAR = 50_000
OPEN_FLAGS = 60
"""Among the newest studies."""

CHUNK = 5_000
PRIME = 10_007


def fill(db: Database, studies: int, slices: int) -> None:
    """Fill a migrated, empty database.

    Parameters
    ----------
    slices : int
        Images of each head.
    """
    with db.engine.execution_options(write=True).begin() as connection:
        drop_triggers(connection)
    for first in range(1, studies + 1, CHUNK):
        with _filling(db) as session:
            _fill_studies(session, range(first, min(first + CHUNK, studies + 1)), studies)
    with _filling(db) as session:
        _fill_others(session)
        session.execute(text("CREATE TEMPORARY TABLE number (i INTEGER PRIMARY KEY)"))
        session.execute(text("INSERT INTO number (i) VALUES (:i)"), [{"i": i} for i in range(1, slices + 1)])
        for statement in (INSTANCES, MEMBERS, RECEIPTS, SLICES, STANDINGS, NOTES):
            session.execute(text(statement), {"slices": slices} if statement is INSTANCES else {})
        session.execute(text("DROP TABLE number"))
    with db.engine.execution_options(write=True).begin() as connection:
        fill_answers(connection)
        create_triggers(connection)
    with db.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if not db.is_sqlite:  # as the server's autovacuum does by itself
            connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def _filling(db: Database) -> Iterator[Session]:
    """A transaction in which PostgreSQL takes rows without a look at each foreign key; its user must be a superuser."""
    with db.write() as session:
        if not db.is_sqlite:
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(text("SET LOCAL work_mem = '256MB'"))
        yield session


def subject(studies: int) -> Subject:
    """A head in the middle of the filled database."""
    number = studies // 2 // 5 * 5
    month = NEWEST - timedelta(days=30)
    return Subject(UID.format(study=number), f"A-{number}", f"P-{number // 2}", month.isoformat())


def _pipeline(number: int) -> str | None:
    """Of a study: heads three of five, chest films three of ten, lesions one of twelve or so, and others."""
    if number % 5 in (0, 1, 2):
        return "head_ct"
    if number % 12 == 3:
        return "dermoscopy"
    return None if number % 50 == 4 else "chest_xray"


MODALITIES = {"head_ct": "CT", "chest_xray": "DX", "dermoscopy": "XC", None: "MR"}


def _score(number: int, salt: int) -> float:
    return (number * 7919 + salt * 104_729) % PRIME / PRIME


def _state(number: int, studies: int) -> str:
    """The newest wait, one of fifteen is rejected, one of a hundred failed."""
    if number > studies - 5:
        return ("SCORING", "WAITING")[number % 2]
    if number % 15 == 7:
        return "REJECTED"
    return "FAILED" if number % 100 == 11 else "DONE"


def _fill_studies(session: Session, numbers: range, studies: int) -> None:
    rows: dict[type, list[dict[str, object]]] = {
        model: [] for model in (Study, Revision, Job, Transition, Result, Flag, Verdict, Delivery)
    }
    for number in numbers:
        at = NEWEST - timedelta(days=365 / STUDIES_A_YEAR) * (studies - number)
        pipeline = _pipeline(number)
        rows[Study].append(
            {
                "id": number,
                "study_instance_uid": UID.format(study=number),
                "patient_id": f"P-{number // 2}",
                "accession_number": f"A-{number}",
                "modality": MODALITIES[pipeline],
                "station_name": f"STATION{number % 7}",
                "manufacturer": f"MAKER{number % 3}",
                "source": "dicom",
                "source_name": f"host{number % 4}",
                "calling_ae": f"MODALITY{number % 4}",
                "received_at": at,
            }
        )
        revision = {
            "id": number,
            "study_id": number,
            "number": 1,
            "state": "CLOSED",
            "opened_at": at,
            "last_seen_at": at,
            "closed_at": at + timedelta(seconds=2),
            "close_reason": "released",
            "priority": 5,
            "old": False,
            "warnings": [],
            "publish_count": 1,
            "routed_at": at + timedelta(seconds=3),
            "reason": None if pipeline else "no_pipeline",
        }
        rows[Revision].append(revision)
        if number % 10 == 6:  # a later revision with a dose report, which hides nothing
            rows[Revision].append(revision | {"id": studies + number, "number": 2})
        if number % 50 == 6:  # and one with the same images in another encoding: the first result stands
            rows[Revision].append(revision | {"id": 2 * studies + number, "number": 3})
        if pipeline is None:
            continue
        _add_job(rows, number, number, pipeline, _state(number, studies), at, studies)
        if number % 10 == 6:
            _add_job(rows, studies + number, studies + number, pipeline, "REJECTED", at, studies)
    for model, values in rows.items():
        if values:
            session.execute(insert(model), values)


def _add_job(
    rows: dict[type, list[dict[str, object]]],
    key: int,
    revision: int,
    pipeline: str,
    state: str,
    at: datetime,
    studies: int,
) -> None:
    ended = at + timedelta(seconds=4) if state in {"DONE", "REJECTED", "FAILED"} else None
    done = state == "DONE"
    rows[Job].append(
        {
            "id": key,
            "revision_id": revision,
            "pipeline": pipeline,
            "state": state,
            "run": int(done),
            "attempts": 1,
            "reason": {"REJECTED": "not_a_head", "FAILED": "engine_error"}.get(state),
            "next_step": "Dermatology clinic." if done and pipeline == "dermoscopy" else None,
            "warnings": ["spacing_unknown"] if key % 9 == 0 else [],
            "series_notes": [{"SeriesInstanceUID": "1.2.3", "chosen": True, "reasons": [], "n_instances": 30}] * 3,
            "series_instance_uid": UID.format(study=key) + ".1",
            "stage_seconds": {"preprocess": 0.2, "infer": 0.23},
            "statistics": {"age": 50.0, "thickness_mm": 5.0},
            "models": ["m/1"],
            "created_at": at,
            "started_at": at,
            "finished_at": ended,
        }
    )
    for move in ("WAITING", "SCORING", state):
        rows[Transition].append({"subject": "job", "subject_id": key, "to_state": move, "actor": "worker", "at": at})
    if not done:
        return
    leading, *others = findings_of(pipeline)
    p = _score(key, 1)
    flagged = p > 0.9
    result = {
        "job_id": key,
        "run": 1,
        "model_name": pipeline,
        "model_version": "1",
        "role": "active",
        "finding": leading,
        "probability": p,
        "threshold": 0.9,
        "flagged": flagged,
        "created_at": ended,
    }
    rows[Result].append(result)
    rows[Result].extend(
        result | {"finding": name, "probability": _score(key, salt), "threshold": None, "flagged": False}
        for salt, name in enumerate(others, start=2)
    )
    if key % 10 == 0:  # a shadow model ran for some weeks
        rows[Result].append(result | {"role": "shadow", "model_version": "2", "probability": 1 - p, "flagged": False})
    if flagged:
        acknowledged = None if key > studies - 10 * OPEN_FLAGS else at + timedelta(minutes=9)
        rows[Flag].append(
            {
                "study_id": key,
                "pipeline": pipeline,
                "finding": leading,
                "job_id": key,
                "probability": p,
                "threshold": 0.9,
                "model_name": pipeline,
                "model_version": "1",
                "warnings": [],
                "flagged_at": ended,
                "notified_at": at + timedelta(seconds=6),
                "acknowledged_at": acknowledged,
                "acknowledged_by": acknowledged and "reader",
            }
        )
    if key % 5 == 0:
        truth = {"study_id": key, "pipeline": pipeline, "finding": leading, "truth": int(p > 0.8)}
        rows[Verdict].append(truth | {"source": "reader", "at": at + timedelta(hours=1)})
    for kind in ("dicom", "webhook"):
        state = "FAILED" if key % 5_000 == 3 else "DELIVERED"
        delivery = {"job_id": key, "run": 1, "kind": kind, "destination": kind, "state": state, "attempts": 1}
        rows[Delivery].append(delivery | {"payload": {}, "created_at": at, "finished_at": at})


def _fill_others(session: Session) -> None:
    for number in range(2_000):
        at = NEWEST - timedelta(hours=number)
        session.add(AuditEvent(at=at, actor="reader", action="flag.acknowledge", subject=f"study/{number}", detail={}))
        session.add(IntakeRefusal(received_at=at, source="inbox", source_name="a.txt", reason="not_dicom"))
    for day in range(365):
        for quantity in ("score", "intensity"):
            names = {"pipeline": "head_ct", "model_name": "m", "model_version": "1", "modality": "*", "scanner": "*"}
            at = NEWEST - timedelta(days=day)
            session.add(DriftRow(day=at.date(), quantity=quantity, n=90, psi=0.05, computed_at=at, **names))


INSTANCES = """
INSERT INTO instance (study_id, series_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, modality,
    instance_number, sha256, size_bytes, spool_key, warnings, received_at, own)
SELECT s.id, s.study_instance_uid || '.1', s.study_instance_uid || '.1.' || n.i, '1.2.840.10008.5.1.4.1.1.2',
    '1.2.840.10008.1.2.1', s.modality, n.i, s.id || '-' || n.i || '-0123456789abcdef0123456789abcdef', 524288,
    s.id || '/' || n.i, '[]', s.received_at, FALSE
FROM study s JOIN number n ON n.i <= CASE s.modality WHEN 'CT' THEN :slices ELSE 1 END
ORDER BY s.id, n.i
"""

STANDINGS = """
INSERT INTO standing (revision_id, pipeline, job_id, reason, at)
SELECT later.id, j.pipeline, j.id, 'unchanged', later.closed_at
FROM revision later
JOIN revision r ON r.study_id = later.study_id AND r.number = 1
JOIN job j ON j.revision_id = r.id
WHERE later.number = 3
"""

NOTES = """
INSERT INTO rejection_note (study_id, instance_id, sop_instance_uid, code, images, at)
SELECT i.study_id, i.id, i.sop_instance_uid, '113039', 1, i.received_at
FROM instance i WHERE i.instance_number = 1 AND i.study_id % 40 = 0
"""

MEMBERS = """
INSERT INTO revision_instance (revision_id, instance_id)
SELECT r.id, i.id FROM revision r JOIN instance i ON i.study_id = r.study_id WHERE r.number = 1 ORDER BY r.id, i.id
"""

RECEIPTS = """
INSERT INTO receipt (spool_key, instance_id, study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid,
    transfer_syntax_uid, size_bytes, outcome, source, source_name, calling_ae, received_at)
SELECT i.spool_key, i.id, s.study_instance_uid, i.series_instance_uid, i.sop_instance_uid, i.sop_class_uid,
    i.transfer_syntax_uid, i.size_bytes, 'stored', s.source, s.source_name, s.calling_ae, i.received_at
FROM instance i JOIN study s ON s.id = i.study_id ORDER BY i.id
"""

SLICES = f"""
INSERT INTO slice_score_row (job_id, run, instance_id, frame, instance_number, model_name, model_version, role, finding,
    probability)
SELECT f.job_id, 1, i.id, 0, i.instance_number, f.model_name, f.model_version, 'active', f.finding,
    ((i.id % {PRIME} * 7919 + f.id % {PRIME} * 13) % {PRIME}) / {PRIME}.0
FROM result f
JOIN job j ON j.id = f.job_id
JOIN revision r ON r.id = j.revision_id
JOIN instance i ON i.study_id = r.study_id
WHERE f.role = 'active'
ORDER BY f.job_id, i.id, f.id
"""
