"""The triggers that keep :mod:`firstread.records.answers`: whoever changes a job keeps its answer.

Their statements are the same on both engines; only what is around them differs. They change with a migration only,
which drops them before the tables change, and makes them again at head.

Two transactions may change two jobs of one study and pipeline at once, since a claim locks its job alone. So on
PostgreSQL the answer is locked first and looked for after that, with what the other one committed in sight. It is
locked after jobs, and a claim locks nothing after it. Tallies are only added to, so no two transactions wait for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

from sqlalchemy import Connection, text

from firstread.records.definitions import (
    CALL_KEY,
    CALLS,
    INTO_ANSWER,
    INTO_CALLED,
    JOB_ANSWERS,
    JOB_RANK,
    STUDY_ANSWERS,
    STUDY_STATE,
    in_dialect,
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

_REFRESH_STUDY = Template(
    f"""{INTO_ANSWER}{STUDY_ANSWERS} AND r.study_id = $study
    ORDER BY r.number DESC LIMIT 1
    ON CONFLICT (study_id) WHERE pipeline IS NULL {_REPLACE}"""
)

_STUDY_OF_JOB = Template("(SELECT study_id FROM revision WHERE id = $row.revision_id)")

_LOCK = Template("PERFORM 1 FROM answer WHERE study_id = $study AND pipeline = $pipeline FOR UPDATE")

_COUNT = Template("INSERT INTO tally (what, key, n) SELECT '$what', $key, $n WHERE $condition")

_BARE = Template(
    """NOT EXISTS (SELECT 1 FROM job WHERE revision_id = $revision$but_job)
        AND NOT EXISTS (SELECT 1 FROM standing WHERE revision_id = $revision$but_standing)"""
)
"""Nothing was made of a revision, a row that came just now left out."""

_ROUTED = Template("EXISTS (SELECT 1 FROM revision WHERE id = $row.revision_id AND routed_at IS NOT NULL)")


PREFIXES = ("answer_", "call_")
"""What the names of all triggers begin with."""


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


def _call_again(row: str, finding: str | None, condition: str = "TRUE") -> tuple[str, str]:
    """Statements for the calls of a row's study and pipeline, of one finding or of all."""
    of_finding = (f" AND finding = {finding}", f" AND f.finding = {finding}") if finding else ("", "")
    return (
        f"DELETE FROM called_finding WHERE study_id = {row}.study_id AND pipeline = {row}.pipeline{of_finding[0]}"
        f" AND {condition}",
        f"{INTO_CALLED}{CALLS} AND a.study_id = {row}.study_id AND a.pipeline = {row}.pipeline{of_finding[1]}"
        f" AND {condition}",
    )


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
    inserted = (
        _REFRESH_STUDY.substitute(study="NEW.study_id"),
        _unwanted("1", f"NEW.routed_at IS NOT NULL AND {_bare('NEW.id')}"),
    )
    updated = (
        f"""UPDATE answer SET received_at = NEW.last_seen_at,
        state = CASE WHEN job_id IS NULL THEN {new_state} ELSE state END
    WHERE revision_id = NEW.id""",
        _unwanted("1", f"OLD.routed_at IS NULL AND NEW.routed_at IS NOT NULL AND {_bare('NEW.id')}"),
        _unwanted("-1", f"OLD.routed_at IS NOT NULL AND NEW.routed_at IS NULL AND {_bare('NEW.id')}"),
    )
    # before: what hangs on the revision is still there
    deleting = (_unwanted("-1", f"OLD.routed_at IS NOT NULL AND {_bare('OLD.id')}"),)
    deleted = (_REFRESH_JOBS.substitute(study="OLD.study_id"), _REFRESH_STUDY.substitute(study="OLD.study_id"))
    stands = f"{_ROUTED.substitute(row='NEW')} AND {_bare('NEW.revision_id', but_standing='NEW')}"
    stood = f"{_ROUTED.substitute(row='OLD')} AND {_bare('OLD.revision_id')}"
    return [
        _Trigger("answer_revision_insert", "AFTER INSERT ON revision", inserted),
        _Trigger("answer_revision_update", "AFTER UPDATE OF state, routed_at, last_seen_at ON revision", updated),
        _Trigger("answer_revision_deleting", "BEFORE DELETE ON revision", deleting),
        _Trigger("answer_revision_delete", "AFTER DELETE ON revision", deleted),
        _Trigger("answer_standing_insert", "AFTER INSERT ON standing", (_unwanted("-1", stands),)),
        _Trigger("answer_standing_delete", "AFTER DELETE ON standing", (_unwanted("1", stood),)),
    ]


def _of_results() -> list[_Trigger]:
    shown = """UPDATE answer SET run = CASE WHEN run > NEW.run THEN run ELSE NEW.run END,
        flagged = flagged OR (NEW.flagged AND NEW.role = 'active')
    WHERE job_id = NEW.job_id
        AND (run IS NULL OR run < NEW.run OR (NEW.flagged AND NEW.role = 'active' AND NOT flagged))"""
    answered = "(SELECT {} FROM answer WHERE job_id = NEW.job_id AND run = NEW.run)"
    scored = "NEW.role = 'active' AND NEW.probability IS NOT NULL"
    called = (
        f"DELETE FROM called_finding WHERE study_id = {answered.format('study_id')}"
        f" AND pipeline = {answered.format('pipeline')} AND finding = NEW.finding AND {scored}",
        f"{INTO_CALLED}{CALLS} AND a.job_id = NEW.job_id AND a.run = NEW.run AND f.finding = NEW.finding AND {scored}",
    )
    flagged = (
        "UPDATE answer SET flagged = TRUE WHERE study_id = NEW.study_id AND pipeline = NEW.pipeline AND NOT flagged"
    )
    more, fewer = (
        _COUNT.substitute(what="flag", key=f"{row}.pipeline", n=n, condition="TRUE")
        for row, n in (("NEW", "1"), ("OLD", "-1"))
    )
    new, old = (_LOCK.substitute(study=f"{row}.study_id", pipeline=f"{row}.pipeline") for row in ("NEW", "OLD"))
    flag_new = (flagged, more, *_call_again("NEW", "NEW.finding"))
    flag_old = (fewer, *_call_again("OLD", "OLD.finding"))
    return [
        _Trigger("answer_result_insert", "AFTER INSERT ON result", (shown, *called)),
        _Trigger("answer_flag_insert", "AFTER INSERT ON flag", flag_new, new),
        _Trigger("answer_flag_delete", "AFTER DELETE ON flag", flag_old, old),
    ]


def _of_calls() -> list[_Trigger]:
    done = "(OLD.state = 'DONE' OR NEW.state = 'DONE')"
    update = "AFTER UPDATE OF job_id, run, state, scored_at ON answer"
    gone = "DELETE FROM called_finding WHERE study_id = OLD.study_id AND pipeline = OLD.pipeline"
    scanner = "COALESCE(NEW.station_name, NEW.manufacturer, '')"
    moved = f"UPDATE called_finding SET scanner = {scanner} WHERE study_id = NEW.id AND scanner <> {scanner}"
    lock = _LOCK.substitute(study="NEW.study_id", pipeline="NEW.pipeline")
    more, fewer = (
        f"INSERT INTO call_tally ({CALL_KEY}, n) VALUES ("
        + ", ".join(f"{row}.{name}" for name in CALL_KEY.split(", "))
        + f", {n})"
        for row, n in (("NEW", "1"), ("OLD", "-1"))
    )
    return [
        _Trigger("call_answer_insert", "AFTER INSERT ON answer", _call_again("NEW", None)),
        _Trigger("call_answer_update", update, _call_again("NEW", None, done)),
        _Trigger("call_answer_delete", "AFTER DELETE ON answer", (gone,)),
        _Trigger("call_verdict_insert", "AFTER INSERT ON verdict", _call_again("NEW", "NEW.finding"), lock),
        _Trigger("call_study_update", "AFTER UPDATE OF station_name, manufacturer ON study", (moved,)),
        _Trigger("call_tally_insert", "AFTER INSERT ON called_finding", (more,)),
        _Trigger("call_tally_update", "AFTER UPDATE ON called_finding", (fewer, more)),
        _Trigger("call_tally_delete", "AFTER DELETE ON called_finding", (fewer,)),
    ]


def _triggers() -> list[_Trigger]:
    return [*_of_jobs(), *_of_revisions(), *_of_results(), *_of_calls()]


def _ddl(trigger: _Trigger, dialect: str) -> list[str]:
    """The statements that make a trigger."""
    statements = [in_dialect(statement, dialect) for statement in trigger.statements]
    if dialect == "sqlite":
        body = ";\n".join(statements)
        return [f"CREATE TRIGGER {trigger.name} {trigger.event} FOR EACH ROW BEGIN\n{body};\nEND"]
    body = ";\n".join([*([trigger.lock] if trigger.lock else []), *statements])
    given = "OLD" if trigger.event.startswith("BEFORE DELETE") else "NULL"
    return [
        f"CREATE OR REPLACE FUNCTION {trigger.name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$body$ BEGIN\n{body};\nRETURN {given};\nEND $body$",
        f"CREATE TRIGGER {trigger.name} {trigger.event} FOR EACH ROW EXECUTE FUNCTION {trigger.name}()",
    ]


def _there(connection: Connection) -> dict[str, str]:
    """Triggers of ours that are there, of this version or an older one, and their tables."""
    queries = {
        "sqlite": "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT t.tgname, c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE NOT t.tgisinternal AND c.relnamespace = CURRENT_SCHEMA()::regnamespace",
    }
    rows = connection.execute(text(queries[connection.dialect.name]))
    return {str(name): str(table) for name, table in rows if name.startswith(PREFIXES)}


def drop_triggers(connection: Connection) -> None:
    """Drop every trigger of ours that is there."""
    for name, table in _there(connection).items():
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql(f"DROP TRIGGER {name} ON {table}")
            connection.exec_driver_sql(f"DROP FUNCTION {name}()")


def triggers_are_there(connection: Connection) -> bool:
    """Whether all of them are."""
    return _there(connection).keys() >= {trigger.name for trigger in _triggers()}


def create_triggers(connection: Connection) -> None:
    """Make all of them; the tables must be at head."""
    for trigger in _triggers():
        for statement in _ddl(trigger, connection.dialect.name):
            connection.exec_driver_sql(statement)
