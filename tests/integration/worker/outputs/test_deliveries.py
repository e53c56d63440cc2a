"""Deliveries: rules, lanes, retries, escalation, and a file of destinations that changes."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import Database, Delivery, EscalationStep, Flag, Job
from firstread_cli.doctor.command import check_destinations
from tests.builders.deliveries import (
    deliver_all,
    deliveries,
    hook,
    mailbox,
    make_due,
    notified_at,
    pacs,
    plan_for,
    site_with,
)
from tests.builders.scored_studies import scored_study
from tests.builders.servers import (
    Certificate,
    orthanc,
    recorder,
    smtp_sink,
)
from tests.builders.timing import free_port, until
from worker.outputs.deliveries.escalation import escalate_flags
from worker.outputs.deliveries.lanes import OrphanedDeliveries, run_deliveries
from worker.outputs.deliveries.rows import new_delivery
from worker.outputs.destinations.file import (
    DestinationsError,
    DestinationsFile,
    read_file,
)
from worker.outputs.destinations.watch import SETTLE_S


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


def test_a_dead_destination_holds_up_no_other(tmp_path: Path) -> None:
    """Lanes are threads of their own: one that hangs until its time-out leaves the other alone."""
    with socket.socket() as silent, recorder() as server:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        dead = pacs(silent.getsockname()[1]).replace("timeout_s = 10", "timeout_s = 4")
        settings, db = site_with(tmp_path, dead + hook(server.url))
        for number in range(5):
            plan_for(db, settings, scored_study(db, settings, accession=f"A-{number}"))
        stop = threading.Event()
        thread = threading.Thread(target=run_deliveries, args=(settings, stop), daemon=True)
        thread.start()
        try:
            until(lambda: len(server.requests) == 5, 20)
            hanging = [row for row in deliveries(db) if row.kind == "dicom"]
            assert {row.state for row in hanging} == {"PENDING"}
            assert sum(row.attempts for row in hanging) < len(hanging), "the other lane did not wait for this one"
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
        checks = {check.name.split()[-1]: check for check in check_destinations(settings)}
    assert {name: check.status for name, check in checks.items()} == {
        "pacs": "ok",
        "nobody": "fail",
        "duty": "ok",
        "wrong": "fail",
        "worklist": "ok",
        "secretless": "fail",
    }, checks
    assert checks["wrong"].detail.startswith("SMTP")
    assert "UNSET_SECRET" in checks["secretless"].detail


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
                    time.sleep(0.05)  # between two looks of the thread, so that it meets each content
            file.write_text("[[destination]", encoding="utf-8")
            time.sleep(SETTLE_S + 1.5)  # a file is believed when it has been unchanged for so long
            with db.write() as session:
                session.add(new_delivery(session.get_one(Job, 1), "worklist", "webhook", 99))
            until(lambda: all(d.state != "PENDING" for d in deliveries(db)), step_s=0.1)
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
