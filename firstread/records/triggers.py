"""The triggers that keep :mod:`firstread.records.answers`: whoever changes a job keeps its answer.

Their statements are the same on both engines; only what is around them differs. They change with a migration only,
which drops them before the tables change, and makes them again at head.

Two transactions may change two jobs of one study and pipeline at once, since a claim locks its job alone. So on
PostgreSQL the answer is locked first and looked for after that, with what the other one committed in sight. It is
locked after jobs, and a claim locks nothing after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

from sqlalchemy import Connection, text

JOB_RANK = "CASE j.state WHEN 'DONE' THEN 0 WHEN 'REJECTED' THEN 1 WHEN 'FAILED' THEN 1 ELSE 2 END, r.number DESC"
"""The first of a study and pipeline answers: a later revision that is rejected or fails hides no result."""

JOB_ANSWERS = """
    SELECT r.study_id, j.pipeline, r.id, j.id, (SELECT MAX(x.run) FROM result x WHERE x.job_id = j.id), j.state,
        EXISTS (SELECT 1 FROM flag g WHERE g.study_id = r.study_id AND g.pipeline = j.pipeline)
            OR EXISTS (SELECT 1 FROM result x WHERE x.job_id = j.id AND x.role = 'active' AND x.flagged),
        r.last_seen_at, j.finished_at
    FROM revision r
    JOIN job j ON j.revision_id = r.id
    JOIN study s ON s.id = r.study_id"""

STUDY_STATE = """
    CASE WHEN r.state = 'RECEIVING' THEN 'RECEIVING'
         WHEN r.routed_at IS NULL THEN 'WAITING'
         ELSE 'REJECTED' END"""
"""State of a study by its newest revision ``r``, while no pipeline has a job of it."""

STUDY_ANSWERS = f"""
    SELECT r.study_id, NULL, r.id, NULL, NULL, {STUDY_STATE}, FALSE, r.last_seen_at, NULL
    FROM revision r
    JOIN study s ON s.id = r.study_id
    WHERE NOT EXISTS (SELECT 1 FROM job j JOIN revision x ON x.id = j.revision_id WHERE x.study_id = r.study_id)"""

INTO_ANSWER = (
    "INSERT INTO answer (study_id, pipeline, revision_id, job_id, run, state, flagged, received_at, scored_at)"
)

_REPLACE = """DO UPDATE SET revision_id = excluded.revision_id, job_id = excluded.job_id, run = excluded.run,
        state = excluded.state, flagged = excluded.flagged, received_at = excluded.received_at,
        scored_at = excluded.scored_at"""

_REFRESH_JOB = Template(
    f"""{INTO_ANSWER}{JOB_ANSWERS}
    WHERE r.study_id = $study AND j.pipeline = $pipeline
    ORDER BY {JOB_RANK} LIMIT 1
    ON CONFLICT (study_id, pipeline) {_REPLACE}"""
)

_REFRESH_STUDY = Template(
    f"""{INTO_ANSWER}{STUDY_ANSWERS} AND r.study_id = $study
    ORDER BY r.number DESC LIMIT 1
    ON CONFLICT (study_id) WHERE pipeline IS NULL {_REPLACE}"""
)

_REFRESH_JOBS = Template(
    f"""{INTO_ANSWER}{JOB_ANSWERS}
    WHERE r.study_id = $study AND j.id IN (
        SELECT id FROM (
            SELECT j.id, ROW_NUMBER() OVER (PARTITION BY j.pipeline ORDER BY {JOB_RANK}) AS place
            FROM job j JOIN revision r ON r.id = j.revision_id
            WHERE r.study_id = $study) ranked
        WHERE place = 1)
    ON CONFLICT (study_id, pipeline) {_REPLACE}"""
)
"""All pipelines of a study at once."""

_STUDY_OF_JOB = Template("(SELECT study_id FROM revision WHERE id = $row.revision_id)")

_LOCK = Template("PERFORM 1 FROM answer WHERE study_id = $study AND pipeline = $pipeline FOR UPDATE")

_COUNT = Template("INSERT INTO tally (what, key, n) SELECT '$what', $key, $n WHERE $condition")

_BARE = Template(
    """NOT EXISTS (SELECT 1 FROM job WHERE revision_id = $revision$but_job)
        AND NOT EXISTS (SELECT 1 FROM standing WHERE revision_id = $revision$but_standing)"""
)
"""Nothing was made of a revision, a row that came just now left out."""

_ROUTED = Template("EXISTS (SELECT 1 FROM revision WHERE id = $row.revision_id AND routed_at IS NOT NULL)")


@dataclass(frozen=True)
class _Trigger:
    """``event`` as in ``AFTER INSERT ON job``; statements that read ``NEW`` and ``OLD``; PostgreSQL locks first."""

    name: str
    event: str
    statements: tuple[str, ...]
    lock: str | None = None


def _refresh(row: str) -> tuple[str, str]:
    """Statements for the answers of a job's study: that of its pipeline, and the study's own."""
    study = _STUDY_OF_JOB.substitute(row=row)
    return _REFRESH_JOB.substitute(study=study, pipeline=f"{row}.pipeline"), _REFRESH_STUDY.substitute(study=study)


def _lock(row: str) -> str:
    return _LOCK.substitute(study=_STUDY_OF_JOB.substitute(row=row), pipeline=f"{row}.pipeline")


def _unwanted(n: str, condition: str) -> str:
    return _COUNT.substitute(what="state", key="'REJECTED'", n=n, condition=condition)


def _bare(revision: str, *, but_job: str = "", but_standing: str = "") -> str:
    parts = {"but_job": but_job, "but_standing": but_standing}
    but = {name: f" AND id <> {row}.id" if row else "" for name, row in parts.items()}
    return _BARE.substitute(revision=revision, **but)


def _of_jobs() -> list[_Trigger]:
    refresh_new, _ = _refresh("NEW")
    refresh_old, study_of_old = _refresh("OLD")
    study = _STUDY_OF_JOB.substitute(row="NEW")
    counted = {"what": "state"}
    inserted = (
        refresh_new,
        f"DELETE FROM answer WHERE study_id = {study} AND pipeline IS NULL",
        _COUNT.substitute(counted, key="NEW.state", n="1", condition="TRUE"),
        _unwanted("-1", f"{_ROUTED.substitute(row='NEW')} AND {_bare('NEW.revision_id', but_job='NEW')}"),
    )
    updated = (
        refresh_new,
        _COUNT.substitute(counted, key="OLD.state", n="-1", condition="OLD.state <> NEW.state"),
        _COUNT.substitute(counted, key="NEW.state", n="1", condition="OLD.state <> NEW.state"),
    )
    deleted = (
        refresh_old,
        study_of_old,
        _COUNT.substitute(counted, key="OLD.state", n="-1", condition="TRUE"),
        _unwanted("1", f"{_ROUTED.substitute(row='OLD')} AND {_bare('OLD.revision_id')}"),
    )
    return [
        _Trigger("answer_job_insert", "AFTER INSERT ON job", inserted, _lock("NEW")),
        _Trigger("answer_job_update", "AFTER UPDATE OF state, finished_at ON job", updated, _lock("NEW")),
        _Trigger("answer_job_delete", "AFTER DELETE ON job", deleted, _lock("OLD")),
    ]


def _of_revisions() -> list[_Trigger]:
    new_state = STUDY_STATE.replace("r.", "NEW.")
    updated = (
        f"""UPDATE answer SET received_at = NEW.last_seen_at,
        state = CASE WHEN job_id IS NULL THEN {new_state} ELSE state END
    WHERE revision_id = NEW.id""",
        _unwanted("1", f"OLD.routed_at IS NULL AND NEW.routed_at IS NOT NULL AND {_bare('NEW.id')}"),
        _unwanted("-1", f"OLD.routed_at IS NOT NULL AND NEW.routed_at IS NULL AND {_bare('NEW.id')}"),
    )
    inserted = (
        _REFRESH_STUDY.substitute(study="NEW.study_id"),
        _unwanted("1", f"NEW.routed_at IS NOT NULL AND {_bare('NEW.id')}"),
    )
    return [
        _Trigger("answer_revision_insert", "AFTER INSERT ON revision", inserted),
        _Trigger("answer_revision_update", "AFTER UPDATE OF state, routed_at, last_seen_at ON revision", updated),
        # before: what hangs on the revision is still there
        _Trigger(
            "answer_revision_delete",
            "BEFORE DELETE ON revision",
            (_unwanted("-1", f"OLD.routed_at IS NOT NULL AND {_bare('OLD.id')}"),),
        ),
        _Trigger(
            "answer_revision_deleted",
            "AFTER DELETE ON revision",
            (_REFRESH_JOBS.substitute(study="OLD.study_id"), _REFRESH_STUDY.substitute(study="OLD.study_id")),
        ),
        _Trigger(
            "answer_standing_insert",
            "AFTER INSERT ON standing",
            (_unwanted("-1", f"{_ROUTED.substitute(row='NEW')} AND {_bare('NEW.revision_id', but_standing='NEW')}"),),
        ),
        _Trigger(
            "answer_standing_delete",
            "AFTER DELETE ON standing",
            (_unwanted("1", f"{_ROUTED.substitute(row='OLD')} AND {_bare('OLD.revision_id')}"),),
        ),
    ]


def _of_results() -> list[_Trigger]:
    shown = """UPDATE answer SET run = CASE WHEN run > NEW.run THEN run ELSE NEW.run END,
        flagged = flagged OR (NEW.flagged AND NEW.role = 'active')
    WHERE job_id = NEW.job_id
        AND (run IS NULL OR run < NEW.run OR (NEW.flagged AND NEW.role = 'active' AND NOT flagged))"""
    flagged = (
        "UPDATE answer SET flagged = TRUE WHERE study_id = NEW.study_id AND pipeline = NEW.pipeline AND NOT flagged"
    )
    return [
        _Trigger("answer_result_insert", "AFTER INSERT ON result", (shown,)),
        _Trigger(
            "answer_flag_insert",
            "AFTER INSERT ON flag",
            (flagged, _COUNT.substitute(what="flag", key="NEW.pipeline", n="1", condition="TRUE")),
        ),
        _Trigger(
            "answer_flag_delete",
            "AFTER DELETE ON flag",
            (_COUNT.substitute(what="flag", key="OLD.pipeline", n="-1", condition="TRUE"),),
        ),
    ]


def _triggers() -> list[_Trigger]:
    return [*_of_jobs(), *_of_revisions(), *_of_results()]


def _ddl(trigger: _Trigger, dialect: str) -> list[str]:
    """The statements that make a trigger."""
    if dialect == "sqlite":
        body = ";\n".join(trigger.statements)
        return [f"CREATE TRIGGER {trigger.name} {trigger.event} FOR EACH ROW BEGIN\n{body};\nEND"]
    body = ";\n".join([*([trigger.lock] if trigger.lock else []), *trigger.statements])
    given = "OLD" if trigger.event.startswith("BEFORE DELETE") else "NULL"
    return [
        f"CREATE FUNCTION {trigger.name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$body$ BEGIN\n{body};\nRETURN {given};\nEND $body$",
        f"CREATE TRIGGER {trigger.name} {trigger.event} FOR EACH ROW EXECUTE FUNCTION {trigger.name}()",
    ]


def _names(connection: Connection) -> set[str]:
    queries = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE NOT t.tgisinternal AND c.relnamespace = CURRENT_SCHEMA()::regnamespace",
    }
    return set(connection.scalars(text(queries[connection.dialect.name])))


def drop_triggers(connection: Connection) -> None:
    """Drop every trigger of ours that is there."""
    there = _names(connection)
    for trigger in _triggers():
        table = trigger.event.rpartition(" ")[2]
        if trigger.name not in there:
            continue
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"DROP TRIGGER {trigger.name}")
        else:
            connection.exec_driver_sql(f"DROP TRIGGER {trigger.name} ON {table}")
            connection.exec_driver_sql(f"DROP FUNCTION {trigger.name}()")


def create_triggers(connection: Connection) -> None:
    """Make the triggers that are not there; the tables must be at head."""
    there = _names(connection)
    for trigger in _triggers():
        if trigger.name not in there:
            for statement in _ddl(trigger, connection.dialect.name):
                connection.exec_driver_sql(statement)
