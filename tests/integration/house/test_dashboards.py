"""Every SQL panel of the dashboards on a real PostgreSQL that holds one of everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from firstread.clock import utcnow
from firstread.records import Database, Delivery, Flag, Job
from firstread.records.intake import IntakeRefusal
from firstread.records.outcomes import DriftRow, Verdict
from tests.builders.prometheus import panel_targets
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in

PANELS = panel_targets("rawSql")


def grafana(sql: str) -> str:
    """The query as Grafana's PostgreSQL data source would send it, for the last seven days."""
    return re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '7 days' AND now()", sql)


@pytest.fixture(scope="module")
def filled(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with scored, flagged, rejected and failed studies, verdicts, deliveries, drift and refusals."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE dashboards")
    url = postgres_server.replace("/postgres?", "/dashboards?")
    settings = settings_in(tmp_path_factory.mktemp("home"), database_url=url)
    db = database_in(settings)
    now = utcnow()
    at = now - timedelta(seconds=30)
    bleed = scored_study(db, settings, closed_at=at)
    for pipeline in ("chest_xray", "dermoscopy"):
        scored_study(db, settings, pipeline=pipeline, closed_at=at)
    scored_study(db, settings, probability=0.02, accession="A-101", closed_at=at)
    for state in ("REJECTED", "FAILED"):
        scored_study(db, settings, accession=state, closed_at=at - timedelta(seconds=5), probability=0.1, state=state)
    with db.write() as session:
        flag = session.get_one(Flag, bleed.flag_id)
        flag.notified_at = flag.flagged_at + timedelta(seconds=1)
        flag.acknowledged_at, flag.acknowledged_by = now, "reader"
        study = session.get_one(Job, bleed.job_id).revision.study
        session.add(Verdict(study_id=study.id, pipeline="head_ct", finding="any", truth=1, source="reader", at=now))
        session.add(
            Delivery(job_id=bleed.job_id, run=1, kind="webhook", destination="ris", state="DELIVERED", created_at=at)
        )
        session.add(IntakeRefusal(received_at=at, source="inbox", source_name="a.txt", reason="not_dicom"))
        session.add(
            DriftRow(
                day=now.date(),
                pipeline="head_ct",
                model_name="bleed_net",
                model_version="1.0",
                modality="CT",
                scanner="CT1",
                quantity="score",
                n=40,
                psi=0.3,
                computed_at=now,
            )
        )
    yield db
    db.dispose()


@pytest.mark.parametrize(("where", "target"), PANELS, ids=[where for where, _ in PANELS])
def test_a_sql_panel_returns_data(filled: Database, where: str, target: dict[str, Any]) -> None:
    with filled.read() as session:
        result = session.execute(text(grafana(target["rawSql"]).replace("::", "\\:\\:")))
        columns, rows = list(result.keys()), result.fetchall()
    assert "$" not in grafana(target["rawSql"])
    assert rows, where
    for number, column in enumerate(columns):
        empty = all(row[number] is None for row in rows)
        assert not empty or column.startswith(("specificity",)), f"{where}: {column} is always NULL"
    if target["format"] == "time_series":
        assert columns[0] == "time"
        assert rows[0][0].tzinfo is not None


def test_the_figures_are_those_of_the_studies(filled: Database) -> None:
    panels = dict(PANELS)

    def rows(title: str) -> list[dict[str, Any]]:
        with filled.read() as session:
            query = text(grafana(panels[f"results: {title}"]["rawSql"]).replace("::", "\\:\\:"))
            return [dict(row) for row in session.execute(query).mappings()]

    assert rows("Head CT flags of 24 hours") == [{"flags": 1}]
    assert rows("Not acknowledged, all pipelines") == [{"flags": 2}]
    assert rows("From the last image to the flag") == [{"median": 5.0, "95th percentile": 5.0}]
    assert rows("From the last image to the notification") == [{"median": 6.0, "95th percentile": 6.0}]
    scanners = {(r["pipeline"], r["station"]): r for r in rows("Scanners")}
    head = scanners["head_ct", "CT1"]
    assert (head["studies"], head["done"], head["rejected"], head["failed"], head["flagged"]) == (4, 2, 1, 1, 1)
    assert {(r["state"], r["reason"]) for r in rows("Not scored, by reason")} == {
        ("REJECTED", "too_few_slices"),
        ("FAILED", "too_few_slices"),
    }
