"""Verdicts, confirmed diagnoses, acknowledgements, the audit trail, and the performance that comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from firstread.actions.deliveries import DeliveryError, cancel_delivery, retry_delivery, retry_failed
from firstread.actions.verdicts import VerdictError, acknowledge, import_truth, record_verdict
from firstread.metrics.outcomes import OutcomeFigures, families
from firstread.records import AuditEvent, Database, Delivery, Flag, Result, Verdict
from firstread.records.studies import UnknownStudy
from firstread.settings import Settings
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in

Site = tuple[Settings, Database]


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    settings = settings_in(tmp_path / "home", database_url=database_url)
    db = database_in(settings)
    yield settings, db
    db.dispose()


def events(db: Database) -> list[tuple[str, str]]:
    with db.read() as session:
        return [(e.action, e.subject or "") for e in session.scalars(select(AuditEvent).order_by(AuditEvent.id))]


def test_the_way_of_a_verdict(site: Site) -> None:
    settings, db = site
    scored = scored_study(db, settings)
    with db.write() as session:  # as the pipeline of heads stores its subtypes
        session.execute(update(Result).where(Result.finding == "epidural").values(threshold=0.5))
    assert record_verdict(db, scored.study_uid, "head_ct", agree=True, by="Dr. A").truth == 1
    assert record_verdict(db, scored.study_uid, "head_ct", agree=False, by="Dr. B").truth == 0
    missed = record_verdict(db, scored.study_uid, "head_ct", finding="epidural", truth=1, by="Dr. B", note="thin")
    assert (missed.agree, missed.truth) == (False, 1)
    assert record_verdict(db, "A-100", "head_ct", agree=True).finding == "any", "an accession number will do"
    assert [action for action, _ in events(db)] == ["verdict"] * 4
    assert events(db)[0][1] == f"study/{scored.study_id}"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"pipeline": "head_ct"}, "whether you agree"),
        ({"pipeline": "knee", "agree": True}, "no pipeline"),
        ({"pipeline": "head_ct", "finding": "melanoma", "truth": 1}, "no finding of"),
        ({"pipeline": "head_ct", "agree": True, "truth": 0}, "contradict"),
        ({"pipeline": "chest_xray", "agree": True}, "has not scored"),
        ({"pipeline": "head_ct", "truth": 2}, "0 or 1"),
    ],
)
def test_verdicts_that_make_no_sense(tmp_path: Path, arguments: dict[str, Any], word: str) -> None:
    settings = settings_in(tmp_path)
    db = database_in(settings)
    scored = scored_study(db, settings)
    with pytest.raises(VerdictError, match=word):
        record_verdict(db, scored.study_uid, **arguments)
    with pytest.raises(UnknownStudy, match="no such study"):
        record_verdict(db, "1.2.3", "head_ct", agree=True)


def test_audit_and_verdicts_cannot_be_changed(site: Site) -> None:
    settings, db = site
    scored = scored_study(db, settings)
    record_verdict(db, scored.study_uid, "head_ct", agree=True)
    for statement in (
        update(AuditEvent).values(actor="nobody"),
        delete(AuditEvent),
        update(Verdict).values(truth=0),
        delete(Verdict),
    ):
        with pytest.raises(DBAPIError, match="append-only"), db.write() as session:
            session.execute(statement)
    assert len(events(db)) == 1


def test_the_first_acknowledgement_stays(site: Site) -> None:
    settings, db = site
    scored = scored_study(db, settings)
    first = acknowledge(db, scored.study_uid, "Dr. A")
    second = acknowledge(db, scored.study_uid, "Dr. B")
    assert (second.acknowledged_by, second.acknowledged_at) == ("Dr. A", first.acknowledged_at)
    assert events(db) == [("flag.acknowledge", f"study/{scored.study_id}")]
    unflagged = scored_study(db, settings, probability=0.1)
    with pytest.raises(VerdictError, match="no flag"):
        acknowledge(db, unflagged.study_uid, "Dr. A")


def test_confirmed_diagnoses_by_csv(site: Site, tmp_path: Path) -> None:
    settings, db = site
    one = scored_study(db, settings, accession="X1")
    two = scored_study(db, settings, accession="X2", probability=0.2)
    scored_study(db, settings, accession="twice", probability=0.3)
    scored_study(db, settings, accession="twice", probability=0.4)
    file = tmp_path / "truth.csv"
    file.write_text(
        "\ufeffAccession_Number;Study_Instance_UID;Finding;Truth;Note\r\n"
        f';{one.study_uid};any;1;"two lines\r\nof it"\r\n'
        "X2;;any;0;\r\n"
        "X2;;subdural;yes;\r\n"
        "nobody;;any;1;\r\n"
        "twice;;any;1;\r\n"
        "X2;;any;maybe;\r\n"
        "X2;;broken leg;1;\r\n",
        encoding="utf-8",
    )
    imported = import_truth(db, file, by="registry")
    assert (imported.imported, imported.unchanged) == (3, 0)
    assert len(imported.unmatched) == 2
    assert len(imported.wrong) == 2
    again = import_truth(db, file, by="registry")
    assert (again.imported, again.unchanged) == (0, 3)
    with db.read() as session:
        rows = session.scalars(select(Verdict).order_by(Verdict.id)).all()
    assert [(r.study_id, r.finding, r.truth, r.source) for r in rows] == [
        (one.study_id, "any", 1, "import"),
        (two.study_id, "any", 0, "import"),
        (two.study_id, "subdural", 1, "import"),
    ]
    assert rows[0].note == "two lines\r\nof it"
    assert events(db)[-1][0] == "verdict.import"


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe", b"finding,truth\nany,1\n"])
def test_a_file_that_is_no_such_csv(tmp_path: Path, content: bytes) -> None:
    db = database_in(settings_in(tmp_path))
    file = tmp_path / "truth.csv"
    file.write_bytes(content)
    with pytest.raises(VerdictError):
        import_truth(db, file)
    with pytest.raises(VerdictError):
        import_truth(db, tmp_path / "nowhere.csv")


def test_performance_by_pipeline_scanner_and_month(site: Site) -> None:
    settings, db = site
    november, october = datetime(2026, 11, 3, tzinfo=UTC), datetime(2026, 10, 31, 23, 30, tzinfo=UTC)
    truths = [(0.9, 1), (0.8, 1), (0.7, 0), (0.2, 0), (0.3, 0), (0.1, 1), (0.6, None)]
    for number, (p, truth) in enumerate(truths):
        scored = scored_study(db, settings, probability=p, accession=f"N{number}", n=1, closed_at=november)
        if truth is not None:
            record_verdict(db, scored.study_uid, "head_ct", truth=1 - truth)
            record_verdict(db, scored.study_uid, "head_ct", truth=truth)
    scored_study(db, settings, probability=0.9, station="CT2", n=1, closed_at=november)
    scored_study(db, settings, probability=0.4, n=1, closed_at=october)
    with db.read() as session:
        rows = session.execute(text("SELECT * FROM verdict_performance WHERE finding = 'any'")).mappings().all()
    by_scanner_and_month = {(r["scanner"], r["month"]): r for r in rows}
    assert set(by_scanner_and_month) == {("CT1", "2026-11"), ("CT2", "2026-11"), ("CT1", "2026-10")}
    row = by_scanner_and_month["CT1", "2026-11"]
    assert (row["n"], row["positives"], row["n_truth"]) == (7, 4, 6)
    counts = [row[k] for k in ("true_positive", "false_positive", "true_negative", "false_negative")]
    assert counts == [2, 1, 2, 1]
    for name, k, n in (("sensitivity", 2, 3), ("specificity", 2, 3), ("ppv", 2, 3), ("positive_ratio", 4, 7)):
        assert row[name] == pytest.approx(k / n)
        interval = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert by_scanner_and_month["CT2", "2026-11"]["sensitivity"] is None
    assert by_scanner_and_month["CT2", "2026-11"]["sensitivity_low"] is None
    figures = families()
    with db.read() as session:
        OutcomeFigures().read(session, figures)
    samples = {(s.name, *s.labels.values()): s.value for f in figures.values() for s in f.samples}
    assert samples["firstread_sensitivity_ratio", "head_ct"] == pytest.approx(2 / 3)
    assert samples["firstread_judged_studies", "head_ct", "false_positive"] == 1
    assert samples["firstread_unacknowledged_age_seconds", "head_ct"] > 0


def test_deliveries_in_the_hands_of_a_person(site: Site) -> None:
    settings, db = site
    scored = scored_study(db, settings)
    with db.write() as session:
        for number, state in enumerate(("FAILED", "DELIVERED", "FAILED")):
            session.add(
                Delivery(
                    job_id=scored.job_id,
                    run=1,
                    kind="dicom",
                    destination=f"d{number}",
                    state=state,
                    attempts=9,
                    created_at=datetime.now(UTC),
                )
            )
    with db.read() as session:
        first, done, last = session.scalars(select(Delivery.id).order_by(Delivery.id)).all()
    row = retry_delivery(db, first, by="me")
    assert (row.state, row.attempts) == ("PENDING", 0)
    with pytest.raises(DeliveryError, match="DELIVERED"):
        retry_delivery(db, done)
    assert cancel_delivery(db, last).state == "CANCELLED"
    with pytest.raises(DeliveryError, match="no such"):
        cancel_delivery(db, 999)
    assert retry_failed(db) == 0
    assert [action for action, _ in events(db)] == ["delivery.retry", "delivery.cancel"]
    with db.read() as session:
        assert session.scalar(select(Flag.acknowledged_at)) is None
