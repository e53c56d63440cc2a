"""The doctor's self-test: it goes the whole way, sends no message and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from firstread.actions.verdicts import record_verdict
from firstread.clock import utcnow
from firstread.export.studies import export_studies
from firstread.metrics.outcomes import OutcomeFigures, families
from firstread.pipelines import HEAD_CT
from firstread.records import Base, Database, Delivery, Flag, Job, SelfTest, Study, fold_tallies
from firstread.records.studies import UnknownStudy
from firstread.settings import Settings
from firstread.upkeep import self_tests
from firstread.upkeep.drift import Baseline, _rows
from firstread_cli.doctor import phantom_study
from tests.builders import probe_pipeline
from tests.builders.listening import QUICK, broker_in, listening
from tests.builders.probe_pipeline import ProbeModel
from tests.builders.probe_worker import probe_card
from tests.builders.scored_studies import scored_study
from tests.builders.scoring import scorer_of
from tests.builders.site import database_in, settings_in
from worker.engine.serving import Serving
from worker.metrics import FLAGS, JOBS
from worker.outputs.deliveries.escalation import escalate_flags
from worker.outputs.destinations.file import read_file
from worker.pipelines import registry
from worker.pipelines.base import Served
from worker.scoring.scorer import Scorer

TELL_ALL = """
[[destination]]
name = "hook"
kind = "webhook"
url = "http://127.0.0.1:9/"
secret = { env = "HOOK" }
[[destination]]
name = "duty"
kind = "webhook"
url = "http://127.0.0.1:9/"
secret = { env = "HOOK" }
[[escalation]]
name = "night"
destinations = ["duty"]
"""
ROW = registry.PipelineRow(HEAD_CT, "tests.builders.probe_pipeline")


def everything(db: Database) -> dict[str, int]:
    """Rows of each table that has any, running processes apart; of the tally one a key that is not 0."""
    fold_tallies(db, above=0)
    with db.read() as session:
        counts = {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }
    return {name: n for name, n in counts.items() if n and name not in {"listener", "process"}}


def files_below(home: Path) -> list[str]:
    folders = ("spool", "evidence", "objects", "refused", "inbox")
    return [str(p.relative_to(home)) for name in folders for p in (home / name).rglob("*") if p.is_file()]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A listener, and a worker thread whose head-CT pipeline flags whatever comes."""
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))
    monkeypatch.setattr(probe_pipeline, "behaviour", lambda study: "flag")
    home = tmp_path / "home"
    with broker_in(tmp_path / "broker") as url:
        settings = settings_in(home, broker_url=url, dicom_port=0, metrics_port=0, **QUICK)
        with listening(settings) as listener:
            (home / "destinations.toml").write_text(TELL_ALL)
            db, stop = Database(settings.database_url), threading.Event()
            serving = Serving()
            serving.add(Served(probe_card().model_copy(update={"pipeline": "head_ct"})), ProbeModel())
            with scorer_of(db, settings, serving, ["head_ct"]) as scorer:
                thread = threading.Thread(target=_answer, args=(scorer, stop))
                thread.start()
                yield settings.model_copy(update={"dicom_port": listener.port})
                stop.set()
                thread.join(20)
            db.dispose()


def _answer(scorer: Scorer, stop: threading.Event) -> None:
    while not stop.wait(0.1):
        scorer.answer()


def test_the_doctor_sends_no_message_and_leaves_nothing(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(site.database_url)
    before, files = everything(db), files_below(site.home)
    flags, jobs = FLAGS.labels("head_ct", "probe/1")._value.get(), JOBS.labels("head_ct", "DONE")._value.get()
    seen: dict[str, int] = {}

    def while_it_is_there(db: Database, settings: Settings, uid: str) -> bool:
        """What can be seen of it after it was scored and before it is removed."""
        with db.read() as session:
            job = session.scalars(select(Job)).one()
            assert (job.state, job.run, job.evidence_path is not None) == ("DONE", 1, True)
            for view in (
                "study_result",
                "study_result_history",
                "slice_score",
                "slice_score_history",
                "next_step",
                "received_instance",
                "hemorrhage_flag",
                "hemorrhage_flag_history",
                "delivery_status",
                "verdict_performance",
            ):
                seen[view] = session.execute(text(f"SELECT COUNT(*) FROM {view}")).scalar() or 0
            seen["flag"] = len(session.scalars(select(Flag)).all())
        seen["escalation"] = escalate_flags(db, read_file(settings))
        with db.read() as session:
            seen["delivery"] = len(session.scalars(select(Delivery)).all())
        return self_tests.remove(db, settings, uid)

    monkeypatch.setattr(phantom_study, "remove", while_it_is_there)
    checks = list(phantom_study.check_study(site))
    assert [(c.name, c.status) for c in checks] == [("study", "ok")], checks
    assert "scored 0.900" in checks[0].detail
    assert seen and not any(seen.values()), seen
    assert everything(db) == before
    assert files_below(site.home) == files
    assert FLAGS.labels("head_ct", "probe/1")._value.get() == flags
    assert JOBS.labels("head_ct", "DONE")._value.get() == jobs
    db.dispose()


def test_an_allow_list_keeps_the_doctor_out_of_nothing(site: Settings) -> None:
    allowing = site.model_copy(update={"allowed_calling_ae": ("CT1",)})
    assert [c.status for c in phantom_study.check_study(allowing)] == ["ok"]


def test_nothing_counts_or_hands_on_a_phantom(tmp_path: Path, database_url: str) -> None:
    settings = settings_in(tmp_path / "home", database_url=database_url)
    db = database_in(settings)
    uid = self_tests.register(db)
    scored_study(db, settings, study_uid=uid)
    real = scored_study(db, settings, accession="A-2")
    with db.read() as session:
        assert session.execute(text("SELECT DISTINCT study_instance_uid FROM study_result")).scalars().all() == [
            real.study_uid
        ]
        assert session.execute(text("SELECT n FROM verdict_performance WHERE finding = 'any'")).scalars().all() == [1]
        baseline = Baseline("head_ct", "bleed_net", "1.0", {}, None)
        since = utcnow() - timedelta(days=3650)
        assert len(_rows(session, baseline, since, utcnow() + timedelta(days=365))) == 1
        OutcomeFigures().read(session, families())
    with pytest.raises(UnknownStudy, match="no such study"):
        record_verdict(db, uid, "head_ct", agree=True)
    assert export_studies(db, settings, tmp_path / "out", judged_only=False).studies == 1
    db.dispose()


def test_leftovers_go_when_nobody_waits_for_them_and_no_process_has_them(tmp_path: Path, database_url: str) -> None:
    settings = settings_in(tmp_path / "home", database_url=database_url)
    db = database_in(settings)
    real = scored_study(db, settings, accession="A-2")
    uid = self_tests.register(db)
    phantom = scored_study(db, settings, study_uid=uid)
    assert self_tests.remove_leftovers(db, settings) == 0, "the doctor may still wait for it"
    with db.write() as session:
        session.execute(update(SelfTest).values(started_at=utcnow() - timedelta(seconds=self_tests.LEFTOVER_S + 1)))
        session.execute(update(Job).where(Job.id == phantom.job_id).values(state="SCORING"))
    assert self_tests.remove_leftovers(db, settings) == 0, "a worker has it in hand"
    with db.write() as session:
        session.execute(update(Job).where(Job.id == phantom.job_id).values(state="DONE"))
    assert self_tests.remove_leftovers(db, settings) == 1
    with db.read() as session:
        assert session.scalars(select(Study.study_instance_uid)).all() == [real.study_uid]
        assert session.scalars(select(Flag.study_id)).all() == [real.study_id]
        assert session.scalar(select(func.count()).select_from(SelfTest)) == 0
    assert len(list(settings.spool_dir.rglob("*.dcm"))) == 4
    assert len(list(settings.evidence_dir.rglob("*.png"))) == 1
    db.dispose()
