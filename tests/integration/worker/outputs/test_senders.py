"""Deliveries to real servers: Orthanc by C-STORE (also over TLS) and STOW-RS, SMTP with STARTTLS, signed webhooks."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import highdicom as hd
import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from firstread.clock import utcnow
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
from tests.builders.stored_images import SECRET_ID, SECRET_NAME
from tests.builders.timing import free_port
from worker.outputs.deliveries.rows import backoff_s
from worker.outputs.destinations.file import (
    DicomDestination,
    read_destinations,
)
from worker.outputs.senders.store import store_status


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
        content = hd.sr.srread(tmp_path / "back.dcm").content
        assert isinstance(content, hd.sr.MeasurementReport)
        groups = content.get_image_measurement_groups()
        assert len(groups) == 4


def test_orthanc_over_tls(tmp_path: Path, certificate: Certificate) -> None:
    tls = f'tls = {{ ca_file = "{certificate.cert_file}", cert_file = "{certificate.cert_file}", key_file = "{certificate.key_file}", server_name = "localhost" }}'  # noqa: E501
    with orthanc(tmp_path / "orthanc", tls=certificate) as server:
        settings, db = site_with(tmp_path, pacs(server.dicom_port, tls + "\nmax_attempts = 1"))
        plan_for(db, settings, scored_study(db, settings))
        deliver_all(db, settings)
        assert [row.state for row in deliveries(db)] == ["DELIVERED"], deliveries(db)[0].last_status
        assert len(server.instances()) == 3
        for changed, words in {
            tls.replace('"localhost"', '"pacs.example"'): "no association: its certificate is not trusted: Hostname",
            tls.replace("/key.pem", "/missing.pem"): "missing.pem cannot be read (No such file or directory)",
        }.items():
            (tmp_path / "destinations.toml").write_text(pacs(server.dicom_port, changed), encoding="utf-8")
            (check,) = check_destinations(settings)
            assert check.status == "fail" and words in check.detail


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
        assert isinstance(event.request, C_STORE)
        seen.append(str(event.request.AffectedSOPInstanceUID))
        return status(event.dataset)

    ae = AE("ORTHANC")
    for sop_class in (ComprehensiveSRStorage, SegmentationStorage, SecondaryCaptureImageStorage):
        ae.add_supported_context(sop_class)
    port = free_port()
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)])
    assert server is not None
    try:
        yield port, seen
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
        text = mail.get_content()
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
