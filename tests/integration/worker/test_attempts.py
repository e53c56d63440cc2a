"""What counts as an attempt, when a job runs alone, and where it is reported that a study was not read."""

from __future__ import annotations

import email
import email.policy
import errno
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import Database, Delivery, Flag, Job, Process, Result, Revision, Verdict
from firstread.records.scoring import Transition
from firstread.settings import Settings
from firstread.storage.store import StoreAway
from tests.builders.closed_revisions import job_of, put_probe
from tests.builders.probe_worker import ROW, probe_serving
from tests.builders.scoring import claim_next, scorer_of
from tests.builders.servers import recorder, smtp_sink
from worker.outputs.deliveries.escalation import escalate_unread
from worker.outputs.deliveries.lanes import work_one
from worker.outputs.deliveries.planning import plan_deliveries
from worker.outputs.destinations.file import read_file
from worker.pipelines import registry
from worker.pipelines.base import Evidence, Finding, Outcome
from worker.process.supervisor import STOPS, give_back_of_predecessors
from worker.process.sweeper import EndedProcess, Sweeper, give_back
from worker.scoring import pauses
from worker.scoring.evidence import EvidenceError, EvidenceStore
from worker.scoring.results import commit_failure


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))
    monkeypatch.setenv("HOOK_SECRET", "a shared secret")


@pytest.fixture
def settings(make_settings: Callable[..., Settings], db: Database) -> Settings:
    return make_settings(database_url=db.url)


def ended(db: Database, settings: Settings, reason: str = "worker_died", asked: bool = False) -> None:
    give_back(db, EndedProcess("w1", reason, asked), actor="test", settings=settings)


@pytest.mark.parametrize("reason", ["worker_died", "worker_stalled", "consumer_silent"])
def test_every_job_in_hand_pays_for_an_end_that_nobody_asked_for(db: Database, settings: Settings, reason: str) -> None:
    for name in ("one", "other"):
        put_probe(db, settings, name)
        claim_next(db, settings)
    ended(db, settings, reason)
    with db.read() as session:
        assert [(job.attempts, job.reason) for job in session.scalars(select(Job))] == [(1, reason)] * 2


@pytest.mark.parametrize("reason", sorted(STOPS))
def test_a_stop_that_was_asked_for_costs_nothing(db: Database, settings: Settings, reason: str) -> None:
    revision = put_probe(db, settings, "s")
    for _ in range(5):
        assert not claim_next(db, settings).alone
        ended(db, settings, reason, asked=True)
    job = job_of(db, revision)
    assert job is not None and (job.state, job.attempts, job.reason) == ("WAITING", 0, "interrupted")


@pytest.mark.parametrize(("state", "attempts"), [("ready", 1), ("stopping", 0)])
def test_a_worker_that_was_killed_while_it_stopped_was_asked_to(
    db: Database, settings: Settings, state: str, attempts: int
) -> None:
    import socket

    revision = put_probe(db, settings, "s")
    claim_next(db, settings)
    now = utcnow()
    with db.write() as session:
        session.add(
            Process(
                id="w1",
                kind="worker",
                host=socket.gethostname(),
                pid=2**22 + 1,
                started_at=now,
                heartbeat_at=now,
                details={"state": state},
            )
        )
    sweeper = Sweeper(db, settings)
    assert give_back_of_predecessors(db, sweeper) == 1
    sweeper.close()
    job = job_of(db, revision)
    assert job is not None and job.attempts == attempts


def test_after_the_second_end_a_job_runs_alone_and_after_its_like(db: Database, settings: Settings) -> None:
    long_ago = utcnow() - timedelta(hours=1)
    killer = put_probe(db, settings, "killer", closed_at=long_ago, priority=3)
    for attempt in (1, 2):
        current = claim_next(db, settings)
        assert (current.revision_id, current.attempt, current.alone) == (killer, attempt, False)
        ended(db, settings)
    like = [put_probe(db, settings, f"like{n}", priority=3) for n in range(2)]
    less = put_probe(db, settings, "less", priority=5)
    order = [claim_next(db, settings) for _ in range(4)]
    assert [current.revision_id for current in order] == [*like, killer, less]
    assert [current.alone for current in order] == [False, False, True, False]
    ended(db, settings)
    job = job_of(db, killer)
    assert job is not None and (job.state, job.reason, job.attempts) == ("FAILED", "worker_died", 3)


def test_the_last_attempt_is_alone_where_there_are_but_two(db: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"max_attempts": 2})
    put_probe(db, settings, "s")
    assert not claim_next(db, settings).alone
    ended(db, settings)
    assert claim_next(db, settings).alone


def test_a_panic_is_recorded_and_ends_no_thread(db: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"max_attempts": 2})
    revision, after = put_probe(db, settings, "panics", "panic"), put_probe(db, settings, "after")
    before = REGISTRY.get_sample_value("firstread_errors_total", {"pipeline": "probe", "reason": "panic"}) or 0.0
    with scorer_of(db, settings, probe_serving()) as scorer:
        assert scorer.answer() == 3
    job, other = job_of(db, revision), job_of(db, after)
    assert job is not None and (job.state, job.reason) == ("FAILED", "panic")
    assert other is not None and other.state == "DONE"
    counted = REGISTRY.get_sample_value("firstread_errors_total", {"pipeline": "probe", "reason": "panic"})
    assert counted == before + 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "no room"), "disk_full"),
        (StoreAway("the store does not store"), "store_away"),
        (OSError(errno.EMFILE, "too many"), "too_many_open_files"),
    ],
)
def test_what_the_machine_fails_waits_and_costs_no_attempt(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str
) -> None:
    monkeypatch.setattr(pauses, "FIRST_S", 0.01)
    monkeypatch.setattr(pauses, "LONGEST_S", 0.05)
    revision = put_probe(db, settings, "s")
    write = EvidenceStore.write
    seen: list[Job | None] = []

    def refuse(self: EvidenceStore, evidence: Evidence) -> str | None:
        if len(seen) == settings.max_attempts + 2:
            return write(self, evidence)
        seen.append(job_of(db, revision))
        raise EvidenceError("not written") from error

    monkeypatch.setattr(EvidenceStore, "write", refuse)
    with scorer_of(db, settings, probe_serving()) as scorer:
        scorer.answer()
        assert scorer._pause.left_s() == 0.0
    job = job_of(db, revision)
    assert job is not None and (job.state, job.attempts) == ("DONE", 1)
    assert [job and job.attempts for job in seen] == [1] * (settings.max_attempts + 2)
    with db.read() as session:
        reasons = session.scalars(select(Transition.reason).where(Transition.to_state == "WAITING")).all()
    assert reasons.count(reason) == settings.max_attempts + 2


HOOK = '[[destination]]\nname = "{name}"\nkind = "webhook"\nurl = "{url}/{name}"\nsecret = {{ env = "HOOK_SECRET" }}\n'
MAIL = (
    '[[destination]]\nname = "{name}"\nkind = "email"\nhost = "127.0.0.1"\nport = {port}\nstarttls = false\n'
    'sender = "firstread@hospital.example"\nto = ["{name}@hospital.example"]\n'
)
PACS = '[[destination]]\nname = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = 1\ncalled_ae = "PACS"\n'


def fail(db: Database, settings: Settings, name: str) -> int:
    settings = settings.model_copy(update={"max_attempts": 1})
    put_probe(db, settings, name)
    current = claim_next(db, settings)
    commit_failure(db, job_id=current.job_id, owner="w1", reason="worker_died", error="", settings=settings)
    return current.job_id


def deliver(db: Database, settings: Settings) -> None:
    for destination in read_file(settings).destination:
        while work_one(db, settings, destination):
            pass


def states(db: Database) -> dict[str, str]:
    with db.read() as session:
        return {row.destination: row.state for row in session.scalars(select(Delivery))}


def test_a_study_that_was_not_read_is_sent_as_a_flag_is(
    sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with recorder() as server, smtp_sink() as box:
        toml = (
            HOOK.format(name="flags", url=server.url)
            + "when = { flagged = true }\n"
            + HOOK.format(name="bleeds", url=server.url)
            + 'when = { findings = ["any"] }\n'
            + HOOK.format(name="chest", url=server.url)
            + 'when = { pipelines = ["chest_xray"] }\n'
            + HOOK.format(name="refusals", url=server.url)
            + 'when = { states = ["REJECTED"] }\n'
            + MAIL.format(name="duty", port=box.port)
            + MAIL.format(name="senior", port=box.port)
            + PACS
            + '[[escalation]]\nname = "night"\ndestinations = ["duty", "senior"]\nfindings = ["any"]\n'
        )
        file = tmp_path / "destinations.toml"
        file.write_text(toml, encoding="utf-8")
        settings = make_settings(database_url=sqlite_db.url, destinations=file)
        fail(sqlite_db, settings, "s")
        assert states(sqlite_db) == dict.fromkeys(("flags", "bleeds", "duty"), "PENDING")
        deliver(sqlite_db, settings)
        assert states(sqlite_db) == dict.fromkeys(("flags", "bleeds", "duty"), "DELIVERED")
        messages = {path.rsplit("/", 1)[-1]: json.loads(body) for path, _, body in server.requests}
        assert {(c["event"], c["state"], c["reason"]) for c in messages.values()} == {
            ("not_read", "FAILED", "worker_died")
        }
        ((recipients, raw),) = box.mails
        assert recipients == ["duty@hospital.example"]
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        assert "NOT READ" in mail["Subject"]
        text = mail.get_content()
        assert "nobody and nothing has read this study" in text and "worker_died" in text and "firstread retry" in text
        assert "Acknowledge" not in text


def test_a_flag_after_not_read_is_mailed_all_the_same(
    sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """The mail that asks for another try is no mail about what that try found."""
    file = tmp_path / "destinations.toml"
    file.write_text(MAIL.format(name="duty", port=9) + "when = { flagged = true }\n", encoding="utf-8")
    settings = make_settings(database_url=sqlite_db.url, destinations=file)
    fail(sqlite_db, settings, "s")
    assert states(sqlite_db) == {"duty": "PENDING"}
    finding = Finding("any", "m", "1", probability=0.9, threshold=0.5, flagged=True)
    with sqlite_db.write() as session:
        job = session.scalars(select(Job)).one()
        job.state, job.run = "DONE", job.run + 1
        assert [row.destination for row in plan_deliveries(session, job, Outcome([finding]), settings)] == ["duty"]
        session.flush()
        job.run += 1
        session.add(
            Result(
                job_id=job.id,
                run=job.run - 1,
                model_name="m",
                model_version="1",
                role="active",
                finding="any",
                probability=0.9,
                flagged=True,
                created_at=utcnow(),
            )
        )
        session.add(
            Flag(
                study_id=1,
                pipeline=job.pipeline,
                finding="any",
                job_id=job.id,
                probability=0.9,
                threshold=0.5,
                model_name="m",
                model_version="1",
                flagged_at=utcnow(),
            )
        )
        session.flush()
        assert plan_deliveries(session, job, Outcome([finding]), settings) == [], "sent once"


def let_pass(db: Database, seconds: float) -> None:
    with db.write() as session:
        for row in session.scalars(select(Delivery)):
            row.created_at -= timedelta(seconds=seconds)


@pytest.mark.parametrize("sign", ["none", "verdict", "retry"])
def test_a_list_goes_on_until_somebody_takes_care(
    sign: str, sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    names = ("duty", "senior", "chief")
    toml = "".join(HOOK.format(name=name, url="http://127.0.0.1:9") for name in names)
    toml += f'[[escalation]]\nname = "night"\ndestinations = {json.dumps(names)}\nack_timeout_s = 600\n'
    file = tmp_path / "destinations.toml"
    file.write_text(toml, encoding="utf-8")
    settings = make_settings(database_url=sqlite_db.url, destinations=file)
    job_id = fail(sqlite_db, settings, "s")
    destinations = read_file(settings)
    assert escalate_unread(sqlite_db, destinations) == 0
    let_pass(sqlite_db, 601)
    assert escalate_unread(sqlite_db, destinations) == 1
    assert escalate_unread(sqlite_db, destinations) == 0
    assert set(states(sqlite_db)) == {"duty", "senior"}
    with sqlite_db.write() as session:
        job = session.get_one(Job, job_id)
        study_id = session.get_one(Revision, job.revision_id).study_id
        if sign == "verdict":
            session.add(
                Verdict(study_id=study_id, pipeline="probe", finding="any", truth=0, source="reader", at=utcnow())
            )
        if sign == "retry":
            job.state = "WAITING"
    let_pass(sqlite_db, 601)
    assert escalate_unread(sqlite_db, destinations) == (1 if sign == "none" else 0)
    let_pass(sqlite_db, 601)
    assert escalate_unread(sqlite_db, destinations) == 0, "the list has an end"


def test_a_study_that_is_tried_again_first_is_not_sent(
    sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with recorder() as server:
        file = tmp_path / "destinations.toml"
        file.write_text(HOOK.format(name="flags", url=server.url), encoding="utf-8")
        settings = make_settings(database_url=sqlite_db.url, destinations=file)
        job_id = fail(sqlite_db, settings, "s")
        with sqlite_db.write() as session:
            session.execute(update(Job).where(Job.id == job_id).values(state="WAITING"))
        deliver(sqlite_db, settings)
        assert states(sqlite_db) == {"flags": "SKIPPED"} and not server.requests


def test_an_old_study_that_nobody_read_waits_for_the_summary(
    sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with recorder() as server:
        file = tmp_path / "destinations.toml"
        file.write_text(HOOK.format(name="flags", url=server.url), encoding="utf-8")
        settings = make_settings(database_url=sqlite_db.url, destinations=file, max_attempts=1)
        put_probe(sqlite_db, settings, "s")
        with sqlite_db.write() as session:
            session.execute(update(Revision).values(old=True))
        current = claim_next(sqlite_db, settings)
        commit_failure(sqlite_db, job_id=current.job_id, owner="w1", reason="worker_died", error="", settings=settings)
        deliver(sqlite_db, settings)
        assert not server.requests
        with sqlite_db.write() as session:
            for row in session.scalars(select(Delivery)):
                row.created_at -= timedelta(hours=2)
        deliver(sqlite_db, settings)
        ((_, _, body),) = server.requests
        content = json.loads(body)
        assert (content["event"], content["count"]) == ("summary", 0)
        assert [row["reason"] for row in content["not_read"]] == ["worker_died"]
