"""What :mod:`firstread.records.answers` are, in SQL: for all studies, as ``firstread migrate`` fills them, or for one.

The same words go into the triggers that keep them (:mod:`firstread.records.triggers`).
"""

from __future__ import annotations

import re

from sqlalchemy import Connection, text

JOB_RANK = "CASE j.state WHEN 'DONE' THEN 0 WHEN 'REJECTED' THEN 1 WHEN 'FAILED' THEN 1 ELSE 2 END, r.number DESC"
"""The first of a study and pipeline answers: a later revision that is rejected or fails hides no result."""

INTO_ANSWER = (
    "INSERT INTO answer (study_id, pipeline, revision_id, job_id, run, state, flagged, received_at, scored_at)"
)

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

PATIENT = "NOT EXISTS (SELECT 1 FROM self_test q WHERE q.study_instance_uid = s.study_instance_uid)"
"""The phantom of a running self-test is no patient's study, so no view shows it."""

SCANNER = "COALESCE(s.station_name, s.manufacturer, '')"

INTO_CALLED = "INSERT INTO called_finding (study_id, pipeline, finding, scanner, month, positive, truth)"

CALLS = f"""
    SELECT a.study_id, a.pipeline, f.finding, {SCANNER}, UTC_MONTH(a.scored_at),
        CASE WHEN f.flagged OR g.id IS NOT NULL OR f.probability >= f.threshold THEN 1 ELSE 0 END,
        (SELECT v.truth FROM verdict v
         WHERE v.study_id = a.study_id AND v.pipeline = a.pipeline AND v.finding = f.finding
         ORDER BY v.id DESC LIMIT 1)
    FROM answer a
    JOIN study s ON s.id = a.study_id
    JOIN result f ON f.job_id = a.job_id AND f.run = a.run AND f.role = 'active'
    LEFT JOIN flag g ON g.study_id = a.study_id AND g.pipeline = a.pipeline AND g.finding = f.finding
    WHERE a.state = 'DONE' AND f.probability IS NOT NULL
        AND (f.threshold IS NOT NULL OR f.flagged OR g.id IS NOT NULL) AND {PATIENT}"""
"""The newest verdict is the valid one. A score without a threshold is called only where a flag stands."""

CALL_KEY = "pipeline, scanner, month, finding, positive, truth"

_FILL = (
    "DELETE FROM answer",
    "DELETE FROM tally",
    "DELETE FROM called_finding",
    "DELETE FROM call_tally",
    f"""{INTO_ANSWER}{JOB_ANSWERS}
    WHERE j.id IN (
        SELECT id FROM (
            SELECT j.id, ROW_NUMBER() OVER (PARTITION BY r.study_id, j.pipeline ORDER BY {JOB_RANK}) AS place
            FROM job j JOIN revision r ON r.id = j.revision_id) ranked
        WHERE place = 1)
    ORDER BY r.last_seen_at""",
    f"""{INTO_ANSWER}{STUDY_ANSWERS}
        AND NOT EXISTS (SELECT 1 FROM revision x WHERE x.study_id = r.study_id AND x.number > r.number)""",
    "INSERT INTO tally (what, key, n) SELECT 'state', state, COUNT(*) FROM job GROUP BY state",
    """INSERT INTO tally (what, key, n) SELECT 'state', 'REJECTED', COUNT(*) FROM revision r
    WHERE r.routed_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job j WHERE j.revision_id = r.id)
        AND NOT EXISTS (SELECT 1 FROM standing t WHERE t.revision_id = r.id)""",
    "INSERT INTO tally (what, key, n) SELECT 'flag', pipeline, COUNT(*) FROM flag GROUP BY pipeline",
    INTO_CALLED + CALLS,
    f"INSERT INTO call_tally ({CALL_KEY}, n) SELECT {CALL_KEY}, COUNT(*) FROM called_finding GROUP BY {CALL_KEY}",
)

_UTC_MONTH = re.compile(r"UTC_MONTH\(([\w.]+)\)")
_MONTH_IN = {"sqlite": r"SUBSTR(\1, 1, 7)", "postgresql": r"TO_CHAR(\1 AT TIME ZONE 'UTC', 'YYYY-MM')"}


def in_dialect(query: str, dialect: str) -> str:
    """A query in the words of an engine: ``UTC_MONTH(column)`` becomes the month as ``2026-11``."""
    return _UTC_MONTH.sub(_MONTH_IN[dialect], query)


def fill_answers(connection: Connection) -> None:
    """Make every row that triggers keep anew; the triggers must not be there."""
    for statement in _FILL:
        connection.execute(text(in_dialect(statement, connection.dialect.name)))
