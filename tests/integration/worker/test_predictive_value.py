"""A flag says how often such flags are right: by the card, and by what people have said of that model's flags here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import select

from firstread.actions.verdicts import record_verdict
from firstread.clock import utcnow
from firstread.records import Database, Flag, Job
from firstread.report.predictive_value import FEWEST_JUDGED, PredictiveValue, words_of
from firstread.settings import Settings
from tests.builders.closed_revisions import put_probe
from tests.builders.probe_worker import ROW
from tests.builders.scored_studies import scored_study
from tests.builders.scoring import claim_next
from worker.pipelines import registry
from worker.pipelines.base import Finding, Outcome
from worker.scoring.results import Report, commit_outcome


@pytest.fixture
def settings(make_settings: Callable[..., Settings], db: Database) -> Settings:
    return make_settings(database_url=db.url)


FLAGGED = Outcome(
    findings=[Finding("any", "bleed_net", "1.0", probability=0.9, threshold=0.5, flagged=True)],
    predictive_value=PredictiveValue("any", 0.3, 0.027),
)


def _committed(db: Database, settings: Settings, name: str, outcome: Outcome) -> Job:
    put_probe(db, settings, name)
    claim = claim_next(db, settings)
    assert claim is not None
    commit_outcome(
        db, settings, job_id=claim.job_id, owner="w1", report=Report(outcome=outcome), evidence_path="202611/x/key.png"
    )
    with db.read() as session:
        return session.get_one(Job, claim.job_id)


def test_the_sites_own_share_is_told_once_enough_flags_were_judged(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))
    for number in range(FEWEST_JUDGED):
        study = scored_study(db, settings, n=1, study_uid=f"1.2.3.{number}", mask=False)
        if number < FEWEST_JUDGED - 1:
            record_verdict(db, study.study_uid, "head_ct", truth=int(number == 0))
    before = _committed(db, settings, "before", FLAGGED)
    assert "few_flags_right" not in before.warnings and words_of("head_ct", before.statistics) == ""
    assert before.statistics["flags_right_judged"] == FEWEST_JUDGED - 1
    record_verdict(db, study.study_uid, "head_ct", truth=0)
    after = _committed(db, settings, "after", FLAGGED)
    assert "few_flags_right" in after.warnings
    assert f"Here 1 of {FEWEST_JUDGED} judged flags was right." in words_of("head_ct", after.statistics)
    with db.read() as session:
        flag = session.scalars(select(Flag).where(Flag.job_id == after.id)).one()
        assert "few_flags_right" in flag.warnings, "it stays a flag, and says so"


def test_what_does_not_flag_says_nothing(db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))
    low = PredictiveValue("any", 0.056, 0.027)
    plain = replace(FLAGGED, findings=[replace(FLAGGED.findings[0], flagged=False)], predictive_value=low)
    job = _committed(db, settings, "plain", plain)
    assert job.warnings == [] and job.statistics == {}
    flagged = _committed(db, settings, "flagged", replace(FLAGGED, predictive_value=low))
    assert flagged.warnings == ["few_flags_right"] and flagged.finished_at is not None
    assert flagged.finished_at <= utcnow() and words_of("head_ct", flagged.statistics).startswith("Where 2.7 %")
