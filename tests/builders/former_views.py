"""What answers for a study and pipeline, looked for among all jobs by a window function: the definition."""

from __future__ import annotations

from firstread.records.definitions import JOB_RANK, SCANNER, STUDY_STATE, in_dialect
from firstread.records.views import VIEWS

RANKED = f"""
    SELECT j.id AS job_id, (SELECT MAX(x.run) FROM result x WHERE x.job_id = j.id) AS scored_run,
        j.pipeline, j.state, j.reason, COALESCE(j.detail, j.error) AS detail, j.next_step, j.warnings,
        j.series_instance_uid, j.evidence_path, j.finished_at,
        r.study_id, r.number AS revision, r.last_seen_at, r.closed_at,
        ROW_NUMBER() OVER (PARTITION BY r.study_id, j.pipeline ORDER BY {JOB_RANK}) AS place
    FROM job j JOIN revision r ON r.id = j.revision_id"""

_STUDY = """s.patient_id, s.accession_number, s.modality, s.station_name, s.manufacturer, s.source, s.source_name,
    s.calling_ae"""

_PATIENT = "NOT EXISTS (SELECT 1 FROM self_test q WHERE q.study_instance_uid = s.study_instance_uid)"

STUDY_RESULT = f"""
WITH ranked AS ({RANKED}),
latest AS (
    SELECT r.*, ROW_NUMBER() OVER (PARTITION BY r.study_id ORDER BY r.number DESC) AS place
    FROM revision r
    WHERE NOT EXISTS (
        SELECT 1 FROM job j JOIN revision x ON x.id = j.revision_id WHERE x.study_id = r.study_id)
)
SELECT s.study_instance_uid, j.revision, {_STUDY}, j.state, j.reason, j.detail, j.warnings, j.pipeline, f.model_name,
    f.model_version, j.series_instance_uid, f.finding, f.probability, f.value, f.unit, f.threshold,
    CASE WHEN f.finding IS NULL THEN FALSE
         ELSE (f.flagged OR EXISTS (
             SELECT 1 FROM flag g
             WHERE g.study_id = j.study_id AND g.pipeline = j.pipeline AND g.finding = f.finding)) END AS flagged,
    j.evidence_path, j.last_seen_at AS received_at, j.closed_at, j.finished_at AS scored_at, f.engine
FROM ranked j
JOIN study s ON s.id = j.study_id
LEFT JOIN result f ON f.job_id = j.job_id AND f.run = j.scored_run AND f.role = 'active'
WHERE j.place = 1 AND {_PATIENT}
UNION ALL
SELECT s.study_instance_uid, r.number, {_STUDY}, {STUDY_STATE}, r.reason, NULL, r.warnings,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, FALSE, NULL, r.last_seen_at, r.closed_at, NULL, NULL
FROM latest r JOIN study s ON s.id = r.study_id
WHERE r.place = 1 AND {_PATIENT}"""

SLICE_SCORE = f"""
SELECT s.study_instance_uid, j.revision, i.series_instance_uid, i.sop_instance_uid, c.frame, c.instance_number,
    j.pipeline, c.model_name, c.model_version, c.finding, c.probability
FROM ({RANKED}) j
JOIN study s ON s.id = j.study_id
JOIN slice_score_row c ON c.job_id = j.job_id AND c.run = j.scored_run AND c.role = 'active'
JOIN instance i ON i.id = c.instance_id
WHERE j.place = 1 AND {_PATIENT}"""

NEXT_STEP = f"""
SELECT s.study_instance_uid, j.revision, s.patient_id, s.accession_number, s.source_name, j.pipeline,
    j.next_step, j.finished_at AS scored_at
FROM ({RANKED}) j
JOIN study s ON s.id = j.study_id
WHERE j.place = 1 AND j.state = 'DONE' AND j.next_step IS NOT NULL AND {_PATIENT}"""

_CALLED = f"""
WITH ranked AS ({RANKED}),
said AS (
    SELECT v.study_id, v.pipeline, v.finding, v.truth,
        ROW_NUMBER() OVER (PARTITION BY v.study_id, v.pipeline, v.finding ORDER BY v.id DESC) AS place
    FROM verdict v
),
called AS (
    SELECT j.study_id, j.pipeline, j.finished_at, {SCANNER} AS scanner, f.finding, f.probability, f.threshold,
        (f.flagged OR EXISTS (
            SELECT 1 FROM flag g
            WHERE g.study_id = j.study_id AND g.pipeline = j.pipeline AND g.finding = f.finding)) AS flagged
    FROM ranked j
    JOIN study s ON s.id = j.study_id
    JOIN result f ON f.job_id = j.job_id AND f.run = j.scored_run AND f.role = 'active'
    WHERE j.place = 1 AND j.state = 'DONE' AND f.probability IS NOT NULL AND {_PATIENT}
),
scored AS (
    SELECT c.pipeline, c.scanner, UTC_MONTH(c.finished_at) AS month, c.finding, t.truth,
        CASE WHEN c.flagged OR c.probability >= c.threshold THEN 1 ELSE 0 END AS positive
    FROM called c
    LEFT JOIN said t ON t.place = 1 AND t.study_id = c.study_id AND t.pipeline = c.pipeline AND t.finding = c.finding
    WHERE c.threshold IS NOT NULL OR c.flagged
),
counted AS (
    SELECT pipeline, scanner, month, finding, COUNT(*) AS n, SUM(positive) AS positives, COUNT(truth) AS n_truth,
        COALESCE(SUM(CASE WHEN truth = 1 AND positive = 1 THEN 1 ELSE 0 END), 0) AS true_positive,
        COALESCE(SUM(CASE WHEN truth = 0 AND positive = 1 THEN 1 ELSE 0 END), 0) AS false_positive,
        COALESCE(SUM(CASE WHEN truth = 0 AND positive = 0 THEN 1 ELSE 0 END), 0) AS true_negative,
        COALESCE(SUM(CASE WHEN truth = 1 AND positive = 0 THEN 1 ELSE 0 END), 0) AS false_negative
    FROM scored GROUP BY pipeline, scanner, month, finding
)
"""


def definitions(dialect: str) -> dict[str, str]:
    """The SELECT of each view that answers per study and pipeline, by its name."""
    ratios = VIEWS["verdict_performance"].partition("\n)\n")[2]
    return {
        "study_result": STUDY_RESULT,
        "slice_score": SLICE_SCORE,
        "next_step": NEXT_STEP,
        "verdict_performance": in_dialect(_CALLED + ratios, dialect),
    }


STATE_COUNTS = """
SELECT state, SUM(n) FROM (
    SELECT state, COUNT(*) AS n FROM job GROUP BY state
    UNION ALL
    SELECT 'REJECTED', COUNT(*) FROM revision r
    WHERE r.routed_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job j WHERE j.revision_id = r.id)
        AND NOT EXISTS (SELECT 1 FROM standing t WHERE t.revision_id = r.id)) counted
GROUP BY state"""
"""Jobs, and revisions that no pipeline wants, by state."""
