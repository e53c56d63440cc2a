"""Every documented query, its class and its limit: the one list that ``make bench`` measures and a test explains.

Look-ups and listings may read what they show, whatever else the database has; aggregates may read everything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import TextClause, select, text
from sqlalchemy.orm import Session

from firstread.metrics.outcomes import OutcomeFigures
from firstread.metrics.outcomes import families as outcome_families
from firstread.metrics.state import FIGURES, read_database
from firstread.records import Job, Revision
from firstread.records.studies import find_study
from firstread.states import JobState, has_open_work
from firstread_cli.listing_queries import (
    AUDIT_QUERY,
    DRIFT_QUERY,
    PERFORMANCE_QUERY,
    deliveries_query,
    flag_count,
    flag_rows,
    history_rows,
    results_query,
)
from firstread_cli.study import story

LIMITS_S = {"look-up": 0.05, "listing": 0.05, "aggregate": 1.0}
"""By class."""

AGGREGATES_UP_TO = 50_000
"""Studies for which the limit of aggregates holds."""

SHOWN = 50
"""Rows of a listing that has a limit."""

SQLITE, POSTGRESQL = "sqlite", "postgresql"
BOTH = (SQLITE, POSTGRESQL)

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "monitoring" / "grafana" / "dashboards" / "results.json"
TIME_FILTER = re.compile(r"\$__timeFilter\((\w+)\)")

UID = "1.2.826.0.1.3680043.10.1.{study}"
"""StudyInstanceUID of the filled database."""


@dataclass(frozen=True)
class Subject:
    """What look-ups look for: a study of the filled database, and the first moment of its last month."""

    uid: str
    accession_number: str
    patient_id: str
    month: str


@dataclass(frozen=True)
class DocumentedQuery:
    """A query as documents, commands or dashboards ask it.

    Attributes
    ----------
    kind : str
        A key of :data:`LIMITS_S`.
    source : str
        Where it stands.
    ask : str or callable
        SQL whose ``:uid``, ``:accession``, ``:patient``, ``:month`` and ``:limit`` are those of a subject; or what asks
        it of a session, about a subject, and returns how many rows came.
    engines : tuple of str
        On which it is asked.
    """

    name: str
    kind: str
    source: str
    ask: str | Callable[[Session, Subject], int]
    engines: tuple[str, ...] = BOTH

    def limit_s(self, studies: int) -> float | None:
        """The longest that it may take in a database of so many studies, in seconds; None where nothing is said."""
        return None if self.kind == "aggregate" and studies > AGGREGATES_UP_TO else LIMITS_S[self.kind]

    def run(self, session: Session, about: Subject) -> int:
        """Ask it; returns how many rows came."""
        if not isinstance(self.ask, str):
            return self.ask(session, about)
        values = {
            "uid": about.uid,
            "accession": about.accession_number,
            "patient": about.patient_id,
            "month": about.month,
            "limit": SHOWN,
        }
        names = set(re.findall(r"(?<!:):(\w+)", self.ask))
        return _rows(session, text(self.ask).bindparams(**{name: values[name] for name in names}))


def _rows(session: Session, query: TextClause) -> int:
    return len(session.execute(query).all())


WAITING = Job.state == JobState.WAITING.value


def _results(**conditions: Any) -> Callable[[Session, Subject], int]:
    return lambda session, _: _rows(session, results_query(limit=100, listed_only=True, **conditions))


def _collect(session: Session, _: Subject) -> int:
    """A scrape, with nothing served from memory."""
    families = outcome_families()
    families |= {name: GaugeMetricFamily(name, help_text, labels=labels) for name, help_text, labels in FIGURES}
    read_database(session, families)
    OutcomeFigures().read(session, families)
    return sum(len(family.samples) for family in families.values())


def _story(session: Session, subject: Subject) -> int:
    return len(story(session, find_study(session, subject.accession_number))["results"])


LOOK_UPS = (
    DocumentedQuery(
        "one study by StudyInstanceUID",
        "look-up",
        "docs/performance.md",
        "SELECT * FROM study_result WHERE study_instance_uid = :uid",
    ),
    DocumentedQuery(
        "one study by accession number",
        "look-up",
        "README.md",
        "SELECT pipeline, state, reason, finding, probability, value, unit, threshold, flagged, warnings "
        "FROM study_result WHERE accession_number = :accession",
    ),
    DocumentedQuery(
        "studies of a patient",
        "look-up",
        "docs/performance.md",
        "SELECT * FROM study_result WHERE patient_id = :patient",
    ),
    DocumentedQuery(
        "most suspicious slices of a study",
        "look-up",
        "README.md",
        "SELECT sop_instance_uid, instance_number, probability FROM slice_score "
        "WHERE study_instance_uid = :uid AND finding = 'any' ORDER BY probability DESC LIMIT 5",
    ),
    DocumentedQuery(
        "history of a study",
        "look-up",
        "docs/performance.md",
        "SELECT * FROM study_result_history WHERE study_instance_uid = :uid",
    ),
    DocumentedQuery(
        "slice scores of a study, every run",
        "look-up",
        "docs/performance.md",
        "SELECT * FROM slice_score_history WHERE study_instance_uid = :uid",
    ),
    DocumentedQuery(
        "flags of a study",
        "look-up",
        "docs/performance.md",
        "SELECT * FROM study_flag WHERE study_instance_uid = :uid",
    ),
    DocumentedQuery(
        "images received of a study",
        "look-up",
        "docs/performance.md",
        "SELECT * FROM received_instance WHERE study_instance_uid = :uid",
    ),
    DocumentedQuery(
        "deliveries of a study",
        "look-up",
        "docs/performance.md",
        "SELECT * FROM delivery_status WHERE study_instance_uid = :uid",
    ),
    DocumentedQuery("firstread study", "look-up", "docs/operations.md", _story),
)

LISTINGS = (
    DocumentedQuery(
        "open head CT flags",
        "listing",
        "README.md",
        "SELECT accession_number, probability, volume_ml, flagged_at FROM hemorrhage_flag "
        "WHERE acknowledged_at IS NULL ORDER BY flagged_at",
    ),
    DocumentedQuery(
        "firstread flags",
        "listing",
        "firstread_cli/listings.py",
        lambda session, _: len(flag_rows(session, limit=100)) + 0 * flag_count(session),
    ),
    DocumentedQuery(
        "firstread flags --open",
        "listing",
        "firstread_cli/listings.py",
        lambda session, _: len(flag_rows(session, only_open=True, limit=100)) + 0 * flag_count(session, only_open=True),
    ),
    DocumentedQuery(
        "newest 50 results",
        "listing",
        "docs/performance.md",
        "SELECT * FROM study_result ORDER BY received_at DESC LIMIT :limit",
    ),
    DocumentedQuery("firstread results", "listing", "firstread_cli/listings.py", _results()),
    DocumentedQuery(
        "firstread results --pipeline dermoscopy",
        "listing",
        "firstread_cli/listings.py",
        _results(wanted={"pipeline": "dermoscopy"}),
    ),
    DocumentedQuery(
        "firstread results --state FAILED", "listing", "firstread_cli/listings.py", _results(wanted={"state": "FAILED"})
    ),
    DocumentedQuery(
        "firstread results --state DONE --pipeline chest_xray",
        "listing",
        "firstread_cli/listings.py",
        _results(wanted={"state": "DONE", "pipeline": "chest_xray"}),
    ),
    DocumentedQuery("firstread results --flagged", "listing", "firstread_cli/listings.py", _results(flagged=True)),
    DocumentedQuery(
        "firstread results --history",
        "listing",
        "firstread_cli/listings.py",
        lambda session, _: len(history_rows(session, limit=100)),
    ),
    DocumentedQuery(
        "firstread deliveries",
        "listing",
        "firstread_cli/outcomes.py",
        lambda s, _: _rows(s, deliveries_query(None, 50)),
    ),
    DocumentedQuery(
        "firstread deliveries --state FAILED",
        "listing",
        "firstread_cli/outcomes.py",
        lambda s, _: _rows(s, deliveries_query("FAILED", 50)),
    ),
    DocumentedQuery("firstread audit", "listing", "firstread_cli/outcomes.py", AUDIT_QUERY),
    DocumentedQuery("firstread drift", "listing", "firstread_cli/outcomes.py", DRIFT_QUERY),
    DocumentedQuery(
        "refused at the door",
        "listing",
        "README.md",
        "SELECT received_at, source_name, reason, detail FROM intake_refusal ORDER BY received_at DESC LIMIT :limit",
    ),
    DocumentedQuery(
        "modalities turned away",
        "listing",
        "docs/operations.md",
        "SELECT * FROM association_refusal ORDER BY last_at DESC LIMIT :limit",
    ),
    DocumentedQuery(
        "firstread doctor, what waits",
        "listing",
        "firstread_cli/doctor/command.py",
        "SELECT COUNT(*) FROM study_result WHERE state IN ('WAITING', 'SCORING')",
    ),
    DocumentedQuery(
        "revisions that wait for a worker",
        "listing",
        "worker/process/sweeper.py",
        lambda session, _: len(session.scalars(select(Revision.id).where(has_open_work(WAITING))).all()),
    ),
    DocumentedQuery("metrics collector", "listing", "firstread/metrics/", _collect),
)

AGGREGATES = (
    DocumentedQuery(
        "rejected, by reason",
        "aggregate",
        "README.md",
        "SELECT reason, COUNT(DISTINCT study_instance_uid) AS studies FROM study_result "
        "WHERE state = 'REJECTED' GROUP BY reason ORDER BY studies DESC",
    ),
    DocumentedQuery("firstread performance", "aggregate", "firstread_cli/outcomes.py", PERFORMANCE_QUERY),
    DocumentedQuery(
        "next steps of skin lesions",
        "aggregate",
        "docs/dermoscopy.md",
        "SELECT r.study_instance_uid, r.probability, n.next_step FROM study_result r "
        "JOIN next_step n USING (study_instance_uid, pipeline) "
        "WHERE r.finding = 'melanoma' ORDER BY r.scored_at DESC",
    ),
    DocumentedQuery(
        "shadow against active",
        "aggregate",
        "docs/operations.md",
        "SELECT a.accession_number, a.probability AS p_active, s.model_version AS shadow_version, "
        "s.probability AS p_shadow, a.flagged, COALESCE(s.probability >= s.threshold, FALSE) AS shadow_would_flag "
        "FROM study_result_history a JOIN study_result_history s "
        "ON s.study_instance_uid = a.study_instance_uid AND s.revision = a.revision AND s.pipeline = a.pipeline "
        "AND s.run = a.run AND s.finding = a.finding AND s.role = 'shadow' "
        "WHERE a.role = 'active' AND a.pipeline = 'head_ct' AND a.finding = 'any' "
        "AND COALESCE(a.probability >= a.threshold, FALSE) <> COALESCE(s.probability >= s.threshold, FALSE)",
    ),
)


def dashboard_queries() -> tuple[DocumentedQuery, ...]:
    """The panels of the results dashboard, over a month; they are asked of PostgreSQL alone."""
    panels = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for target in node.get("targets", ()):
                if target.get("rawSql"):
                    panels.append((str(node.get("title", "")), str(target["rawSql"])))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(json.loads(DASHBOARD.read_text(encoding="utf-8")))
    return tuple(
        DocumentedQuery(
            f"panel: {title}",
            "aggregate",
            "monitoring/grafana/dashboards/results.json",
            TIME_FILTER.sub(r"\1 >= CAST(:month AS timestamptz)", query),
            engines=(POSTGRESQL,),
        )
        for title, query in panels
    )


def documented_queries() -> tuple[DocumentedQuery, ...]:
    """All of them."""
    return (*LOOK_UPS, *LISTINGS, *AGGREGATES, *dashboard_queries())
