"""Hosts 90 s apart share a database: none takes what another has in hand, and times are the database's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dicom_listener.intake.arrivals import Arrival, Ending, IncomingDelivery
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.studies.assembler import Assembler
from dicom_listener.studies.closing import close_due, reap_lost
from dicom_listener.studies.reconcile import alive_listeners
from firstread.clock import utcnow
from firstread.dicom.files import header_of
from firstread.metrics.server import serve_metrics
from firstread.metrics.state import StateCollector
from firstread.records import (
    LISTENER,
    Association,
    Database,
    Job,
    Process,
    Receipt,
    Revision,
    Transition,
    write_heartbeat,
)
from firstread.records import Delivery as DeliveryRow
from firstread.records.clock import now_of
from firstread.settings import Settings
from firstread.upkeep.service import problems
from firstread_cli.doctor.clocks import check_clock
from tests.builders.clocks import REAL, clock_off
from tests.builders.closed_revisions import job_of, put_probe
from tests.builders.listening import small_series
from tests.builders.probe_worker import ROW
from tests.builders.scoring import claimer_of
from tests.builders.servers import recorder
from tests.integration.firstread.test_metrics_endpoint import scrape
from worker.outputs.deliveries.lanes import work_one
from worker.outputs.deliveries.rows import new_delivery
from worker.outputs.destinations.file import WebhookDestination
from worker.pipelines import registry
from worker.process.process_row import ProcessRow
from worker.process.sweeper import Sweeper
from worker.scoring.leases import LeaseKeeper

OFF = pytest.mark.parametrize("off_s", [90.0, -90.0], ids=["ahead", "behind"])
MakeSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))


def near(at: datetime | None, seconds: float = 20.0) -> bool:
    return at is not None and abs((at - REAL()).total_seconds()) < seconds


def test_the_database_has_a_clock_of_its_own(db: Database) -> None:
    before = REAL()
    with clock_off(90), db.read() as session:
        database_time = now_of(session)
    assert before - timedelta(milliseconds=2) <= database_time <= REAL()
    assert near(db.now())


@OFF
def test_a_sweeper_with_another_clock_leaves_a_live_worker_its_job(
    db: Database, make_settings: MakeSettings, off_s: float
) -> None:
    settings = make_settings(database_url=db.url, lease_s=60, broker_url="redis://127.0.0.1:1/0")
    revision = put_probe(db, settings, "in hand")
    claim = claimer_of(db, settings, "w1").next()
    assert claim is not None
    with clock_off(off_s):
        Sweeper(db, settings).sweep()
    job = job_of(db, revision)
    assert job is not None and (job.state, job.lease_owner) == ("SCORING", "w1")


@OFF
def test_a_worker_with_another_clock_keeps_its_job(db: Database, make_settings: MakeSettings, off_s: float) -> None:
    settings = make_settings(database_url=db.url, lease_s=60, broker_url="redis://127.0.0.1:1/0")
    revision = put_probe(db, settings, "elsewhere")
    with clock_off(off_s):
        claim = claimer_of(db, settings, "far").next()
        assert claim is not None
        assert claim.seconds_since(claim.closed_at) < 20, "waiting is no matter of clocks"
        keeper = LeaseKeeper(db, "far", settings.lease_s)
        with keeper.hold(claim.job_id) as lease:
            keeper.renew()
            lease.check()
    job = job_of(db, revision)
    assert job is not None and near(job.progress_at) and near(job.started_at)
    assert job.lease_until is not None and near(job.lease_until - timedelta(seconds=60))
    Sweeper(db, settings).sweep()
    job = job_of(db, revision)
    assert job is not None and job.state == "SCORING"
    with db.read() as session:
        assert all(near(row.at) for row in session.scalars(select(Transition)))


def test_a_lease_that_ran_out_is_taken_whatever_the_sweeper_thinks(db: Database, make_settings: MakeSettings) -> None:
    settings = make_settings(database_url=db.url, lease_s=60, broker_url="redis://127.0.0.1:1/0")
    revision = put_probe(db, settings, "gone")
    claim = claimer_of(db, settings, "w1").next()
    assert claim is not None
    with db.write() as session:
        session.get_one(Job, claim.job_id).lease_until = now_of(session) - timedelta(seconds=1)
    with clock_off(-90):
        Sweeper(db, settings).sweep()
    job = job_of(db, revision)
    assert job is not None and (job.state, job.reason) == ("WAITING", "lease_expired")


def _listener(db: Database, name: str) -> Process:
    row = Process(
        id=name,
        kind=LISTENER,
        host=f"{name}.example",
        pid=1,
        started_at=db.now() - timedelta(hours=1),
        heartbeat_at=REAL(),
    )
    write_heartbeat(db, row)
    return row


@OFF
def test_listeners_with_other_clocks_live_beside_each_other(
    db: Database, make_settings: MakeSettings, off_s: float
) -> None:
    here = _listener(db, "here")
    with clock_off(off_s):
        there = _listener(db, "there")
        visit = IncomingDelivery(source="dicom", calling_ae="CT1", opened_at=utcnow())
        _bring(db, "there", visit)
        assert set(alive_listeners(db, there)) == {"here"}
        assert reap_lost(db) == 0
        assert close_due(db, make_settings(quiet_s=60)).closed == []
    assert set(alive_listeners(db, here)) == {"there"}
    assert reap_lost(db) == 0
    settings = make_settings(quiet_s=60, max_wait_s=80, grace_s=0)
    assert close_due(db, settings).closed == [], "neither quiet nor too long: it has just come"
    with clock_off(off_s):
        Assembler(db, "there", settings.max_wait_s).write([Ending(visit, "released", utcnow())])
    assert [closed.reason for closed in close_due(db, settings).closed] == ["released"]
    with db.read() as session:
        revision = session.scalars(select(Revision)).one()
        assert near(revision.opened_at) and near(revision.last_seen_at) and near(revision.closed_at)
        visits = session.scalars(select(Association)).one()
        assert near(visits.opened_at) and near(visits.ended_at)
        assert all(near(row.received_at) for row in session.scalars(select(Receipt)))


def _bring(db: Database, listener: str, visit: IncomingDelivery) -> None:
    note = IntakeNote("dicom", "10.0.0.9", utcnow().isoformat(), listener, calling_ae="CT1")
    arrivals = [
        Arrival(f"20260101/00/{n:032x}.dcm", header_of(ds, ds.file_meta), note, f"digest-{n}", 10, visit)
        for n, ds in enumerate(small_series(2))
    ]
    Assembler(db, listener, max_wait_s=1800.0).write(arrivals)


@OFF
def test_signs_of_life_are_young_for_everybody(db: Database, make_settings: MakeSettings, off_s: float) -> None:
    settings = make_settings(database_url=db.url, broker_url="redis://127.0.0.1:1/0")
    settings.spool_dir.mkdir(parents=True)
    with clock_off(off_s):
        row = ProcessRow(db, "w-far", "worker")
        row.start(state="ready")
        row.update(state="ready")
        _listener(db, "far")
    try:
        with db.read() as session:
            processes = session.scalars(select(Process)).all()
            assert {process.kind for process in processes} == {"listener", "worker"}
            worker = next(process for process in processes if process.kind == "worker")
            assert near(worker.started_at) and near(worker.heartbeat_at)
        for seconds in (0.0, off_s):
            with clock_off(seconds):
                families = {f.name: f for f in StateCollector(settings, db).collect()}
                assert problems(db, settings) == []
            ages = families["firstread_heartbeat_age_seconds"].samples
            assert ages and all(0 <= sample.value < 20 for sample in ages)
    finally:
        row.close()


@OFF
def test_a_delivery_in_hand_is_not_sent_by_another_host(
    db: Database, make_settings: MakeSettings, off_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "a shared secret")
    settings = make_settings(database_url=db.url)
    revision = put_probe(db, settings, "delivered")
    claim = claimer_of(db, settings, "w1").next()
    assert claim is not None and claim.revision_id == revision
    with recorder() as server:
        values: dict[str, Any] = {"secret": {"env": "HOOK_SECRET"}, "timeout_s": 1}
        hook = WebhookDestination(kind="webhook", name="duty", url=server.url, **values)
        with db.write() as session:
            row = new_delivery(session.get_one(Job, claim.job_id), "duty", "webhook")
            row.attempts = 1
            row.next_at = row.created_at + timedelta(seconds=30)  # somebody has it in hand
            session.add(row)
        with clock_off(off_s):
            assert not work_one(db, settings, hook)
        with db.write() as session:
            session.scalars(select(DeliveryRow)).one().next_at = REAL() - timedelta(seconds=1)
        with clock_off(off_s):
            assert work_one(db, settings, hook)
        assert len(server.requests) == 1


@OFF
def test_every_endpoint_and_the_doctor_report_the_difference(
    db: Database, make_settings: MakeSettings, off_s: float
) -> None:
    settings = make_settings(database_url=db.url, broker_url="redis://127.0.0.1:1/0")
    for state, clock in ((db, None), (None, db)):
        with clock_off(off_s):
            server = serve_metrics(settings, "deliver", state, port=0, clock=clock)
            assert server is not None
            try:
                text = scrape(server.port)
            finally:
                server.close()
        (line,) = [line for line in text.splitlines() if line.startswith("firstread_clock_skew_seconds ")]
        assert float(line.split()[1]) == pytest.approx(-off_s, abs=5)
    with clock_off(off_s):
        checks = {check.name: check for check in check_clock(settings)}
    assert checks["clock"].status == "warn" and ("ahead of" if off_s > 0 else "behind") in checks["clock"].detail
    assert {check.name: check.status for check in check_clock(settings)}["clock"] == "ok"
