"""The views that people query. Same columns on SQLite and PostgreSQL; the names are a public contract.

Views are code, not data: ``firstread migrate`` drops and makes all of them after the tables are up to date.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from firstread.pipelines import PIPELINES
from firstread.records.definitions import PATIENT, STUDY_STATE, in_dialect

_JOBS = """
    SELECT j.id AS job_id, j.run, j.pipeline, j.state, j.reason, COALESCE(j.detail, j.error) AS detail, j.warnings,
           j.series_instance_uid, j.evidence_path, j.finished_at,
           r.id AS revision_id, r.study_id, r.number AS revision, r.last_seen_at, r.closed_at
    FROM job j JOIN revision r ON r.id = j.revision_id
"""

_STUDY_COLUMNS = """
    s.patient_id, s.accession_number, s.modality, s.station_name, s.manufacturer, s.source, s.source_name,
    s.calling_ae"""

_RESULT_COLUMNS = """
    j.pipeline, f.model_name, f.model_version, j.series_instance_uid, f.finding, f.probability, f.value, f.unit,
    f.threshold"""


STUDY_RESULT = f"""
SELECT s.study_instance_uid, r.number AS revision, {_STUDY_COLUMNS}, a.state,
    CASE WHEN a.job_id IS NULL THEN r.reason ELSE j.reason END AS reason, COALESCE(j.detail, j.error) AS detail,
    CASE WHEN a.job_id IS NULL THEN r.warnings ELSE j.warnings END AS warnings,
    a.pipeline, f.model_name, f.model_version, j.series_instance_uid, f.finding, f.probability, f.value, f.unit,
    f.threshold,
    (a.flagged = TRUE AND f.finding IS NOT NULL AND (f.flagged OR g.id IS NOT NULL)) AS flagged,
    j.evidence_path, a.received_at, r.closed_at, a.scored_at, f.engine
FROM answer a
JOIN study s ON s.id = a.study_id
JOIN revision r ON r.id = a.revision_id
LEFT JOIN job j ON j.id = a.job_id
LEFT JOIN result f ON f.job_id = a.job_id AND f.run = a.run AND f.role = 'active'
LEFT JOIN flag g ON g.study_id = a.study_id AND g.pipeline = a.pipeline AND g.finding = f.finding
WHERE {PATIENT}
"""

STUDY_RESULT_HISTORY = f"""
SELECT s.study_instance_uid, j.revision, {_STUDY_COLUMNS}, j.state, j.reason, j.detail, j.warnings, {_RESULT_COLUMNS},
    COALESCE(f.flagged, FALSE) AS flagged, j.evidence_path, j.last_seen_at AS received_at, j.closed_at,
    COALESCE(f.created_at, j.finished_at) AS scored_at, f.engine, f.role, COALESCE(f.run, j.run) AS run
FROM ({_JOBS}) j
JOIN study s ON s.id = j.study_id
LEFT JOIN result f ON f.job_id = j.job_id
WHERE {PATIENT}
UNION ALL
SELECT s.study_instance_uid, r.number, {_STUDY_COLUMNS}, {STUDY_STATE}, r.reason, NULL, r.warnings,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, FALSE, NULL, r.last_seen_at, r.closed_at, NULL, NULL, NULL,
    NULL
FROM revision r JOIN study s ON s.id = r.study_id
WHERE NOT EXISTS (SELECT 1 FROM job j WHERE j.revision_id = r.id)
    AND NOT EXISTS (SELECT 1 FROM standing t WHERE t.revision_id = r.id) AND {PATIENT}
UNION ALL
SELECT s.study_instance_uid, r.number, {_STUDY_COLUMNS}, j.state, t.reason, NULL, r.warnings,
    t.pipeline, NULL, NULL, j.series_instance_uid, NULL, NULL, NULL, NULL, NULL, FALSE, NULL, r.last_seen_at,
    r.closed_at, NULL, NULL, NULL, NULL
FROM revision r
CROSS JOIN standing t
JOIN job j ON j.id = t.job_id
JOIN study s ON s.id = r.study_id
WHERE t.revision_id = r.id AND {PATIENT}
"""

SLICE_SCORE = f"""
SELECT s.study_instance_uid, r.number AS revision, i.series_instance_uid, i.sop_instance_uid, c.frame,
    c.instance_number, a.pipeline, c.model_name, c.model_version, c.finding, c.probability
FROM answer a
JOIN study s ON s.id = a.study_id
JOIN revision r ON r.id = a.revision_id
JOIN slice_score_row c ON c.job_id = a.job_id AND c.run = a.run AND c.role = 'active'
JOIN instance i ON i.id = c.instance_id
WHERE {PATIENT}
"""

SLICE_SCORE_HISTORY = f"""
SELECT s.study_instance_uid, r.number AS revision, i.series_instance_uid, i.sop_instance_uid, c.frame,
    c.instance_number, j.pipeline, c.model_name, c.model_version, c.finding, c.probability, c.role, c.run
FROM job j
JOIN revision r ON r.id = j.revision_id
JOIN study s ON s.id = r.study_id
JOIN slice_score_row c ON c.job_id = j.id
JOIN instance i ON i.id = c.instance_id
WHERE {PATIENT}
"""

_FIRST_SEEN = """
    COALESCE((SELECT x.last_seen_at
              FROM revision x JOIN job y ON y.revision_id = x.id JOIN result z ON z.job_id = y.id
              WHERE x.study_id = g.study_id AND y.pipeline = g.pipeline AND z.finding = g.finding AND z.flagged
                  AND z.role <> 'shadow'
              ORDER BY z.created_at, x.number LIMIT 1), r.last_seen_at)"""
"""When the last image of the revision came that raised a flag first: the start of its latency."""

STUDY_FLAG = f"""
SELECT s.study_instance_uid, r.number AS revision, s.patient_id, s.accession_number, g.pipeline, g.finding,
    g.probability, g.threshold, g.series_instance_uid, g.key_sop_instance_uid, g.volume_ml, g.evidence_path, g.warnings,
    {_FIRST_SEEN} AS received_at, g.flagged_at, g.notified_at, g.acknowledged_at, g.acknowledged_by
FROM flag g
JOIN study s ON s.id = g.study_id
JOIN job j ON j.id = g.job_id
JOIN revision r ON r.id = j.revision_id
"""

HEMORRHAGE_FLAG = f"""
SELECT s.study_instance_uid, r.number AS revision, s.patient_id, s.accession_number, g.probability, g.threshold,
    g.series_instance_uid, g.key_sop_instance_uid, g.volume_ml, g.evidence_path, g.warnings,
    {_FIRST_SEEN} AS received_at, g.flagged_at, g.notified_at, g.acknowledged_at, g.acknowledged_by
FROM flag g
JOIN study s ON s.id = g.study_id
JOIN job j ON j.id = g.job_id
JOIN revision r ON r.id = j.revision_id
WHERE g.pipeline = 'head_ct' AND g.finding = 'any'
"""

HEMORRHAGE_FLAG_HISTORY = """
SELECT s.study_instance_uid, r.number AS revision, s.patient_id, s.accession_number, f.probability, f.threshold,
    j.series_instance_uid, f.model_name, f.model_version, f.role, f.run, j.evidence_path, j.warnings,
    r.last_seen_at AS received_at, f.created_at AS flagged_at
FROM result f
JOIN job j ON j.id = f.job_id
JOIN revision r ON r.id = j.revision_id
JOIN study s ON s.id = r.study_id
WHERE j.pipeline = 'head_ct' AND f.finding = 'any' AND f.flagged
"""

_LEADING = "CASE a.pipeline " + " ".join(f"WHEN '{p.name}' THEN '{p.leading}'" for p in PIPELINES) + " END"

WORKLIST = f"""
SELECT s.id AS study_key, s.study_instance_uid, r.number AS revision, {_STUDY_COLUMNS}, a.state,
    CASE WHEN a.job_id IS NULL THEN r.reason ELSE j.reason END AS reason,
    CASE WHEN a.job_id IS NULL THEN r.warnings ELSE j.warnings END AS warnings,
    a.pipeline, f.finding, f.probability, f.threshold, (a.flagged = TRUE) AS flagged, g.flagged_at, g.acknowledged_at,
    g.acknowledged_by, r.made_at, r.old, a.received_at, a.scored_at
FROM answer a
JOIN study s ON s.id = a.study_id
JOIN revision r ON r.id = a.revision_id
LEFT JOIN job j ON j.id = a.job_id
LEFT JOIN result f ON f.job_id = a.job_id AND f.run = a.run AND f.role = 'active' AND f.finding = {_LEADING}
LEFT JOIN flag g ON g.study_id = a.study_id AND g.pipeline = a.pipeline AND g.finding = {_LEADING}
WHERE {PATIENT}
"""

RECEIVED_INSTANCE = f"""
SELECT study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, size_bytes,
    outcome, source, source_name, calling_ae, received_at
FROM receipt s
WHERE {PATIENT}
"""

INTAKE_REFUSAL = """
SELECT received_at, source, source_name, calling_ae, reason, detail, kept_path, id AS number
FROM intake_refusal_row
"""

ASSOCIATION_REFUSAL = """
SELECT first_at, last_at, count, calling_ae, called_ae, host, reason, contexts
FROM association_refusal_row
"""

Z_95 = 1.959963984540054
"""``scipy.stats.norm.ppf(0.975)``: a view has to carry it, and the listener need not load scipy."""


def _wilson(k: str, n: str, sign: str) -> str:
    """One end of the 95 % interval of a proportion k of n (Wilson, J. Am. Stat. Assoc. 1927;22:209), as SQL.

    The same as ``scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")``, which a test holds it to.
    """
    z2 = Z_95**2
    root = f"SQRT(({k}) * (({n}) - ({k})) * 1.0 / NULLIF({n}, 0) + {z2 / 4})"
    return f"(({k}) + {z2 / 2} {sign} {Z_95} * {root}) / NULLIF(({n}) + {z2}, 0)"


def _proportion(name: str, k: str, n: str) -> str:
    low = f"CAST(CASE WHEN {n} > 0 THEN {_wilson(k, n, '-')} END AS DOUBLE PRECISION) AS {name}_low"
    high = f"CAST(CASE WHEN {n} > 0 THEN {_wilson(k, n, '+')} END AS DOUBLE PRECISION) AS {name}_high"
    return f"CAST({k} * 1.0 / NULLIF({n}, 0) AS DOUBLE PRECISION) AS {name}, {low}, {high}"


NEXT_STEP = f"""
SELECT s.study_instance_uid, r.number AS revision, s.patient_id, s.accession_number, s.source_name, a.pipeline,
    j.next_step, a.scored_at
FROM answer a
JOIN study s ON s.id = a.study_id
JOIN revision r ON r.id = a.revision_id
JOIN job j ON j.id = a.job_id
WHERE a.state = 'DONE' AND j.next_step IS NOT NULL AND {PATIENT}
"""

VERDICT_PERFORMANCE = f"""
WITH counted AS (
    SELECT pipeline, scanner, month, finding, SUM(n) AS n, SUM(n * positive) AS positives,
        SUM(CASE WHEN truth IS NOT NULL THEN n ELSE 0 END) AS n_truth,
        SUM(CASE WHEN truth = 1 AND positive = 1 THEN n ELSE 0 END) AS true_positive,
        SUM(CASE WHEN truth = 0 AND positive = 1 THEN n ELSE 0 END) AS false_positive,
        SUM(CASE WHEN truth = 0 AND positive = 0 THEN n ELSE 0 END) AS true_negative,
        SUM(CASE WHEN truth = 1 AND positive = 0 THEN n ELSE 0 END) AS false_negative
    FROM call_tally GROUP BY pipeline, scanner, month, finding
    HAVING SUM(n) > 0
)
SELECT pipeline, scanner, month, finding, n, positives,
    {_proportion("positive_ratio", "positives", "n")},
    n_truth, true_positive, false_positive, true_negative, false_negative,
    {_proportion("sensitivity", "true_positive", "(true_positive + false_negative)")},
    {_proportion("specificity", "true_negative", "(true_negative + false_positive)")},
    {_proportion("ppv", "true_positive", "(true_positive + false_positive)")}
FROM counted
"""

DELIVERY_STATUS = """
SELECT s.study_instance_uid, r.number AS revision, j.pipeline, d.id AS delivery, d.destination, d.kind, d.escalation,
    d.topic, d.state, d.attempts, d.next_at, d.last_status, d.created_at, d.finished_at
FROM delivery d
JOIN job j ON j.id = d.job_id
JOIN revision r ON r.id = j.revision_id
JOIN study s ON s.id = r.study_id
"""

DRIFT = """
SELECT day, pipeline, model_name, model_version, modality, scanner, quantity, n, psi, computed_at FROM drift_row
"""

AUDIT_LOG = """
SELECT at, actor, host, action, subject, detail FROM audit_event
"""

VIEWS: dict[str, str] = {
    "study_result": STUDY_RESULT,
    "study_result_history": STUDY_RESULT_HISTORY,
    "slice_score": SLICE_SCORE,
    "slice_score_history": SLICE_SCORE_HISTORY,
    "worklist": WORKLIST,
    "study_flag": STUDY_FLAG,
    "hemorrhage_flag": HEMORRHAGE_FLAG,
    "hemorrhage_flag_history": HEMORRHAGE_FLAG_HISTORY,
    "received_instance": RECEIVED_INSTANCE,
    "intake_refusal": INTAKE_REFUSAL,
    "association_refusal": ASSOCIATION_REFUSAL,
    "next_step": NEXT_STEP,
    "verdict_performance": VERDICT_PERFORMANCE,
    "delivery_status": DELIVERY_STATUS,
    "drift": DRIFT,
    "audit_log": AUDIT_LOG,
}


def select_for(name: str, dialect: str) -> str:
    """The SELECT of a view in the words of an engine."""
    return in_dialect(VIEWS[name], dialect)


def drop_views(connection: Connection) -> None:
    """Drop every view of ours that is there."""
    for name in reversed(VIEWS):
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))


def create_views(connection: Connection) -> None:
    """Make every view; the tables must be at head."""
    for name in VIEWS:
        connection.execute(text(f"CREATE VIEW {name} AS {select_for(name, connection.dialect.name)}"))
