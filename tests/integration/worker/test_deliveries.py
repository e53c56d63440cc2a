"""Deliveries to real servers: Orthanc by C-STORE (also over TLS) and STOW-RS, SMTP with STARTTLS, signed webhooks."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import highdicom as hd
import httpx
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ComprehensiveSRStorage,  # type: ignore[attr-defined]
    SecondaryCaptureImageStorage,  # type: ignore[attr-defined]
    SegmentationStorage,  # type: ignore[attr-defined]
)
from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import Database, Delivery, EscalationStep, Flag, Job, Result
from firstread.settings import Settings
from firstread_cli.doctor.command import check_destinations
from tests.builders.scored import SECRET_ID, SECRET_NAME, Scored, database_in, scored_study, settings_in
from tests.builders.servers import (
    Certificate,
    free_port,
    make_certificate,
    orthanc,
    recorder,
    smtp_sink,
)
from worker.outputs.deliveries.escalation import escalate_flags
from worker.outputs.deliveries.lanes import OrphanedDeliveries, run_deliveries, work_one
from worker.outputs.deliveries.planning import plan
from worker.outputs.deliveries.rows import backoff_s, new_delivery
from worker.outputs.destinations.file import (
    DestinationsError,
    DestinationsFile,
    DicomDestination,
    read_destinations,
    read_file,
)
from worker.outputs.destinations.watch import SETTLE_S
from worker.outputs.senders.store import store_status
from worker.pipelines.base import Finding, Outcome


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "a shared secret")
    monkeypatch.setenv("SMTP_PASSWORD", "secret")


def site_with(tmp_path: Path, toml: str) -> tuple[Settings, Database]:
    """A site with destinations."""
    file = tmp_path / "destinations.toml"
    file.write_text(toml, encoding="utf-8")
    settings = settings_in(tmp_path / "home", destinations=file)
    return settings, database_in(settings)


def plan_for(db: Database, settings: Settings, scored: Scored) -> list[int]:
    """Plan as the worker does, in the transaction of the results; ids of the rows."""
    with db.write() as session:
        job = session.get_one(Job, scored.job_id)
        rows = session.scalars(select(Result).where(Result.job_id == job.id, Result.run == job.run)).all()
        findings = [
            Finding(r.finding, r.model_name, r.model_version, r.probability, r.value, r.unit, r.threshold, r.flagged)
            for r in rows
        ]
        made = plan(session, job, Outcome(findings) if job.state == "DONE" else None, settings)
        session.flush()
        return [row.id for row in made]


def deliver_all(db: Database, settings: Settings) -> None:
    """Work off what is due, in this thread."""
    for destination in read_destinations(settings):
        while work_one(db, settings, destination):
            pass


def deliveries(db: Database) -> list[Delivery]:
    with db.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.id)))


def make_due(db: Database) -> None:
    """Let the waiting time of retries pass."""
    with db.write() as session:
        session.execute(
            update(Delivery).where(Delivery.state == "PENDING").values(next_at=utcnow() - timedelta(seconds=1))
        )


def notified_at(db: Database, scored: Scored) -> Any:
    with db.read() as session:
        return session.get_one(Flag, scored.flag_id).notified_at


def pacs(port: int, extra: str = "") -> str:
    return f"""
[[destination]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = {port}
called_ae = "ORTHANC"
timeout_s = 10
{extra}
"""


def hook(url: str, name: str = "worklist", extra: str = "") -> str:
    return f'''
[[destination]]
name = "{name}"
kind = "webhook"
url = "{url}"
secret = {{ env = "HOOK_SECRET" }}
timeout_s = 5
{extra}
'''


def mailbox(port: int, name: str, to: str, extra: str = "starttls = false") -> str:
    return f'''
[[destination]]
name = "{name}"
kind = "email"
host = "127.0.0.1"
port = {port}
sender = "firstread@hospital.example"
to = ["{to}"]
timeout_s = 5
{extra}
'''


def test_orthanc_stores_the_objects_in_the_same_study(tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc") as server:
        settings, db = site_with(tmp_path, pacs(server.dicom_port))
        scored = scored_study(db, settings)
        plan_for(db, settings, scored)
        deliver_all(db, settings)
        (row,) = deliveries(db)
        assert (row.state, row.attempts) == ("DELIVERED", 1), row.last_status
        tags = [server.tags(instance["ID"]) for instance in server.instances()]
        assert {t["SOPClassUID"] for t in tags} == {
            str(ComprehensiveSRStorage),
            str(SegmentationStorage),
            str(SecondaryCaptureImageStorage),
        }
        assert {t["StudyInstanceUID"] for t in tags} == {scored.study_uid}
        assert {t["PatientID"] for t in tags} == {SECRET_ID}
        assert len(server.get("/studies")) == 1
        assert notified_at(db, scored) is not None
        sr_id = next(i["ID"] for i in server.instances() if server.tags(i["ID"])["Modality"] == "SR")
        data = httpx.get(f"{server.url}/instances/{sr_id}/file", trust_env=False, timeout=20).content
        (tmp_path / "back.dcm").write_bytes(data)
        groups = hd.sr.srread(tmp_path / "back.dcm").content.get_image_measurement_groups()
        assert len(groups) == 4


def test_orthanc_over_tls(tmp_path: Path, certificate: Certificate) -> None:
    tls = f'tls = {{ ca_file = "{certificate.cert_file}", cert_file = "{certificate.cert_file}", key_file = "{certificate.key_file}", server_name = "localhost" }}'  # noqa: E501
    with orthanc(tmp_path / "orthanc", tls=certificate) as server:
        settings, db = site_with(tmp_path, pacs(server.dicom_port, tls + "\nmax_attempts = 1"))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["DELIVERED"], deliveries(db)[0].last_status
        assert len(server.instances()) == 3


def test_orthanc_by_stow(tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc", dicomweb=True) as server:
        toml = f'[[destination]]\nname = "web"\nkind = "stow"\nurl = "{server.url}/dicom-web"\nobjects = ["sr", "sc"]\n'
        settings, db = site_with(tmp_path, toml)
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        (row,) = deliveries(db)
        assert row.state == "DELIVERED", row.last_status
        assert {server.tags(i["ID"])["Modality"] for i in server.instances()} == {"SR", "OT"}


def stow_answer(failed: list[str], warned: dict[str, int], stored: list[str]) -> bytes:
    answer: dict[str, Any] = {}
    if failed:
        answer["00081198"] = {
            "vr": "SQ",
            "Value": [
                {"00081155": {"vr": "UI", "Value": [u]}, "00081197": {"vr": "US", "Value": [0xA700]}} for u in failed
            ],
        }
    answer["00081199"] = {
        "vr": "SQ",
        "Value": [{"00081155": {"vr": "UI", "Value": [u]}} for u in stored]
        + [{"00081155": {"vr": "UI", "Value": [u]}, "00081196": {"vr": "US", "Value": [w]}} for u, w in warned.items()],
    }
    return json.dumps(answer).encode()


def test_stow_answers_are_read_instance_by_instance(tmp_path: Path) -> None:
    with recorder([202, 200]) as server:
        settings, db = site_with(tmp_path, f'[[destination]]\nname = "web"\nkind = "stow"\nurl = "{server.url}"\n')
        scored = scored_study(db, settings)
        plan_for(db, settings, scored)
        from worker.outputs.objects.files import ensure_objects

        uids = {row.kind: str(row.sop_instance_uid) for row in ensure_objects(db, settings, scored.job_id)}
        server.answer = stow_answer([uids["seg"]], {uids["sc"]: 0xB006}, [uids["sr"]])
        deliver_all(db, settings)
        (row,) = deliveries(db)
        assert row.state == "PENDING"
        assert "seg failed 0xA700" in str(row.last_status)
        assert "sc stored with warning 0xB006" in str(row.last_status)
        server.answer = stow_answer([], {}, [uids["seg"]])
        make_due(db)
        deliver_all(db, settings)
        assert deliveries(db)[0].state == "DELIVERED"
        path, headers, body = server.requests[1]
        assert path == "/hook/studies"
        assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"')
        assert body.count(b"Content-Type: application/dicom") == 1, "only what was missing is sent again"


@contextmanager
def pacs_that_answers(status: Callable[[Dataset], int]) -> Iterator[tuple[int, list[str]]]:
    """A PACS whose statuses a test decides."""
    seen: list[str] = []

    def handle(event: evt.Event) -> int:
        seen.append(str(event.request.AffectedSOPInstanceUID))
        return status(event.dataset)

    ae = AE("ORTHANC")
    for sop_class in (ComprehensiveSRStorage, SegmentationStorage, SecondaryCaptureImageStorage):
        ae.add_supported_context(sop_class)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)])
    try:
        yield server.socket.getsockname()[1], seen
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0x0000, "DELIVERED"),
        (0xB000, "DELIVERED"),
        (0xB006, "DELIVERED"),
        (0xB007, "DELIVERED"),
        (0xA700, "FAILED"),
        (0xB001, "FAILED"),
        (0xC001, "FAILED"),
        (0x0122, "FAILED"),
    ],
)
def test_every_store_status_is_checked(tmp_path: Path, status: int, state: str) -> None:
    with pacs_that_answers(lambda ds: status) as (port, _):
        settings, db = site_with(tmp_path, pacs(port, 'max_attempts = 1\nobjects = ["sc"]'))
        scored = scored_study(db, settings)
        plan_for(db, settings, scored)
        deliver_all(db, settings)
        (row,) = deliveries(db)
        assert (row.state, row.next_at) == (state, None)
        assert f"{status:04X}" in str(row.last_status) or status == 0
        assert (notified_at(db, scored) is not None) == (state == "DELIVERED")
        assert store_status(status).startswith("stored") == (state == "DELIVERED")


def test_what_was_stored_is_not_sent_again(tmp_path: Path) -> None:
    refusals = [0xA700]

    def status(ds: Dataset) -> int:
        return refusals.pop() if ds.Modality == "SEG" and refusals else 0

    with pacs_that_answers(status) as (port, seen):
        settings, db = site_with(tmp_path, pacs(port))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["PENDING"]
        make_due(db)
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["DELIVERED"]
        assert len(seen) == 4
        assert len(set(seen)) == 3


def test_retries_are_bounded_and_back_off(tmp_path: Path) -> None:
    settings, db = site_with(tmp_path, pacs(free_port(), "max_attempts = 3\nbackoff_s = 100\nbackoff_max_s = 150"))
    plan_for(db, settings, scored_study(db, settings))
    waits = []
    for _ in range(5):
        deliver_all(db, settings)
        (row,) = deliveries(db)
        if row.next_at is not None:
            waits.append((row.next_at - utcnow()).total_seconds())
        make_due(db)
    assert (row.state, row.attempts) == ("FAILED", 3)
    assert row.finished_at is not None
    assert 85 <= waits[0] <= 110
    assert 130 <= waits[1] <= 165
    assert len(waits) == 2
    destination = read_destinations(settings)[0]
    assert isinstance(destination, DicomDestination)
    assert backoff_s(destination, 50) <= 165


def test_webhook_is_signed_and_silent_about_the_patient(tmp_path: Path) -> None:
    with recorder() as server:
        settings, db = site_with(tmp_path, hook(server.url))
        scored = scored_study(db, settings)
        plan_for(db, settings, scored)
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["DELIVERED"]
        ((_, headers, body),) = server.requests
        signed = headers["X-Firstread-Timestamp"].encode() + b"." + body
        expected = hmac.new(b"a shared secret", signed, hashlib.sha256).hexdigest()
        assert headers["X-Firstread-Signature"] == f"sha256={expected}"
        assert abs(int(headers["X-Firstread-Timestamp"]) - time.time()) < 60
        content = json.loads(body)
        assert content["event"] == "flag"
        assert content["flags"][0]["probability"] == pytest.approx(0.93)
        for secret in (SECRET_ID, SECRET_NAME, "A-100", "Nachtigall"):
            assert secret.encode() not in body
        assert notified_at(db, scored) is not None


def test_webhook_names_the_patient_only_where_allowed(tmp_path: Path) -> None:
    with recorder() as server:
        settings, db = site_with(tmp_path, hook(server.url, extra="patient_data = true"))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        content = json.loads(server.requests[0][2])
        assert (content["patient_id"], content["accession_number"]) == (SECRET_ID, "A-100")


@pytest.mark.parametrize("status", [302, 400, 500])
def test_a_webhook_that_does_not_say_2xx_has_not_got_it(tmp_path: Path, status: int) -> None:
    with recorder([status, 204]) as server:
        settings, db = site_with(tmp_path, hook(server.url))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        assert [(r.state, r.last_status) for r in deliveries(db)] == [("PENDING", f"HTTP {status}")]
        make_due(db)
        deliver_all(db, settings)
        assert deliveries(db)[0].state == "DELIVERED"


def test_webhook_checks_the_certificate(tmp_path: Path, certificate: Certificate) -> None:
    with recorder(tls=certificate) as server:
        toml = hook(server.url, "strict", "max_attempts = 1") + hook(
            server.url, "trusting", f'ca_file = "{certificate.cert_file}"'
        )
        settings, db = site_with(tmp_path, toml)
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        assert {row.destination: row.state for row in deliveries(db)} == {"strict": "FAILED", "trusting": "DELIVERED"}


def test_mail_by_starttls_with_login(tmp_path: Path, certificate: Certificate) -> None:
    with smtp_sink(certificate) as box:
        extra = f'username = "duty"\npassword = {{ env = "SMTP_PASSWORD" }}\nca_file = "{certificate.cert_file}"'
        settings, db = site_with(tmp_path, mailbox(box.port, "duty", "duty@hospital.example", extra))
        scored = scored_study(db, settings)
        plan_for(db, settings, scored)
        assert plan_for(db, settings, scored) == [], "one mail a study, not one a run"
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["DELIVERED"], deliveries(db)[0].last_status
        ((recipients, raw),) = box.mails
        assert recipients == ["duty@hospital.example"]
        assert box.tls_used == [True]
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        assert "suspected intracranial hemorrhage" in mail["Subject"]
        text = mail.get_content()  # type: ignore[attr-defined]
        assert "0.93" in text
        assert "not for diagnosis" in text
        for secret in (SECRET_ID, "Nachtigall", "A-100"):
            assert secret.encode() not in raw


def test_a_refused_recipient_is_a_failure(tmp_path: Path) -> None:
    with smtp_sink(refuse="nobody") as box:
        settings, db = site_with(tmp_path, mailbox(box.port, "duty", "nobody@hospital.example"))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        assert [(r.state, r.last_status) for r in deliveries(db)] == [("PENDING", "SMTP: 1 recipients refused")]


def test_rules_choose_by_pipeline_finding_and_flag(tmp_path: Path) -> None:
    toml = (
        hook("http://127.0.0.1:9/a", "all")
        + hook("http://127.0.0.1:9/b", "flagged", "when = { flagged = true }")
        + hook("http://127.0.0.1:9/c", "chest", 'when = { pipelines = ["chest_xray"] }')
        + hook("http://127.0.0.1:9/d", "bleeds", 'when = { findings = ["any"] }')
        + hook("http://127.0.0.1:9/e", "rejected", 'when = { states = ["REJECTED"] }')
    )
    settings, db = site_with(tmp_path, toml)

    def planned(**kind: Any) -> set[str]:
        ids = plan_for(db, settings, scored_study(db, settings, **kind))
        return {row.destination for row in deliveries(db) if row.id in ids}

    assert planned() == {"all", "flagged", "bleeds"}
    assert planned(probability=0.1) == {"all"}
    assert planned(pipeline="chest_xray", n=1) == {"all", "flagged", "chest"}
    assert planned(state="REJECTED", n=2) == {"rejected"}


def test_a_dead_destination_holds_up_nobody(tmp_path: Path) -> None:
    """Lanes are threads of their own: one that hangs until its time-out leaves the other alone."""
    import socket

    with socket.socket() as silent, recorder() as server:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        dead = pacs(silent.getsockname()[1]).replace("timeout_s = 10", "timeout_s = 4")
        settings, db = site_with(tmp_path, dead + hook(server.url))
        for number in range(5):
            plan_for(db, settings, scored_study(db, settings, accession=f"A-{number}"))
        stop = threading.Event()
        thread = threading.Thread(target=run_deliveries, args=(settings, stop), daemon=True)
        started = time.monotonic()
        thread.start()
        try:
            while len(server.requests) < 5 and time.monotonic() - started < 20:
                time.sleep(0.05)
            assert len(server.requests) == 5
            assert time.monotonic() - started < 8
            assert {row.state for row in deliveries(db) if row.kind == "dicom"} == {"PENDING"}
        finally:
            stop.set()
            thread.join(timeout=30)
        assert not thread.is_alive()


def pass_time(db: Database, seconds: float) -> None:
    with db.write() as session:
        for step in session.scalars(select(EscalationStep)):
            step.at -= timedelta(seconds=seconds)


def test_a_flag_that_nobody_acknowledges_goes_to_the_next_address(tmp_path: Path) -> None:
    with smtp_sink() as box:
        toml = (
            mailbox(box.port, "duty", "duty@hospital.example")
            + mailbox(box.port, "senior", "senior@hospital.example")
            + '[[escalation]]\nname = "bleeds"\ndestinations = ["duty", "senior"]\nack_timeout_s = 600\n'
            + "max_age_s = 1e9\n"
        )
        settings, db = site_with(tmp_path, toml)
        scored = scored_study(db, settings)
        quiet = scored_study(db, settings, probability=0.1)
        assert plan_for(db, settings, scored) == [], "a listed destination is the list's alone"
        file = read_file(settings)
        assert escalate_flags(db, file) == 1
        assert escalate_flags(db, file) == 0
        deliver_all(db, settings)
        assert [to for to, _ in box.mails] == [["duty@hospital.example"]]
        assert notified_at(db, scored) is not None
        first = notified_at(db, scored)
        pass_time(db, 601)
        assert escalate_flags(db, file) == 1
        deliver_all(db, settings)
        assert [to for to, _ in box.mails][1:] == [["senior@hospital.example"]]
        assert b"not acknowledged" in box.mails[1][1].replace(b"=\n", b"").replace(b"\r\n ", b" ")
        assert notified_at(db, scored) == first
        pass_time(db, 601)
        assert escalate_flags(db, file) == 0, "the list has an end"
        assert quiet.flag_id is None


def test_an_acknowledgement_ends_the_escalation(tmp_path: Path) -> None:
    with smtp_sink() as box:
        toml = (
            mailbox(box.port, "duty", "duty@hospital.example")
            + mailbox(box.port, "senior", "senior@hospital.example")
            + '[[escalation]]\nname = "bleeds"\ndestinations = ["duty", "senior"]\nack_timeout_s = 5\nmax_age_s = 1e9\n'
        )
        settings, db = site_with(tmp_path, toml)
        scored = scored_study(db, settings)
        file = read_file(settings)
        escalate_flags(db, file)
        deliver_all(db, settings)
        pass_time(db, 6)
        assert escalate_flags(db, file) == 1
        with db.write() as session:
            session.execute(
                update(Flag).where(Flag.id == scored.flag_id).values(acknowledged_at=utcnow(), acknowledged_by="x")
            )
        deliver_all(db, settings)
        assert len(box.mails) == 1
        assert [row.state for row in deliveries(db)] == ["DELIVERED", "SKIPPED"]
        assert escalate_flags(db, file) == 0


def test_objects_that_cannot_be_made_end_the_delivery(tmp_path: Path) -> None:
    settings, db = site_with(tmp_path, pacs(free_port()))
    scored = scored_study(db, settings, study_uid="ID_not.a.uid")
    plan_for(db, settings, scored)
    deliver_all(db, settings)
    (row,) = deliveries(db)
    assert row.state == "SKIPPED"
    assert "illegal_study_uid" in str(row.last_status)


def test_a_claim_that_a_killed_process_held_comes_back(tmp_path: Path) -> None:
    with recorder() as server:
        settings, db = site_with(tmp_path, hook(server.url))
        plan_for(db, settings, scored_study(db, settings))
        with db.write() as session:
            held = session.scalars(select(Delivery)).one()
            held.attempts, held.next_at = 1, utcnow() + timedelta(seconds=80)
        deliver_all(db, settings)
        assert server.requests == []
        make_due(db)
        deliver_all(db, settings)
        assert deliveries(db)[0].state == "DELIVERED"


def test_a_destination_that_kills_its_sender_is_given_up(tmp_path: Path) -> None:
    with recorder() as server:
        settings, db = site_with(tmp_path, hook(server.url, extra="max_attempts = 2"))
        plan_for(db, settings, scored_study(db, settings))
        with db.write() as session:
            session.scalars(select(Delivery)).one().attempts = 2
        deliver_all(db, settings)
        assert (deliveries(db)[0].state, server.requests) == ("FAILED", [])


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("[[destination]", "no TOML"),
        ('[[destination]]\nname = "x"\nkind = "pigeon"\n', "pigeon"),
        (hook("http://127.0.0.1/") + hook("http://127.0.0.1/"), "one name"),
        ('[[escalation]]\nname = "e"\ndestinations = ["ghost"]\n', "ghost"),
        (hook("ftp://127.0.0.1/"), "url"),
        (hook("http://127.0.0.1/").replace("env", "text"), "secret"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, toml: str, word: str) -> None:
    settings, db = site_with(tmp_path, toml)
    with pytest.raises(DestinationsError, match=word):
        read_file(settings)
    assert plan_for(db, settings, scored_study(db, settings)) == [], "scoring goes on"


def test_the_doctor_looks_at_every_destination(tmp_path: Path, certificate: Certificate) -> None:
    tls = f'tls = {{ ca_file = "{certificate.cert_file}", cert_file = "{certificate.cert_file}", key_file = "{certificate.key_file}", server_name = "localhost" }}'  # noqa: E501
    login = f'username = "duty"\npassword = {{ env = "SMTP_PASSWORD" }}\nca_file = "{certificate.cert_file}"'
    with orthanc(tmp_path / "orthanc", tls=certificate) as server, smtp_sink(certificate) as box, recorder() as web:
        toml = (
            pacs(server.dicom_port, tls)
            + pacs(free_port()).replace('"pacs"', '"nobody"')
            + mailbox(box.port, "duty", "duty@hospital.example", login)
            + mailbox(box.port, "wrong", "duty@hospital.example", login.replace('"duty"', '"intruder"'))
            + hook(web.url)
            + hook(web.url, "secretless").replace("HOOK_SECRET", "UNSET_SECRET")
        )
        settings, _ = site_with(tmp_path, toml)
        found = {check.name.split()[-1]: check for check in check_destinations(settings)}
    assert {name: check.status for name, check in found.items()} == {
        "pacs": "ok",
        "nobody": "fail",
        "duty": "ok",
        "wrong": "fail",
        "worklist": "ok",
        "secretless": "fail",
    }, found
    assert found["wrong"].detail.startswith("SMTP")
    assert "UNSET_SECRET" in found["secretless"].detail


def test_a_file_that_is_rewritten_or_broken_stops_no_delivery(tmp_path: Path) -> None:
    with recorder() as server:
        settings, db = site_with(tmp_path, hook(server.url))
        file = settings.destinations
        assert file is not None
        good = file.read_text(encoding="utf-8")
        stop = threading.Event()
        thread = threading.Thread(target=run_deliveries, args=(settings, stop))
        thread.start()
        try:
            scored_study(db, settings, accession="A-1")
            for number in range(8):
                with db.write() as session:
                    session.add(new_delivery(session.get_one(Job, 1), "worklist", "webhook", number))
                for content in ("", good[: len(good) // 2], good):
                    file.write_text(content, encoding="utf-8")
                    time.sleep(0.05)
            file.write_text("[[destination]", encoding="utf-8")
            time.sleep(SETTLE_S + 1.5)
            with db.write() as session:
                session.add(new_delivery(session.get_one(Job, 1), "worklist", "webhook", 99))
            end = time.monotonic() + 30
            while any(d.state == "PENDING" for d in deliveries(db)) and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            stop.set()
            thread.join(30)
        assert {d.state for d in deliveries(db)} == {"DELIVERED"}
        assert len(server.requests) == 9


def test_deliveries_to_a_destination_that_was_taken_out_end_after_a_minute(tmp_path: Path) -> None:
    settings, db = site_with(tmp_path, hook("http://127.0.0.1:9/"))
    scored = scored_study(db, settings)
    plan_for(db, settings, scored)
    now = [0.0]
    orphans = OrphanedDeliveries(lambda: now[0])
    with_it, without = read_file(settings), DestinationsFile()
    for at, file, state in (
        (0.0, without, "PENDING"),
        (50.0, without, "PENDING"),
        (55.0, with_it, "PENDING"),
        (70.0, without, "PENDING"),
        (129.0, without, "PENDING"),
        (130.0, without, "FAILED"),
    ):
        now[0] = at
        orphans.end_missing(db, file)
        assert deliveries(db)[0].state == state, at
    assert deliveries(db)[0].last_status == "no such destination any more"
