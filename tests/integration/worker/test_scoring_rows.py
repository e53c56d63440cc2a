"""Claims, results, flags, leases, sweeping and retry, on both database engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select, text, update

from firstread.actions.retry import end_waiting, retry_study
from firstread.clock import utcnow
from firstread.dicom.uids import stable_uid
from firstread.records import (
    Database,
    Flag,
    Instance,
    Job,
    Receipt,
    Result,
    Revision,
    RevisionInstance,
    SliceScoreRow,
    Study,
    Transition,
)
from firstread.settings import Settings
from firstread.storage.spool import Spool
from tests.builders.closed_revisions import job_of, put_probe
from tests.builders.probe_worker import PROBE, ROW, probe_serving
from tests.builders.scoring import claim_next, claimer_of, scorer_of
from worker.engine.serving import Refused, mark_waiting
from worker.errors import LeaseLost, NonFiniteScore
from worker.pipelines import registry
from worker.pipelines.base import Evidence, Finding, Outcome, SliceScore
from worker.process.sweeper import EndedProcess, Sweeper, find_due, give_back
from worker.scoring.leases import LeaseKeeper
from worker.scoring.results import Report, commit_failure, commit_outcome
from worker.scoring.scorer import Scorer


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))


@pytest.fixture
def settings(make_settings: Callable[..., Settings], db: Database) -> Settings:
    return make_settings(database_url=db.url, max_attempts=2)


@pytest.fixture
def scorer(db: Database, settings: Settings) -> Iterator[Scorer]:
    with scorer_of(db, settings, probe_serving()) as running:
        yield running


def outcome(p: float = 0.9, flagged: bool = True, version: str = "1", keys: tuple[int, ...] = (1,)) -> Outcome:
    return Outcome(
        findings=[
            Finding("any", "m", version, probability=p, threshold=0.5, flagged=flagged),
            Finding("any", "m", "shadow", probability=0.99, threshold=0.5, flagged=True, role="shadow"),
            Finding("bleed_volume", "m", version, value=4.5, unit="mL"),
        ],
        slice_scores=[SliceScore(key, 0, 1, "any", p, "m", version) for key in keys],
        warnings=("low_evidence",),
        evidence=Evidence(key_instance=keys[0]),
        SeriesInstanceUID="1.2.3",
    )


def commit(db: Database, settings: Settings, job_id: int, what: Outcome | None, owner: str = "w1", **kw: Any) -> None:
    if what is None:
        kw["reasons"] = ("not_a_head",)
    report = Report(outcome=what, **kw)
    commit_outcome(db, settings, job_id=job_id, owner=owner, report=report, evidence_path="202611/x/key.png")


def test_most_urgent_first_then_first_closed(db: Database, settings: Settings) -> None:
    old = utcnow() - timedelta(minutes=5)
    late = put_probe(db, settings, "late", priority=5)
    early = put_probe(db, settings, "early", priority=5, closed_at=old)
    urgent = put_probe(db, settings, "urgent", priority=1)
    by_hand = put_probe(db, settings, "by hand", priority=9)
    with db.write() as session:
        study = session.get_one(Revision, by_hand).study_id
        session.execute(update(Study).where(Study.id == study).values(priority=0))
    source = claimer_of(db, settings)
    order = []
    while (claim := source.next()) is not None:
        order.append(claim.revision_id)
    assert order == [by_hand, urgent, early, late]


def test_claims_of_many_threads_never_meet(db: Database, settings: Settings) -> None:
    revisions = [put_probe(db, settings, f"s{n}") for n in range(12)]
    taken: list[int] = []

    def work(owner: str) -> None:
        source = claimer_of(db, settings, owner)
        while (claim := source.next()) is not None:
            taken.append(claim.revision_id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(revisions)
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 12
        assert session.scalars(select(Job.attempts).distinct()).all() == [1]


def test_study_that_nobody_wants_says_so(db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    other = registry.PipelineRow(replace(PROBE, modalities=frozenset({"MR"})), ROW.module)
    monkeypatch.setattr(registry, "REGISTRY", (other,))
    plain = put_probe(db, settings, "plain")
    asked = put_probe(db, settings, "asked", forced_pipeline="probe")
    unknown = put_probe(db, settings, "unknown", forced_pipeline="palmistry")
    claim = claimer_of(db, settings).next()
    assert claim is not None and claim.revision_id == asked and claim.forced
    assert claimer_of(db, settings).next() is None
    with db.read() as session:
        reasons = dict(session.execute(select(Revision.id, Revision.reason)).all())
        state = session.execute(
            text("SELECT state, reason FROM study_result WHERE study_instance_uid = :uid"),
            {"uid": stable_uid("probe", "plain")},
        ).one()
    assert reasons == {plain: "no_pipeline", asked: None, unknown: "unknown_pipeline"}
    assert tuple(state) == ("REJECTED", "no_pipeline")


def test_unreadable_study_is_given_up_with_a_reason(db: Database, settings: Settings) -> None:
    revision = put_probe(db, settings, "lost")
    spool = Spool(settings.spool_dir)
    for key in list(spool.keys()):
        spool.delete(key)
    source = claimer_of(db, settings)
    assert source.next() is None
    source.router._blocked_until.clear()
    assert source.next() is None
    with db.read() as session:
        assert session.get_one(Revision, revision).reason == "routing_failed"


def test_everything_of_a_run_is_committed_together(db: Database, settings: Settings, scorer: Scorer) -> None:
    revision = put_probe(db, settings, "one", "flag", n=3)
    assert scorer.answer() == 1
    job = job_of(db, revision)
    assert job is not None
    assert (job.state, job.run, job.attempts, job.lease_owner) == ("DONE", 1, 1, None)
    assert job.warnings == ["probe_warning", "low_evidence"]
    assert job.models == ["probe/1"]
    assert {"wait", "read", "select", "gate", "preprocess", "infer", "interpret", "evidence"} <= set(job.stage_seconds)
    assert job.series_notes[0]["chosen"] is True
    assert job.evidence_path is not None and (settings.evidence_dir / job.evidence_path).is_file()
    with db.read() as session:
        result = session.execute(text("SELECT finding, probability, value, flagged FROM study_result ORDER BY 1")).all()
        assert [tuple(r) for r in result] == [("any", 0.9, None, True), ("bleed_volume", None, 12.5, False)]
        for view in ("study_result", "study_result_history"):
            assert session.scalars(text(f"SELECT DISTINCT engine FROM {view}")).all() == ["tensorflow"]
        assert session.scalar(text("SELECT COUNT(*) FROM slice_score")) == 3
        moves = session.scalars(select(Transition.to_state).where(Transition.subject == "job")).all()
        assert list(moves) == ["WAITING", "SCORING", "DONE"]
        flag = session.scalars(select(Flag)).one()
        assert (flag.probability, flag.volume_ml, flag.evidence_path) == (0.9, 12.5, job.evidence_path)
        assert flag.key_sop_instance_uid == stable_uid(stable_uid("probe", "one"), "image", 1)


def test_only_done_studies_have_a_next_step(db: Database, settings: Settings) -> None:
    uids = {name: stable_uid("probe", name) for name in ("told", "silent", "refused")}
    for name in uids:
        put_probe(db, settings, name)
        what = None if name == "refused" else outcome()
        if what is not None and name == "told":
            what.next_step = "Skin clinic, this week."
        commit(db, settings, claim_next(db, settings).job_id, what, **({"detail": "no head"} if what is None else {}))
    with db.read() as session:
        rows = session.execute(text("SELECT study_instance_uid, pipeline, next_step FROM next_step")).all()
    assert [tuple(row) for row in rows] == [(uids["told"], "probe", "Skin clinic, this week.")]


@pytest.mark.parametrize(("behaviour", "reason"), [("error", "value_error"), ("nan", "non_finite_score")])
def test_failing_study_is_tried_again_and_then_failed(
    db: Database, settings: Settings, scorer: Scorer, behaviour: str, reason: str
) -> None:
    revision = put_probe(db, settings, "bad", behaviour)
    assert scorer.answer() == 2
    job = job_of(db, revision)
    assert job is not None
    assert (job.state, job.reason, job.attempts, job.run) == ("FAILED", reason, 2, 0)
    assert "must not be logged" not in (job.error or "")
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Result)) == 0
    assert list(settings.evidence_dir.glob("*/*")) == []


def test_rejected_study_has_its_reasons(db: Database, settings: Settings, scorer: Scorer) -> None:
    revision = put_probe(db, settings, "odd", "reject")
    scorer.answer()
    job = job_of(db, revision)
    assert job is not None
    assert (job.state, job.reason, job.run) == ("REJECTED", "not_wanted", 1)


def test_pipeline_without_a_package_costs_no_attempt(db: Database, settings: Settings, scorer: Scorer) -> None:
    revision = put_probe(db, settings, "gone", "gone")

    def serving() -> tuple[str, ...]:
        job = job_of(db, revision)
        return () if job is not None and job.attempts else ("probe",)

    scorer._claimer._serving = serving
    first = scorer._claimer.next()
    assert first is not None
    state = commit_failure(
        db, job_id=first.job_id, owner="w1", reason="no_serving_package", error="", settings=settings, refund=True
    )
    job = job_of(db, revision)
    assert job is not None
    assert (state, job.state, job.attempts, job.reason) == ("WAITING", "WAITING", 0, "no_serving_package")
    assert find_due(db, utcnow()) == ([], 0)
    assert mark_waiting(db, ["probe"]) == (0, 1)
    assert [row[0] for row in find_due(db, utcnow())[0]] == [revision]
    assert mark_waiting(db, []) == (1, 0)


def test_lost_lease_writes_nothing(db: Database, settings: Settings) -> None:
    put_probe(db, settings, "s")
    mine = claim_next(db, settings, "w1")
    assert give_back(db, EndedProcess("w1", "worker_died"), actor="test", settings=settings) == 1
    other = claim_next(db, settings, "w2")
    assert other.job_id == mine.job_id and other.alone
    with pytest.raises(LeaseLost):
        commit(db, settings, mine.job_id, outcome(), owner="w1")
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Result)) == 0
    commit(db, settings, other.job_id, outcome(), owner="w2")
    with pytest.raises(LeaseLost):
        commit(db, settings, other.job_id, outcome(), owner="w2")


def test_keeper_renews_what_is_ours_and_notes_what_is_not(db: Database, settings: Settings) -> None:
    put_probe(db, settings, "s")
    mine = claim_next(db, settings, "w1")
    keeper = LeaseKeeper(db, "w1", 60.0)
    with db.write() as session:
        session.execute(update(Job).values(lease_until=utcnow()))
    with keeper.hold(mine.job_id) as lease:
        keeper.renew()
        with db.read() as session:
            until = session.scalar(select(Job.lease_until))
            assert until is not None and until > utcnow() + timedelta(seconds=50)
        lease.check()
        give_back(db, EndedProcess("w1", "worker_died"), actor="test", settings=settings)
        keeper.renew()
        with pytest.raises(LeaseLost):
            lease.touch()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.5])
def test_impossible_numbers_are_refused_before_anything_is_written(
    db: Database, settings: Settings, bad: float
) -> None:
    put_probe(db, settings, "s")
    mine = claim_next(db, settings)
    with pytest.raises(NonFiniteScore):
        commit(db, settings, mine.job_id, outcome(p=bad))
    with db.read() as session:
        assert session.scalars(select(Job.state)).all() == ["SCORING"]


def test_flags_only_ever_gain(db: Database, settings: Settings) -> None:
    first = put_probe(db, settings, "s")
    commit(db, settings, claim_next(db, settings).job_id, outcome(p=0.7))
    with db.write() as session:
        session.execute(update(Flag).values(acknowledged_at=utcnow(), acknowledged_by="reader"))
        flagged_at = session.scalars(select(Flag.flagged_at)).one()
    put_probe(db, settings, "s", n=3)
    commit(db, settings, claim_next(db, settings).job_id, outcome(p=0.1, flagged=False))
    third = put_probe(db, settings, "s", n=4)
    commit(db, settings, claim_next(db, settings).job_id, outcome(p=0.8))
    put_probe(db, settings, "s", n=5)
    commit(db, settings, claim_next(db, settings).job_id, None)
    with db.read() as session:
        flag = session.scalars(select(Flag)).one()
        assert (flag.probability, flag.acknowledged_by, flag.flagged_at) == (0.8, "reader", flagged_at)
        assert session.get_one(Job, flag.job_id).revision_id == third
        result = session.execute(text("SELECT state, revision, flagged FROM study_result WHERE finding = 'any'")).one()
        assert tuple(result) == ("DONE", 3, True)
    uid = stable_uid("probe", "s")
    with db.write() as session:
        revision = session.get_one(Revision, first)
        job = session.scalars(select(Job).where(Job.revision_id == first)).one()
        job.state = "SCORING"
        job.lease_owner = "w1"
    commit(db, settings, job.id, outcome(p=0.95))
    with db.read() as session:
        flag = session.scalars(select(Flag)).one()
        assert flag.probability == 0.8, f"an earlier revision of {uid} ({revision.number}) must not replace a later one"


def test_retry_hides_nothing_until_it_commits(db: Database, settings: Settings) -> None:
    revision = put_probe(db, settings, "s")
    commit(db, settings, claim_next(db, settings).job_id, outcome(p=0.7))
    uid = stable_uid("probe", "s")
    settings = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    assert retry_study(db, settings, uid, None, "me") == ["probe"]
    assert retry_study(db, settings, uid, None, "me") == []
    assert retry_study(db, settings, uid, "other", "me") == []
    with db.read() as session:
        assert session.scalar(text("SELECT probability FROM study_result WHERE finding = 'any'")) == 0.7
    again = claim_next(db, settings)
    assert (again.revision_id, again.attempt, again.alone) == (revision, 1, False)
    commit(db, settings, again.job_id, outcome(p=0.6, version="2"))
    with db.read() as session:
        assert session.scalars(text("SELECT probability FROM study_result WHERE finding = 'any'")).all() == [0.6]
        assert session.scalar(text("SELECT COUNT(*) FROM slice_score")) == 1
        assert session.scalar(select(func.count()).select_from(SliceScoreRow)) == 2
    assert end_waiting(db, uid, None, "me") == []


def test_retry_remembers_what_a_person_asked_for(db: Database, settings: Settings) -> None:
    put_probe(db, settings, "s")
    commit(db, settings, claim_next(db, settings).job_id, None)
    with db.write() as session:
        session.execute(update(Instance).values(pipeline_hint="probe"))
    settings = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    assert retry_study(db, settings, stable_uid("probe", "s"), None, "me") == ["probe"]
    assert claim_next(db, settings).forced


def test_an_order_for_a_sender_counts_for_what_it_sent(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (replace(ROW, described=replace(PROBE, modalities=frozenset({"MR"}))),))
    settings = settings.model_copy(update={"force_pipelines_by_calling_ae": {"CT2": ("probe",)}})
    put_probe(db, settings, "mine")
    asked = put_probe(db, settings, "asked")
    with db.write() as session:
        for instance in session.scalars(
            select(Instance).join(RevisionInstance).where(RevisionInstance.revision_id == asked)
        ):
            uid = session.get_one(Study, instance.study_id).study_instance_uid
            session.add(
                Receipt(
                    spool_key=instance.spool_key,
                    instance_id=instance.id,
                    study_instance_uid=uid,
                    series_instance_uid="1",
                    sop_instance_uid="1",
                    sop_class_uid="1",
                    transfer_syntax_uid="1",
                    size_bytes=1,
                    outcome="stored",
                    source="dicom",
                    calling_ae="CT2",
                    received_at=utcnow(),
                )
            )
    source = claimer_of(db, settings)
    claim = source.next()
    assert claim is not None and claim.revision_id == asked and claim.forced
    assert source.next() is None


def test_waiting_can_be_ended_by_hand(db: Database, settings: Settings) -> None:
    put_probe(db, settings, "s")
    assert claimer_of(db, settings, pipelines=()).next() is None
    assert end_waiting(db, stable_uid("probe", "s"), None, "me") == ["probe"]
    with db.read() as session:
        assert session.execute(text("SELECT state, reason FROM study_result")).one() == ("FAILED", "ended_by_hand")


def test_expired_lease_goes_back_and_fails_when_attempts_are_used_up(db: Database, settings: Settings) -> None:
    revision = put_probe(db, settings, "s")
    settings = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    sweeper = Sweeper(db, settings)
    for expected in ("WAITING", "FAILED"):
        claim_next(db, settings)
        with db.write() as session:
            session.execute(update(Job).values(lease_until=utcnow() - timedelta(seconds=1)))
        sweeper.sweep()
        job = job_of(db, revision)
        assert job is not None and (job.state, job.reason) == (expected, "lease_expired")
    sweeper.close()


def test_pipeline_serves_while_no_task_of_it_is_orphaned() -> None:
    serving = probe_serving()
    rows = (ROW,)
    assert serving.pipelines(rows) == {"probe"}
    serving.refuse(Refused("other/2", "probe", "", "self_test"))
    assert serving.pipelines(rows) == {"probe"}
    serving.refuse(Refused("other/3", "probe", "second_task", "checksum"))
    assert serving.pipelines(rows) == frozenset()
    assert np.isfinite(serving.models["probe/1"].predict(np.ones((1, 2, 2, 1)))["p"]).all()
