"""The list of flags and their acknowledgement: all pipelines, heads first, and nothing acknowledged by the way."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select, text

from firstread.actions.verdicts import VerdictError, acknowledge
from firstread.clock import utcnow
from firstread.records import Database, Flag, Job, Revision
from firstread.records import Result as ResultRow
from firstread.settings import Settings
from firstread_cli.listings import flags
from tests.builders.closed_revisions import add_closed
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.site import settings_in
from worker.outputs.senders.mail import acknowledge_command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(flags, list(arguments), catch_exceptions=True)


def listed(*arguments: str) -> list[dict[str, Any]]:
    answer = run("--json", *arguments)
    assert answer.exit_code == 0, answer.output
    rows: list[dict[str, Any]] = json.loads(answer.output)
    return rows


def add_flag(db: Database, scored: Scored, pipeline: str, finding: str) -> None:
    """A flag of another pipeline on the same study."""
    with db.write() as session:
        session.add(
            Flag(
                study_id=scored.study_id,
                pipeline=pipeline,
                finding=finding,
                job_id=scored.job_id,
                probability=0.8,
                threshold=0.5,
                model_name="m",
                model_version="1",
                flagged_at=utcnow(),
                warnings=[],
            )
        )


def test_flags_of_all_pipelines_heads_first(site: tuple[Settings, Database]) -> None:
    settings, db = site
    now = utcnow()
    for pipeline, age_s in (("head_ct", 300), ("chest_xray", 200), ("dermoscopy", 100)):
        scored_study(db, settings, pipeline=pipeline, n=1, closed_at=now - timedelta(seconds=age_s))
    rows = listed()
    assert [(r["pipeline"], r["finding"]) for r in rows] == [
        ("head_ct", "any"),
        ("dermoscopy", "melanoma"),
        ("chest_xray", "pneumonia"),
    ]
    with db.read() as session:
        head = set(session.execute(text("SELECT * FROM hemorrhage_flag")).keys())
        assert session.execute(text("SELECT COUNT(*) FROM hemorrhage_flag")).scalar() == 1
    assert head | {"pipeline", "finding"} == set(rows[0])
    assert "chest_xray" in run().output
    acknowledge(db, rows[0]["study_instance_uid"], "somebody")
    assert [r["pipeline"] for r in listed("--open")] == ["dermoscopy", "chest_xray"]


def open_ones(db: Database) -> set[str]:
    with db.read() as session:
        return set(session.scalars(select(Flag.pipeline).where(Flag.acknowledged_at.is_(None))))


def test_acknowledging_takes_the_head_and_says_what_stays_open(site: tuple[Settings, Database]) -> None:
    settings, db = site
    scored = scored_study(db, settings)
    add_flag(db, scored, "chest_xray", "pneumonia")
    for _ in range(2):
        done = run("ack", scored.study_uid, "--by", "reader")
        assert done.exit_code == 0 and "head_ct any acknowledged by reader" in done.output
        assert f"still open: chest_xray; firstread flags ack {scored.study_uid} --pipeline chest_xray" in done.output
        assert open_ones(db) == {"chest_xray"}, "a second time changes nothing"
    assert run("ack", scored.study_uid, "--pipeline", "chest_xray").exit_code == 0
    assert open_ones(db) == set()


def test_the_only_open_flag_needs_no_name_and_two_do(site: tuple[Settings, Database]) -> None:
    settings, db = site
    scored = scored_study(db, settings, pipeline="chest_xray", n=1)
    add_flag(db, scored, "dermoscopy", "melanoma")
    refused = run("ack", scored.study_uid)
    assert isinstance(refused.exception, VerdictError)
    assert "--pipeline chest_xray or dermoscopy" in str(refused.exception)
    assert open_ones(db) == {"chest_xray", "dermoscopy"}
    with pytest.raises(VerdictError, match="no flag of head_ct; flagged: chest_xray, dermoscopy"):
        acknowledge(db, scored.study_uid, "reader", "head_ct")
    acknowledge(db, scored.study_uid, "reader", "dermoscopy")
    assert run("ack", scored.study_uid).exit_code == 0
    assert open_ones(db) == set()


def test_what_mails_say_is_what_acknowledges() -> None:
    assert acknowledge_command("1.2", "head_ct") == "firstread flags ack 1.2"
    assert acknowledge_command("1.2", "chest_xray") == "firstread flags ack 1.2 --pipeline chest_xray"


def test_a_later_revision_does_not_change_how_long_a_flag_took(db: Database, tmp_path: Path) -> None:
    """The newest revision's last image may come after the flag was raised: that is no latency."""
    settings = settings_in(tmp_path / "home")
    scored = scored_study(db, settings)
    with db.write() as session:
        first = session.get_one(Job, scored.job_id)
        before = session.get_one(Revision, first.revision_id)
        later = before.closed_at + timedelta(seconds=83) if before.closed_at else utcnow()
        revision = add_closed(session, scored.study_id, later, number=2)
        job = Job(revision_id=revision.id, pipeline="head_ct", state="DONE", run=1, created_at=later, finished_at=later)
        session.add(job)
        session.flush()
        session.add(
            ResultRow(
                job_id=job.id,
                run=1,
                model_name="m",
                model_version="1",
                role="active",
                finding="any",
                probability=0.9,
                threshold=0.5,
                flagged=True,
                created_at=later,
            )
        )
        session.get_one(Flag, scored.flag_id).job_id = job.id
        seen = before.last_seen_at
    for view in ("hemorrhage_flag", "study_flag"):
        with db.read() as session:
            row = session.execute(text(f"SELECT * FROM {view}")).mappings().one()
        assert row["revision"] == 2
        assert str(row["received_at"])[:19] == str(seen)[:19]
        assert str(row["received_at"])[:19] <= str(row["flagged_at"])[:19]
