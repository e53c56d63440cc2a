"""Studies of long ago: behind fresh ones in claim and doorbell, reported in one summary, never escalated."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from dicom_listener.intake.arrivals import Arrival, Ending, IncomingDelivery
from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.studies.assembler import Assembler
from dicom_listener.studies.closing import close_due
from firstread.actions.retry import retry_study
from firstread.clock import utcnow
from firstread.dicom.files import header_of
from firstread.dicom.uids import stable_uid
from firstread.metrics.outcomes import OutcomeFigures, families
from firstread.records import (
    LISTENER,
    Database,
    Delivery,
    EscalationStep,
    Flag,
    Job,
    Process,
    Revision,
    Study,
    write_heartbeat,
)
from firstread.settings import Settings
from firstread_cli.doctor.clocks import check_senders
from tests.builders.closed_revisions import add_closed, put_probe
from tests.builders.listening import small_series
from tests.builders.probe_worker import ROW
from tests.builders.scoring import claimer_of
from tests.builders.servers import Recorder, recorder, smtp_sink
from worker.outputs.deliveries.escalation import escalate_flags
from worker.outputs.deliveries.lanes import work_one
from worker.outputs.destinations.file import read_file
from worker.pipelines import registry
from worker.pipelines.base import Finding, Outcome
from worker.process.sweeper import find_due
from worker.scoring.claims import JobClaim
from worker.scoring.results import Report, commit_outcome

LONG_AGO = datetime(2019, 3, 4, 10, 0, tzinfo=UTC)
BACKLOG = 300
SCORED = 40
"""So many of them: the disk makes each one slow."""


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))
    monkeypatch.setenv("HOOK_SECRET", "a shared secret")


def site(make_settings: Callable[..., Settings], db: Database, tmp_path: Path, toml: str = "") -> Settings:
    if not toml:
        return make_settings(database_url=db.url)
    file = tmp_path / "destinations.toml"
    file.write_text(toml, encoding="utf-8")
    return make_settings(database_url=db.url, destinations=file)


def hook(url: str, name: str) -> str:
    return (
        f'[[destination]]\nname = "{name}"\nkind = "webhook"\nurl = "{url}/{name}"\n'
        f'secret = {{ env = "HOOK_SECRET" }}\ntimeout_s = 5\npatient_data = true\nwhen = {{ flagged = true }}\n'
    )


def put_backlog(db: Database, count: int = BACKLOG) -> None:
    """Old heads that were routed and wait, as rows."""
    with db.write() as session:
        for n in range(count):
            at = utcnow() - timedelta(minutes=30, seconds=-n)
            study = Study(
                study_instance_uid=stable_uid("old", n),
                patient_id=f"P{n}",
                modality="CT",
                source="dicom",
                calling_ae="ARCHIVE",
                received_at=at,
            )
            session.add(study)
            session.flush()
            revision = add_closed(
                session, study.id, at, priority=3, routed_at=at, published_at=at, made_at=LONG_AGO, old=True
            )
            session.add(Job(revision_id=revision.id, pipeline="probe", state="WAITING", created_at=at))


def commit(db: Database, settings: Settings, claim: JobClaim, flagged: bool = True) -> None:
    findings = [Finding("any", "m", "1", probability=0.9, threshold=0.5, flagged=flagged)]
    report = Report(outcome=Outcome(findings))
    commit_outcome(db, settings, job_id=claim.job_id, owner="w1", report=report, evidence_path=None)


def score_all(db: Database, settings: Settings, limit: int = BACKLOG) -> list[JobClaim]:
    source = claimer_of(db, settings)
    done: list[JobClaim] = []
    while len(done) < limit and (claim := source.next()) is not None:
        commit(db, settings, claim)
        done.append(claim)
    return done


def deliver(db: Database, settings: Settings) -> None:
    file = read_file(settings)
    escalate_flags(db, file)
    for destination in file.destination:
        while work_one(db, settings, destination):
            pass


def let_pass(db: Database, seconds: float) -> None:
    """Let the rows of deliveries and escalations grow older."""
    with db.write() as session:
        for row in session.scalars(select(Delivery)):
            by = timedelta(seconds=seconds)
            row.created_at -= by
            row.next_at = row.next_at - by if row.next_at else None
            row.finished_at = row.finished_at - by if row.finished_at else None
        for step in session.scalars(select(EscalationStep)):
            step.at -= timedelta(seconds=seconds)


def messages_to(server: Recorder) -> list[tuple[str, dict[str, Any]]]:
    return [(path.rsplit("/", 1)[-1], json.loads(body)) for path, _, body in server.requests]


def test_a_fresh_bleed_passes_three_hundred_old_heads_and_they_make_one_summary(
    sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with recorder() as server:
        toml = hook(server.url, "duty") + hook(server.url, "first") + hook(server.url, "second")
        toml += '[[escalation]]\nname = "night"\ndestinations = ["first", "second"]\nack_timeout_s = 1\n'
        settings = site(make_settings, sqlite_db, tmp_path, toml)
        put_backlog(sqlite_db)
        in_hand = claimer_of(sqlite_db, settings).next()
        assert in_hand is not None and in_hand.old
        fresh = put_probe(sqlite_db, settings, "fresh bleed", priority=3)
        (due, *_), _ = find_due(sqlite_db, utcnow())
        assert due[0] == fresh and due[3] == 3, "on the broker too"
        order = score_all(sqlite_db, settings, SCORED)
        assert order[0].revision_id == fresh and not order[0].old
        assert order[0].rank < order[1].rank, "its slices come first in the engine"
        deliver(sqlite_db, settings)
        events = sorted((name, content["event"], content.get("pipeline")) for name, content in messages_to(server))
        assert events == [("duty", "flag", "probe"), ("first", "flag", "probe")], "the fresh one alone, at once"
        let_pass(sqlite_db, 61)
        deliver(sqlite_db, settings)
        assert all(content["event"] != "summary" for _, content in messages_to(server)), "old heads still wait"
        commit(sqlite_db, settings, in_hand)
        with sqlite_db.write() as session:
            session.execute(update(Job).where(Job.state == "WAITING").values(state="DONE"))
        let_pass(sqlite_db, 61)
        deliver(sqlite_db, settings)
        deliver(sqlite_db, settings)
        summaries = {name: content for name, content in messages_to(server) if content["event"] == "summary"}
        assert sorted(summaries) == ["duty", "first"]
        assert len(messages_to(server)) == 4 + 1, "the fresh one is escalated too"
        assert {content["count"] for content in summaries.values()} == {SCORED}
        flag = summaries["duty"]["flags"][0]
        assert flag["made_at"] == LONG_AGO.isoformat() and flag["patient_id"] == "P1"
        with sqlite_db.read() as session:
            flags = session.scalars(select(Flag)).all()
            assert all(f.notified_at is not None for f in flags)
            assert sum(f.old and f.warnings == ["old_study"] for f in flags) == SCORED
            assert {s.level for s in session.scalars(select(EscalationStep))} == {0, 1}
            assert len(session.scalars(select(EscalationStep)).all()) == 2, "the fresh flag's"
            figures = families()
            OutcomeFigures().read(session, figures)
        ages = [s.value for s in figures["firstread_unacknowledged_age_seconds"].samples]
        assert 0 < max(ages) < 600, "an old flag ages on no alert"


def test_a_summary_an_hour(db: Database, make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with recorder([200]) as server:
        settings = site(make_settings, db, tmp_path, hook(server.url, "duty"))
        for round_number in range(3):
            put = [stable_uid("old", round_number)]
            with db.write() as session:
                at = utcnow()
                study = Study(study_instance_uid=put[0], source="dicom", received_at=at)
                session.add(study)
                session.flush()
                revision = add_closed(session, study.id, at, routed_at=at, old=True)
                session.add(Job(revision_id=revision.id, pipeline="probe", state="WAITING", created_at=at))
            score_all(db, settings)
            let_pass(db, 61)
            deliver(db, settings)
            assert len(server.requests) == 1, f"after {round_number + 1} studies"
        let_pass(db, 3600)
        deliver(db, settings)
        counts = [content["count"] for _, content in messages_to(server)]
        assert counts == [1, 2]
        with db.read() as session:
            assert set(session.scalars(select(Delivery.state))) == {"DELIVERED"}


def test_a_summary_is_tried_again_and_leaves_out_what_was_acknowledged(
    db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with recorder([500, 200]) as server:
        settings = site(make_settings, db, tmp_path, hook(server.url, "duty"))
        put_backlog(db, 3)
        score_all(db, settings)
        let_pass(db, 61)
        deliver(db, settings)
        with db.write() as session:
            assert {(r.state, r.attempts, r.last_status) for r in session.scalars(select(Delivery))} == {
                ("PENDING", 1, "HTTP 500")
            }
            session.execute(update(Flag).where(Flag.id == 1).values(acknowledged_at=utcnow()))
        deliver(db, settings)
        assert len(server.requests) == 1, "not before its wait"
        let_pass(db, 10)
        deliver(db, settings)
        assert [content["count"] for _, content in messages_to(server)] == [3, 2]


def test_the_mail_of_a_summary(sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with smtp_sink() as server:
        toml = (
            f'[[destination]]\nname = "mail"\nkind = "email"\nhost = "127.0.0.1"\nport = {server.port}\n'
            'sender = "firstread@hospital.example"\nto = ["duty@hospital.example"]\nstarttls = false\n'
        )
        settings = site(make_settings, sqlite_db, tmp_path, toml)
        put_backlog(sqlite_db, 2)
        score_all(sqlite_db, settings)
        let_pass(sqlite_db, 61)
        deliver(sqlite_db, settings)
        ((_, mail),) = server.mails
    text = email.message_from_bytes(mail, policy=email.policy.default)
    body = text.get_content()
    assert text["Subject"] == "Firstread: 2 flags of old studies"
    assert "made 2019-03-04" in body and f"firstread flags ack {stable_uid('old', 1)}" in body
    assert "Patient" not in body


def test_a_flag_of_a_fresh_study_stays_one(
    db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """A dose report two days later must not silence the escalation of an open flag."""
    settings = site(make_settings, db, tmp_path)
    first = put_probe(db, settings, "late report")
    score_all(db, settings)
    second = put_probe(db, settings, "late report", n=3)
    with db.write() as session:
        session.get_one(Revision, second).old = True
    score_all(db, settings)
    with db.read() as session:
        flag = session.scalars(select(Flag)).one()
        job = session.scalars(select(Job).where(Job.revision_id == second)).one()
        assert first != second and flag.job_id == job.id
        assert (flag.old, flag.warnings, job.warnings) == (False, [], ["old_study"])


def test_a_priority_by_hand_makes_it_fresh(
    db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = site(make_settings, db, tmp_path)
    put_backlog(db, 2)
    with db.write() as session:
        session.execute(update(Study).where(Study.study_instance_uid == stable_uid("old", 1)).values(priority=3))
    first, second = score_all(db, settings)
    assert (first.old, second.old) == (False, True)
    with db.read() as session:
        assert [f.old for f in session.scalars(select(Flag).order_by(Flag.id))] == [False, True]


def dated(seed: int, date: str) -> list[Dataset]:
    objects = small_series(2, seed=seed)
    for ds in objects:
        ds.StudyDate = ds.AcquisitionDate = date
    return objects


def test_age_is_read_at_intake_and_judged_at_close(db: Database, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(database_url=db.url, time_zone="Europe/Berlin")
    write_heartbeat(
        db,
        Process(
            id="l1", kind=LISTENER, host="h", pid=1, started_at=utcnow() - timedelta(hours=1), heartbeat_at=utcnow()
        ),
    )
    assembler = Assembler(db, "l1", settings.max_wait_s)
    wishes = {1: ("20190304", 0), 2: ("20190304", 1), 3: (f"{utcnow():%Y%m%d}", 0)}
    for seed, (date, wish) in wishes.items():
        visit = IncomingDelivery(source="dicom", calling_ae="CT1", opened_at=utcnow() - timedelta(seconds=30))
        at = (utcnow() - timedelta(seconds=20)).isoformat()
        note = IntakeNote("dicom", "10.0.0.9", at, "l1", calling_ae="CT1", dicom_priority=wish)
        assembler.write(
            [
                Arrival(f"20260101/00/{seed}{n:031x}.dcm", header_of(ds, ds.file_meta), note, f"{seed}-{n}", 10, visit)
                for n, ds in enumerate(dated(seed, date))
            ]
        )
        assembler.write([Ending(visit, "released", utcnow() - timedelta(seconds=10))])
    bells = close_due(db, settings).closed
    with db.read() as session:
        revisions = session.scalars(select(Revision).order_by(Revision.id)).all()
        assert [r.old for r in revisions] == [True, False, False], "HIGH counts as fresh"
        assert revisions[0].made_at == datetime(2019, 3, 4, 22, 59, 59, tzinfo=UTC)
    assert sorted(bell.old for bell in bells) == [False, False, True]


def test_retry_with_a_priority_brings_a_waiting_old_study_forward(
    sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = site(make_settings, sqlite_db, tmp_path)
    put_backlog(sqlite_db, 3)
    assert retry_study(sqlite_db, settings, stable_uid("old", 2), None, "somebody", 3) == [], "it waits already"
    claim = claimer_of(sqlite_db, settings).next()
    assert claim is not None and not claim.old
    with sqlite_db.read() as session:
        assert session.get_one(Study, claim.study_id).study_instance_uid == stable_uid("old", 2)


def test_the_doctor_names_senders_whose_clock_is_wrong(
    sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = site(make_settings, sqlite_db, tmp_path)
    put_backlog(sqlite_db, 4)
    assert [check.name for check in check_senders(settings)] == ["clock of ARCHIVE"]
    with sqlite_db.write() as session:
        for number, (ae, made_at, warnings) in enumerate(
            [("CT1", LONG_AGO, []), ("CT1", utcnow(), []), ("CT2", utcnow() + timedelta(days=1), ["date_in_future"])]
        ):
            study = Study(
                study_instance_uid=stable_uid("seen", number), source="dicom", calling_ae=ae, received_at=utcnow()
            )
            session.add(study)
            session.flush()
            session.add(
                Revision(
                    study_id=study.id,
                    number=1,
                    state="CLOSED",
                    opened_at=utcnow(),
                    last_seen_at=utcnow(),
                    made_at=made_at,
                    warnings=warnings,
                )
            )
    checks = {check.name: check.detail for check in check_senders(settings)}
    assert sorted(checks) == ["clock of ARCHIVE", "clock of CT2"]
    assert "all 4 studies" in checks["clock of ARCHIVE"] and "2019-03-04" in checks["clock of ARCHIVE"]
    assert "in the future" in checks["clock of CT2"]
