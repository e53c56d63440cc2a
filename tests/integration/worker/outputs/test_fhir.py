"""Results to a FHIR server over real sockets: one transaction a result, and what counts as taken."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from fhir.resources.R4B.bundle import Bundle

from firstread_cli.doctor.command import check_destinations
from tests.builders.deliveries import deliver_all, deliveries, make_due, notified_at, plan_for, site_with
from tests.builders.scored_studies import scored_study
from tests.builders.servers import Certificate, recorder


def response(*statuses: object) -> bytes:
    entries = [{"response": {"status": status}} for status in statuses]
    return json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}).encode()


TAKEN = response("201 Created", "201 Created", "200 OK")
"""A report, a probability and a volume; one of them was there already."""


def fhir(url: str, extra: str = "") -> str:
    return f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{url}"\ntimeout_s = 20\n{extra}\n'


def refusal(words: str) -> bytes:
    issue = {"severity": "error", "code": "processing", "diagnostics": words}
    return json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()


def test_a_server_gets_a_transaction_over_tls_with_a_token(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EHR_TOKEN", "a token")
    with recorder(answer=TAKEN, tls=certificate) as server:
        extra = f'bearer = {{ env = "EHR_TOKEN" }}\nca_file = "{certificate.cert_file}"'
        settings, db = site_with(tmp_path, fhir(server.url, extra))
        assert [(check.name, check.status) for check in check_destinations(settings)] == [("destination ehr", "ok")]
        scored, quiet = scored_study(db, settings), scored_study(db, settings, probability=0.1)
        plan_for(db, settings, scored)
        assert plan_for(db, settings, quiet) == [], "flags alone"
        deliver_all(db, settings)
        (row,) = deliveries(db)
        assert (row.state, row.last_status) == ("DELIVERED", "HTTP 200") and notified_at(db, scored) is not None
        ((_, headers, body),) = server.requests
        assert headers["Authorization"] == "Bearer a token" and headers["Content-Type"] == "application/fhir+json"
        report = Bundle.model_validate_json(body).entry[0].resource
        assert (report.status, report.basedOn[0].identifier.value) == ("preliminary", "A-100")


def test_what_is_no_transaction_response_is_tried_again_and_names_no_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with recorder([500, 200, 422, 302, 200]) as server:
        settings, db = site_with(tmp_path, fhir(server.url))
        plan_for(db, settings, scored_study(db, settings))
        said = []
        for answer in (b"<html>", b"{}", refusal("Unknown patient MRN-7771234 of order A-100"), b"", TAKEN):
            server.answer = answer
            deliver_all(db, settings)
            said.append(deliveries(db)[0].last_status)
            make_due(db)
        assert said == [
            "HTTP 500",
            "HTTP 200: no transaction-response",
            "HTTP 422: Unknown patient *** of order ***",
            "HTTP 302",
            "HTTP 200",
        ]
        assert deliveries(db)[0].state == "DELIVERED"
        assert len({body for _, _, body in server.requests}) == 1, "each attempt sends the same resources"
        assert logging.WARNING in {record.levelno for record in caplog.records}
        assert "MRN-7771234" not in caplog.text and "Nachtigall" not in caplog.text


def test_a_transaction_counts_as_taken_where_each_resource_was(tmp_path: Path) -> None:
    text = json.dumps({"type": "transaction-response", "entry": ["201", "201", "201"]}).encode()
    answers = {
        response("201", "422 Unprocessable Entity", "201"): "an entry has the status 422 Unprocessable Entity",
        response("201", "201"): "a transaction-response of 2 entries for 3",
        response("201", 201, "201"): "an entry has the status 201",
        response("201", "2", "201"): "an entry has the status 2",
        text: "an entry has the status none",
        b'{"type": "transaction-response"}': "a transaction-response of 0 entries for 3",
        b'{"a":' * 100_000: "no transaction-response",
    }
    with recorder() as server:
        settings, db = site_with(tmp_path, fhir(server.url))
        plan_for(db, settings, scored_study(db, settings))
        for answer, problem in answers.items():
            server.answer = answer
            deliver_all(db, settings)
            (row,) = deliveries(db)
            assert (row.state, row.last_status) == ("PENDING", f"HTTP 200: {problem}")
            make_due(db)
        server.answer = TAKEN
        deliver_all(db, settings)
        assert deliveries(db)[0].state == "DELIVERED"


def test_no_other_study_of_the_order_takes_a_flag_back(tmp_path: Path) -> None:
    with recorder(answer=TAKEN) as server:
        settings, db = site_with(tmp_path, fhir(server.url, "when = { flagged = false }"))
        for probability in (0.9, 0.1):
            plan_for(db, settings, scored_study(db, settings, probability=probability))
            deliver_all(db, settings)
        assert [row.last_status for row in deliveries(db)] == ["HTTP 200", "flag_stands"] and len(server.requests) == 1


def test_without_an_order_nothing_is_sent(tmp_path: Path) -> None:
    with recorder(answer=TAKEN) as server:
        settings, db = site_with(tmp_path, fhir(server.url))
        plan_for(db, settings, scored_study(db, settings, accession=""))
        deliver_all(db, settings)
        (row,) = deliveries(db)
        assert (row.state, row.last_status, server.requests) == ("SKIPPED", "no_accession_number", [])
