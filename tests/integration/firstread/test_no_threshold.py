"""A score without a threshold is neither positive nor negative, wherever somebody asks; on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from firstread.actions.verdicts import VerdictError, called_positive, record_verdict
from firstread.codes import IMAGE_CODES
from firstread.metrics.outcomes import OutcomeFigures, families
from firstread.records import Database, Delivery, Flag
from firstread.report.page import write_report
from firstread.settings import Settings
from tests.builders.deliveries import deliveries, hook, plan_for
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.site import database_in, settings_in
from worker.outputs.messages import message
from worker.outputs.senders.mail import mail_text
from worker.pipelines.reasons import Caution

Site = tuple[Settings, Database]
MONTH = datetime(2026, 11, 3, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    file = tmp_path / "destinations.toml"
    file.write_text(
        hook("http://127.0.0.1:9/a", "every")
        + hook("http://127.0.0.1:9/b", "ill", 'when = { findings = ["pneumonia", "covid19", "viral"] }')
        + hook("http://127.0.0.1:9/c", "flagged", "when = { flagged = true }"),
        encoding="utf-8",
    )
    settings = settings_in(tmp_path / "home", database_url=database_url, destinations=file)
    db = database_in(settings)
    yield settings, db
    db.dispose()


def _film(site: Site, probability: float, threshold: float | None, number: int) -> Scored:
    settings, db = site
    return scored_study(
        db,
        settings,
        pipeline="chest_xray",
        n=1,
        probability=probability,
        threshold=threshold,
        accession=f"N{number}",
        closed_at=MONTH,
    )


def test_performance_leaves_out_what_has_no_threshold(site: Site) -> None:
    _, db = site
    for number, (p, threshold, truth) in enumerate(
        [(0.9, 0.5, 1), (0.2, 0.5, 1), (0.99, None, 0), (0.6, None, 1), (0.1, None, 0)]
    ):
        scored = _film(site, p, threshold, number)
        record_verdict(db, scored.study_uid, "chest_xray", truth=truth)
        record_verdict(db, scored.study_uid, "chest_xray", finding="viral", truth=truth)
    with db.read() as session:
        (row,) = session.execute(text("SELECT * FROM verdict_performance")).mappings()
        figures = families()
        OutcomeFigures().read(session, figures)
    assert (row["finding"], row["n"], row["positives"], row["n_truth"]) == ("pneumonia", 2, 1, 2)
    assert (row["true_positive"], row["false_negative"], row["false_positive"], row["true_negative"]) == (1, 1, 0, 0)
    samples = {(s.name, *s.labels.values()): s.value for f in figures.values() for s in f.samples}
    assert samples["firstread_sensitivity_ratio", "chest_xray"] == 0.5
    assert ("firstread_specificity_ratio", "chest_xray") not in samples


def test_nobody_agrees_with_a_score_that_called_nothing(site: Site) -> None:
    _, db = site
    scored = _film(site, 0.99, None, 1)
    with db.read() as session:
        assert called_positive(session, scored.study_id, "chest_xray", "pneumonia") is None
        assert called_positive(session, scored.study_id, "chest_xray", "viral") is None
    for finding in ("pneumonia", "viral"):
        with pytest.raises(VerdictError, match="no threshold"):
            record_verdict(db, scored.study_uid, "chest_xray", finding=finding, agree=True)
        assert record_verdict(db, scored.study_uid, "chest_xray", finding=finding, truth=0).agree is None


def test_a_flag_of_another_run_stands_and_counts(site: Site) -> None:
    _, db = site
    scored = _film(site, 0.3, None, 1)
    with db.write() as session:
        session.add(
            Flag(
                study_id=scored.study_id,
                pipeline="chest_xray",
                finding="pneumonia",
                job_id=scored.job_id,
                probability=0.9,
                threshold=0.5,
                model_name="m",
                model_version="1",
                flagged_at=MONTH,
            )
        )
    with db.read() as session:
        assert called_positive(session, scored.study_id, "chest_xray", "pneumonia") is True
        rows = session.execute(text("SELECT finding, n, positives FROM verdict_performance")).all()
        flagged = session.execute(text("SELECT flagged FROM study_result WHERE finding = 'pneumonia'")).scalar_one()
    assert [tuple(row) for row in rows] == [("pneumonia", 1, 1)] and flagged


def test_it_is_shown_without_a_flag_and_notifies_nobody(site: Site, tmp_path: Path) -> None:
    settings, db = site
    scored = _film(site, 0.99, None, 1)
    plan_for(db, settings, scored)
    assert {row.destination for row in deliveries(db)} == {"every"}
    with db.read() as session:
        row = session.execute(text("SELECT * FROM study_result WHERE finding = 'pneumonia'")).mappings().one()
        assert row["threshold"] is None and not row["flagged"]
        assert session.scalars(select(Flag)).all() == []
        content = message(session, session.scalars(select(Delivery)).one(), patient_data=False)
    content["warnings"] = [str(Caution.HINT_FOR_AGE)]
    assert (content["event"], content["flags"]) == ("result", [])
    lines = mail_text(content).splitlines()
    assert "Pneumonia: 0.99 (a hint, not flagged)" in lines and IMAGE_CODES[Caution.HINT_FOR_AGE] in lines
    write_report(db, settings, scored.study_uid, tmp_path / "report.html")
    assert "<td>a hint, not flagged</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    flagged = _film(site, 0.9, 0.5, 2)
    assert len(plan_for(db, settings, flagged)) == 3
