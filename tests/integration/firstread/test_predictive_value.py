"""Of a flag that is seldom right every message and listing says how often, in the same words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from firstread.codes import IMAGE_CODES
from firstread.records import Database, Delivery, Job
from firstread.report.page import write_report
from firstread.report.predictive_value import PredictiveValue
from firstread.settings import Settings
from firstread_cli.listings import flags
from firstread_cli.study import study
from tests.builders.result_objects import objects_of, read, validate
from tests.builders.scored_studies import Scored, scored_study
from worker.outputs.messages import as_json, message
from worker.outputs.objects.source import gather
from worker.outputs.senders.mail import mail_text
from worker.pipelines.reasons import Caution

Site = tuple[Settings, Database]
VALUE = PredictiveValue("any", 0.056, 0.027, 41, 3)


def _seldom_right(site: Site, value: PredictiveValue = VALUE) -> Scored:
    settings, db = site
    scored = scored_study(db, settings)
    with db.write() as session:
        job = session.get_one(Job, scored.job_id)
        job.statistics = {**job.statistics, **value.numbers()}
        job.warnings = [*job.warnings, Caution.FEW_FLAGS_RIGHT]
        session.add(
            Delivery(job_id=job.id, run=1, kind="email", destination="d", state="PENDING", created_at=job.created_at)
        )
    return scored


def _comments(site: Site, scored: Scored) -> list[str]:
    content = read(site, objects_of(site, scored.job_id)["sr"]).ContentSequence
    return [str(item.TextValue) for item in content if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"]


def test_the_report_says_it_before_any_number(site: Site) -> None:
    scored = _seldom_right(site)
    row = objects_of(site, scored.job_id)["sr"]
    comments = _comments(site, scored)
    assert comments[1] == VALUE.words and comments[2].startswith("Not for diagnosis.")
    assert validate(site[0].objects_dir / str(row.path)) == []


def test_other_words_make_another_object(site: Site) -> None:
    settings, db = site
    scored = _seldom_right(site)
    with db.read() as session:
        first = gather(session, settings, session.get_one(Job, scored.job_id)).digest
    with db.write() as session:
        job = session.get_one(Job, scored.job_id)
        job.statistics = {**job.statistics, **VALUE.judged_here(60, 4).numbers()}
    with db.read() as session:
        digest = gather(session, settings, session.get_one(Job, scored.job_id)).digest
    assert digest != first


def test_mail_and_webhook_say_it(site: Site) -> None:
    _, db = site
    _seldom_right(site)
    with db.read() as session:
        content = message(session, session.scalars(select(Delivery)).one(), patient_data=False)
    told = json.loads(as_json(content))["predictive_value"]
    assert told == {
        "finding": "any",
        "by_card": 0.056,
        "prevalence": 0.027,
        "judged": 41,
        "right": 3,
        "words": VALUE.words,
    }
    lines = mail_text(content).splitlines()
    assert lines.count(VALUE.words) == 1 and IMAGE_CODES[Caution.FEW_FLAGS_RIGHT] not in lines
    older = mail_text(content | {"predictive_value": None}).splitlines()
    assert IMAGE_CODES[Caution.FEW_FLAGS_RIGHT] in older, "a job of an earlier version has the code alone"


def test_page_and_listings_say_it(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, db = site
    scored = _seldom_right(site)
    write_report(db, settings, scored.study_uid, tmp_path / "page.html")
    assert VALUE.words in (tmp_path / "page.html").read_text(encoding="utf-8")
    monkeypatch.setenv("FIRSTREAD_HOME", str(settings.home))
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", settings.database_url)
    listed = CliRunner().invoke(flags, [])
    assert listed.exit_code == 0 and VALUE.words in listed.output.splitlines(), listed.output
    shown = CliRunner().invoke(study, [scored.study_uid])
    assert VALUE.words in shown.output
    told = json.loads(CliRunner().invoke(study, [scored.study_uid, "--json"]).output)
    assert told["revisions"][0]["jobs"][0]["predictive_value"] == VALUE.words


def test_a_flag_that_is_often_right_says_nothing(site: Site) -> None:
    scored = _seldom_right(site, PredictiveValue("any", 0.4, 0.027, 41, 30))
    comments = _comments(site, scored)
    assert len(comments) == 2 and not any("flagged head CTs" in words for words in comments)
