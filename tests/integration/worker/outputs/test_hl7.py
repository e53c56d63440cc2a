"""Results to a RIS over real sockets: HL7 messages, their acknowledgements, and when there is no message."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hl7apy.core import Message
from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message
from prometheus_client import REGISTRY, generate_latest
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from firstread.actions.deliveries import retry_delivery
from firstread.clock import utcnow
from firstread.records import Database, Delivery, Flag, Instance, Job, Result, Revision, Study
from firstread.settings import Settings
from firstread_cli.doctor.command import check_destinations
from tests.builders.deliveries import deliver_all, deliveries, make_due, notified_at, plan_for, ris, site_with
from tests.builders.hl7_receiver import Receiver, fields_of, hl7_receiver
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.servers import Certificate, make_certificate
from tests.builders.timing import free_port, until
from worker.outputs.destinations.file import DestinationsError, read_file
from worker.outputs.hl7.scored_result import NO_FLAG

ALL = "when = { flagged = false }"


def control_ids(receiver: Receiver) -> list[str]:
    return [fields_of(message, "MSH")[0][10] for message in receiver.messages]


def only(db: Database) -> Delivery:
    (row,) = deliveries(db)
    return row


def test_a_receiver_gets_a_flag_and_takes_it(tmp_path: Path) -> None:
    with hl7_receiver("CA") as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        scored = scored_study(db, settings)
        plan_for(db, settings, scored)
        deliver_all(db, settings)
        row = only(db)
        assert (row.kind, row.state, row.attempts, row.last_status) == ("hl7", "DELIVERED", 1, "CA")
        (message,) = receiver.messages
        assert receiver.faults == []
        assert fields_of(message, "OBR")[0][3] == "A-100" and fields_of(message, "PID")[0][3].startswith("MRN-7771234^")
        assert [r[5] for r in fields_of(message, "OBX") if r[3].startswith("1386000^")] == ["93.0"]
        assert notified_at(db, scored) is not None


def test_what_failed_is_sent_again_under_the_same_control_id(tmp_path: Path) -> None:
    with hl7_receiver("AE", "CE", "none", "AA", words="database is down") as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        plan_for(db, settings, scored_study(db, settings))
        said = []
        for answer in receiver.answers:
            attempt_once(db, settings, receiver, answer)
            said.append((only(db).state, only(db).last_status))
            make_due(db)
        assert said == [
            ("PENDING", "AE: database is down"),
            ("PENDING", "CE: database is down"),
            ("PENDING", "no acknowledgement within 0.5 s"),
            ("DELIVERED", "AA: database is down"),
        ]
        assert len(set(control_ids(receiver))) == 1 and len(set(receiver.messages)) == 1


def test_attempts_are_bounded(tmp_path: Path) -> None:
    with hl7_receiver("AE") as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port, "max_attempts = 2"))
        plan_for(db, settings, scored_study(db, settings))
        for _ in range(4):
            deliver_all(db, settings)
            make_due(db)
        assert (only(db).state, only(db).last_status, len(receiver.messages)) == ("FAILED", "AE", 2)


def attempt_once(db: Database, settings: Settings, receiver: Receiver, answer: str) -> None:
    """One attempt; it waits long enough on any machine unless no answer comes in time."""
    before = len(receiver.messages)
    assert settings.destinations_file is not None
    toml = ris(receiver.port, timeout_s=0.5 if answer in {"late", "none"} else 20)
    settings.destinations_file.write_text(toml, encoding="utf-8")
    deliver_all(db, settings)
    until(lambda: len(receiver.messages) == before + 1, 20)


@pytest.mark.parametrize("answer", ["AR", "CR"])
def test_a_rejection_ends_it_at_once_until_a_person_asks_again(tmp_path: Path, answer: str) -> None:
    with hl7_receiver(answer, "AA", words="no such order") as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        row = only(db)
        assert (row.state, row.attempts, row.last_status) == ("FAILED", 1, f"{answer}: no such order")
        retry_delivery(db, row.id, by="test")
        deliver_all(db, settings)
        assert only(db).state == "DELIVERED" and len(set(control_ids(receiver))) == 1


def test_what_is_no_acknowledgement_counts_as_none(tmp_path: Path) -> None:
    wrong = {
        "late": "no acknowledgement within 0.5 s",
        "half": "the connection ended within an acknowledgement",
        "garbage": "the answer is no MLLP frame",
        "no hl7": "the answer is no HL7 acknowledgement",
        "no msa": "the answer is no HL7 acknowledgement",
        "another": "acknowledgement of another message",
        "closed": "no acknowledgement",
        "ZZ": "ZZ",
    }
    with hl7_receiver(*wrong, "AA") as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        plan_for(db, settings, scored_study(db, settings))
        for answer, status in wrong.items():
            attempt_once(db, settings, receiver, answer)
            assert (only(db).state, only(db).last_status) == ("PENDING", status)
            make_due(db)
        attempt_once(db, settings, receiver, "AA")
        assert only(db).state == "DELIVERED" and len(set(control_ids(receiver))) == 1


def test_the_server_of_another_library_takes_it(tmp_path: Path) -> None:
    """hl7apy's own MLLP server: it finds the frame, the type of the message and whom to acknowledge."""
    taken: list[Any] = []

    class Handler(AbstractHandler):  # type: ignore[misc]  # hl7apy has no hints
        def reply(self) -> str:
            message = parse_message(self.incoming_message)
            taken.append(message)
            answer = Message("ACK", version="2.5.1")
            answer.msh.msh_9, answer.msh.msh_10, answer.msh.msh_11 = "ACK^R01^ACK", "1", "P"
            answer.msa.msa_1, answer.msa.msa_2 = "AA", message.msh.msh_10.to_er7()
            return str(answer.to_mllp())

    with MLLPServer("127.0.0.1", 0, {"ORU^R01^ORU_R01": (Handler,)}, timeout=10) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        settings, db = site_with(tmp_path, ris(server.server_address[1]))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        server.shutdown()
        thread.join(timeout=5)
    assert only(db).state == "DELIVERED", only(db).last_status
    (message,) = taken
    group = message.oru_r01_patient_result.oru_r01_order_observation
    assert group.obr.obr_3.to_er7() == "A-100"
    assert [each.obx.obx_8.to_er7() for each in group.oru_r01_observation] == ["A", "", "A", "", ""]


def tls_of(ca: Certificate, extra: str = "") -> str:
    return f'tls = {{ ca_file = "{ca.cert_file}", server_name = "localhost"{extra} }}'


def test_over_tls(tmp_path: Path, certificate: Certificate) -> None:
    own = f', cert_file = "{certificate.cert_file}", key_file = "{certificate.key_file}"'
    with hl7_receiver(tls=certificate, mutual=True) as receiver:
        toml = ris(receiver.port, tls_of(certificate, own)) + ris(receiver.port, tls_of(certificate), "nameless")
        settings, db = site_with(tmp_path, toml)
        check = next(check_destinations(settings))
        assert (check.status, check.detail) == ("ok", "takes connections")
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        shown, nameless = deliveries(db)
        assert shown.state == "DELIVERED" and len(receiver.messages) == 1, shown.last_status
        assert nameless.state == "PENDING" and str(nameless.last_status).startswith(("TLS: ", "connection lost"))


def test_what_is_wrong_is_said_by_the_doctor_and_by_the_delivery(tmp_path: Path, certificate: Certificate) -> None:
    other, good = make_certificate(tmp_path / "other"), tls_of(certificate)
    with hl7_receiver(tls=certificate) as receiver, hl7_receiver() as plain:
        toml = {
            "authority": ris(receiver.port, tls_of(other), "authority"),
            "name": ris(receiver.port, good.replace("localhost", "ris.example"), "name"),
            "files": ris(receiver.port, good.replace("cert.pem", "missing.pem"), "files"),
            "plain": ris(plain.port, good, "plain"),
            "server": ris(free_port(), "", "server"),
            "codes": ris(plain.port, f'codes = "{tmp_path / "codes.toml"}"', "codes"),
            "host": ris(1, "", "host").replace("127.0.0.1", "ris.invalid"),
        }
        complaints = {
            "authority": "TLS: the receiver's certificate: self-signed certificate",
            "name": "TLS: the receiver's certificate: Hostname mismatch",
            "files": "missing.pem cannot be read (No such file or directory)",
            "plain": "TLS: ",
            "server": "(Connection refused)",
            "codes": "codes.toml cannot be read (No such file or directory)",
            "host": "no connection to ris.invalid:1 (",
        }
        settings, db = site_with(tmp_path, "".join(toml.values()))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        rows = {row.destination: row for row in deliveries(db)}
        checks = {check.name.removeprefix("destination "): check for check in check_destinations(settings)}
        for name, complaint in complaints.items():
            assert rows[name].state == "PENDING" and complaint in str(rows[name].last_status)
            assert checks[name].status == "fail" and complaint in checks[name].detail
        assert receiver.messages == plain.messages == []


def test_a_flag_without_an_order_or_of_whom_is_not_known_is_not_sent(tmp_path: Path) -> None:
    def without(keyword: str) -> Callable[[Dataset], None]:
        return lambda ds: setattr(ds, keyword, "")

    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        plan_for(db, settings, scored_study(db, settings, change=without("AccessionNumber"), probability=0.91))
        plan_for(db, settings, scored_study(db, settings, change=without("PatientID"), probability=0.92))
        with db.write() as session:
            session.execute(update(Study).values(patient_id=None, accession_number=None))
        for p, reason in ((0.93, "identity_in_doubt"), (0.94, "patient_mismatch")):
            scored = scored_study(db, settings, probability=p)
            plan_for(db, settings, scored)
            with db.write() as session:
                session.get_one(Job, scored.job_id).warnings = [reason]
        deliver_all(db, settings)
        reasons = ["no_accession_number", "no_patient_id", "identity_in_doubt", "patient_mismatch"]
        assert [(row.state, row.last_status) for row in deliveries(db)] == [("SKIPPED", reason) for reason in reasons]
        assert receiver.messages == []


def next_result(db: Database, scored: Scored, p: float) -> Scored:
    """A second revision of a study with the images of the first, scored with another probability."""
    with db.write() as session:
        job = session.get_one(Job, scored.job_id)
        first = session.get_one(Revision, job.revision_id)
        at = first.last_seen_at + timedelta(minutes=5)
        same = {
            "study_id": first.study_id,
            "state": "CLOSED",
            "opened_at": at,
            "last_seen_at": at,
            "closed_at": at,
            "routed_at": at,
        }
        revision = Revision(number=2, **same)
        session.add(revision)
        session.flush()
        for member in first.members:
            session.add(type(member)(revision_id=revision.id, instance_id=member.instance_id))
        values = {c.key: getattr(job, c.key) for c in Job.__mapper__.columns if c.key not in {"id", "revision_id"}}
        later = Job(revision_id=revision.id, **values)
        session.add(later)
        session.flush()
        rows = session.scalars(select(Result).where(Result.job_id == job.id, Result.finding == "any")).all()
        for row in rows:
            copy = {c.key: getattr(row, c.key) for c in Result.__mapper__.columns if c.key not in {"id", "job_id"}}
            session.add(Result(job_id=later.id, **copy | {"probability": p, "flagged": p >= 0.5}))
        flag_id = scored.flag_id
        if p >= 0.5 and flag_id is None:
            flag = Flag(
                study_id=first.study_id,
                pipeline=job.pipeline,
                finding="any",
                job_id=later.id,
                probability=p,
                threshold=0.5,
                model_name="bleed_net",
                model_version="1.0",
                flagged_at=at,
            )
            session.add(flag)
            session.flush()
            flag_id = flag.id
        return Scored(scored.study_uid, scored.study_id, later.id, flag_id, scored.instance_ids)


def test_a_later_flag_is_a_message_of_its_own_and_corrects_nothing(tmp_path: Path) -> None:
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port, ALL))
        quiet = scored_study(db, settings, probability=0.1)
        plan_for(db, settings, quiet)
        deliver_all(db, settings)
        plan_for(db, settings, next_result(db, quiet, 0.9))
        deliver_all(db, settings)
        first, second = receiver.messages
        assert NO_FLAG in first.decode() and NO_FLAG not in second.decode()
        assert len(set(control_ids(receiver))) == 2
        for message in receiver.messages:
            assert {row[11] for row in fields_of(message, "OBX")} == {"P"}
            assert fields_of(message, "OBR")[0][25] == "P"
        assert "A" in {row[8] for row in fields_of(second, "OBX")}
        assert {row[8] for row in fields_of(first, "OBX")} == {""}
        assert receiver.faults == []


def test_no_later_result_takes_a_flag_back(tmp_path: Path) -> None:
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port, ALL))
        scored = scored_study(db, settings)
        plan_for(db, settings, scored)
        deliver_all(db, settings)
        plan_for(db, settings, next_result(db, scored, 0.2))
        deliver_all(db, settings)
        states = [(row.state, row.last_status) for row in deliveries(db)]
        assert states == [("DELIVERED", "AA"), ("SKIPPED", "flag_stands")] and len(receiver.messages) == 1


def two_studies_of_an_order(db: Database, settings: Settings, **second: Any) -> None:
    """A study with a flag, and another study of the same patient without one; both are worked off in this order."""
    plan_for(db, settings, scored_study(db, settings))
    deliver_all(db, settings)
    plan_for(db, settings, scored_study(db, settings, probability=0.1, **second))
    deliver_all(db, settings)


def test_no_other_study_of_the_order_takes_a_flag_back(tmp_path: Path) -> None:
    """Two StudyInstanceUIDs, one accession number: the RIS would show the second result as that of the order."""
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port, ALL))
        two_studies_of_an_order(db, settings)
        plan_for(db, settings, scored_study(db, settings, pipeline="chest_xray", n=1, probability=0.1))
        deliver_all(db, settings)
        assert [row.last_status for row in deliveries(db)] == ["AA", "flag_stands", "flag_stands"]
        assert [row.state for row in deliveries(db)] == ["DELIVERED", "SKIPPED", "SKIPPED"]


def test_a_flag_of_another_order_or_patient_holds_nothing_back(tmp_path: Path) -> None:
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port, ALL))
        two_studies_of_an_order(db, settings, accession="A-101")
        plan_for(db, settings, scored_study(db, settings, probability=0.2, n=3, change=another_patient))
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["DELIVERED"] * 3


def another_patient(ds: Dataset) -> None:
    ds.PatientID = "MRN-8"


def test_an_order_is_known_by_the_images_that_were_flagged(tmp_path: Path) -> None:
    """The study's row was corrected to another order after the RIS had got the flag."""
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port, ALL))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        with db.write() as session:
            session.execute(update(Study).values(accession_number="A-CORRECTED"))
        plan_for(db, settings, scored_study(db, settings, probability=0.1))
        deliver_all(db, settings)
        assert [row.last_status for row in deliveries(db)] == ["AA", "flag_stands"]


def test_images_of_two_orders_make_no_message(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.AccessionNumber = "A-100" if ds.InstanceNumber < 3 else "A-101"

    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        plan_for(db, settings, scored_study(db, settings, change=change))
        deliver_all(db, settings)
        assert (only(db).state, only(db).last_status) == ("SKIPPED", "accession_numbers_differ")
        assert receiver.messages == []


def test_without_its_images_a_message_is_not_sent_again_with_less_in_it(tmp_path: Path) -> None:
    with hl7_receiver("AE") as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        away = settings.spool_dir.rename(tmp_path / "away")
        make_due(db)
        deliver_all(db, settings)
        assert (only(db).state, only(db).last_status) == ("PENDING", "the images cannot be read now")
        away.rename(settings.spool_dir)
        make_due(db)
        deliver_all(db, settings)
        assert len(receiver.messages) == 2 and len(set(receiver.messages)) == 1
        with db.write() as session:
            session.execute(update(Instance).values(deleted_at=utcnow()))
        make_due(db)
        deliver_all(db, settings)
        assert (only(db).state, only(db).last_status) == ("SKIPPED", "source_deleted")
        assert len(receiver.messages) == 2


def test_two_flags_are_two_messages(tmp_path: Path) -> None:
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        for pipeline in ("head_ct", "chest_xray"):
            plan_for(db, settings, scored_study(db, settings, pipeline=pipeline, accession=f"A-{pipeline}"))
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["DELIVERED", "DELIVERED"]
        assert len(set(control_ids(receiver))) == 2 and receiver.faults == []
        assert {fields_of(message, "OBR")[0][3] for message in receiver.messages} == {"A-head_ct", "A-chest_xray"}


def test_only_flags_are_sent_unless_the_others_are_asked_for(tmp_path: Path) -> None:
    toml = (
        ris(1, name="flags")
        + ris(1, 'when = { pipelines = ["head_ct"] }', "heads")
        + ris(1, ALL, "all")
        + ris(1, 'when = { pipelines = ["chest_xray"], flagged = false }', "chests")
    )
    settings, db = site_with(tmp_path, toml)

    def planned(**kind: Any) -> set[str]:
        ids = plan_for(db, settings, scored_study(db, settings, **kind))
        return {row.destination for row in deliveries(db) if row.id in ids}

    assert planned() == {"flags", "heads", "all"}
    assert planned(probability=0.1) == {"all"}
    assert planned(pipeline="chest_xray", n=1, probability=0.1) == {"all", "chests"}
    assert planned(state="REJECTED", n=2) == set() == planned(state="FAILED", n=3)


def test_flags_of_old_studies_go_one_by_one(tmp_path: Path) -> None:
    """A RIS gathers results by order; a summary of many would belong to none."""
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        scored = scored_study(db, settings)
        with db.write() as session:
            session.execute(update(Flag).values(old=True))
        plan_for(db, settings, scored)
        assert not only(db).summary
        deliver_all(db, settings)
        assert only(db).state == "DELIVERED" and len(receiver.messages) == 1


def test_a_silent_site_sends_nothing(tmp_path: Path) -> None:
    with hl7_receiver() as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings.model_copy(update={"silent": True}))
        assert (only(db).state, only(db).last_status, receiver.messages) == ("SKIPPED", "SILENT", [])


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        (ris(1, 'when = { states = ["FAILED"] }'), 'destination "ris", when.states.0'),
        (ris(1, 'character_set = "KOI8"'), 'destination "ris", character_set'),
        (ris(1, 'sending_facility = "äöü"'), 'destination "ris", sending_facility'),
        (ris(1, 'acknowledgement = "none"'), 'destination "ris", acknowledgement'),
        (ris(70000), 'destination "ris", port'),
        (ris(1) + '[[escalation]]\nname = "x"\ndestinations = ["ris"]\n', "ris is no webhook or e-mail destination"),
    ],
)
def test_a_wrong_destination_is_explained(tmp_path: Path, toml: str, complaint: str) -> None:
    settings, _ = site_with(tmp_path, toml)
    with pytest.raises(DestinationsError) as error:
        read_file(settings)
    assert complaint in str(error.value)


def test_planted_names_stand_in_the_message_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the receiver repeats them in its answer, and where sending fails in every way."""
    planted = ("Wiedehopf", "Jane", "WH-77", "ACC-WIEDE", "19610203")
    otherwise = ("1961-02-03", "03.02.1961", "X41")

    def change(ds: Dataset) -> None:
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Wiedehopf^Jane", "WH-77", "19610203"

    words = r"no patient wiedehopf, J\X41\NE born 1961-02-03, 03.02.1961 (WH-77) with ACC-WIEDE"
    caplog.set_level(logging.DEBUG)
    with hl7_receiver("AE", "garbage", "half", "AR", words=words) as receiver:
        settings, db = site_with(tmp_path, ris(receiver.port) + ris(free_port(), name="dead"))
        plan_for(db, settings, scored_study(db, settings, change=change, accession="ACC-WIEDE"))
        said = []
        for _ in range(4):
            deliver_all(db, settings)
            said += [str(row.last_status) for row in deliveries(db)]
            make_due(db)
        assert all(name.encode() in receiver.messages[-1] for name in planted)
    assert said[-2] == "AR: no patient ***, *** born ***, *** (***) with ***"
    written = "\n".join([caplog.text, *said, generate_latest(REGISTRY).decode(), repr(settings)])
    assert "delivery 1 to ris" in written
    assert [name for name in (*planted, *otherwise) if name.lower() in written.lower()] == []
