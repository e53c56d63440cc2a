"""The commands about outcomes, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from firstread.records import Database, Job
from firstread.settings import Settings
from firstread_cli.main import cli
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.site import database_in, settings_in
from worker.outputs.deliveries.rows import new_delivery
from worker.outputs.messages import message
from worker.outputs.senders.mail import mail_text


@pytest.fixture
def site(tmp_path: Path) -> tuple[Settings, Database, Scored]:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    return settings, db, scored_study(db, settings)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def ok(*arguments: str) -> str:
    done = call(*arguments)
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.output


def test_verdict_and_performance(site: tuple[Settings, Database, Scored], tmp_path: Path) -> None:
    uid = site[2].study_uid
    assert "truth 1, by Dr. A" in ok("verdict", uid, "--pipeline", "head_ct", "--agree", "--by", "Dr. A")
    assert "truth 0" in ok("verdict", uid, "--pipeline", "head_ct", "--disagree", "--note", "artefact")
    assert "subdural: truth 1" in ok("verdict", uid, "--pipeline", "head_ct", "--finding", "subdural", "--truth", "1")
    assert call("verdict", uid, "--pipeline", "head_ct").exit_code != 0
    assert call("verdict", uid, "--pipeline", "head_ct", "--truth", "2").exit_code == 2
    (row,) = [r for r in json.loads(ok("performance", "--json")) if r["finding"] == "any"]
    assert (row["n"], row["false_positive"], row["sensitivity"]) == (1, 1, None)
    assert "head_ct" in ok("performance")
    file = tmp_path / "truth.csv"
    file.write_text("accession_number,finding,truth\nA-100,any,1\nnobody,any,1\nA-100,any,x\n", encoding="utf-8")
    done = call("import-truth", str(file))
    assert "1 imported" in done.output and "line 4" in done.output and done.exit_code == 1
    assert call("import-truth", str(file), "--json").exit_code == 1
    file.write_text("accession_number,finding,truth\nA-100,any,1\nnobody,any,1\n", encoding="utf-8")
    assert "1 known already" in ok("import-truth", str(file))
    actions = [row["action"] for row in json.loads(ok("audit", "--json"))]
    assert sorted(actions) == ["verdict"] * 3 + ["verdict.import"] * 3


def test_what_could_not_be_read_is_named_with_every_result(site: tuple[Settings, Database, Scored]) -> None:
    _, db, scored = site
    detail = "3 of 32 slices could not be read (3: the file is gone); a finding may lie there."
    with db.write() as session:
        job = session.get_one(Job, scored.job_id)
        job.detail, job.warnings = detail, ["unreadable_slices"]
        delivery = new_delivery(job, "desk", "email")
        session.add(delivery)
        session.flush()
        content = message(session, delivery, patient_data=False)
    assert detail in ok("results") and detail in ok("study", scored.study_uid)
    assert {row["detail"] for row in json.loads(ok("results", "--json"))} == {detail}
    assert content["detail"] == detail
    assert mail_text(content).splitlines()[2] == detail


def test_names_that_are_not_known_are_refused_with_those_that_are(
    site: tuple[Settings, Database, Scored], tmp_path: Path
) -> None:
    uid = site[2].study_uid
    done = call("verdict", uid, "--pipeline", "head_ct", "--finding", "nonsense", "--truth", "1")
    assert done.exit_code == 1 and "epidural" in str(done.exception)
    assert call("verdict", uid, "--pipeline", "head_ct", "--finding", "pneumonia", "--truth", "1").exit_code == 1
    assert json.loads(ok("audit", "--json")) == []
    file = tmp_path / "truth.csv"
    file.write_text("accession_number,pipeline,finding,truth\nA-100,head_ct,nonsense,1\n", encoding="utf-8")
    assert "no such finding" in call("import-truth", str(file)).output
    for arguments in (("results",), ("verdict", uid), ("retry", uid), ("export", str(tmp_path / "o"))):
        done = call(*arguments, "--pipeline", "headct")
        assert done.exit_code == 2 and "'head_ct', 'chest_xray', 'dermoscopy'" in done.output, arguments
    for command in ("results", "deliveries"):
        done = call(command, "--state", "finished")
        assert done.exit_code == 2 and "'failed'" in done.output.lower()
    assert json.loads(ok("results", "--state", "done", "--json"))


def test_deliveries(site: tuple[Settings, Database, Scored]) -> None:
    _, db, scored = site
    with db.write() as session:
        row = new_delivery(session.get_one(Job, scored.job_id), "pacs", "dicom")
        row.state = "FAILED"
        session.add(row)
    assert "FAILED" in ok("deliveries")
    assert json.loads(ok("deliveries", "--json", "--state", "delivered")) == []
    assert "is due" in ok("deliveries", "retry", "1")
    assert json.loads(ok("deliveries", "--json"))[0]["state"] == "PENDING"
    assert "given up" in ok("deliveries", "cancel", "1")
    assert "0 deliveries" in ok("deliveries", "retry", "--failed")
    assert call("deliveries", "retry").exit_code == 2
    assert call("deliveries", "cancel", "77").exit_code != 0


def test_objects_report_export_and_clean(site: tuple[Settings, Database, Scored], tmp_path: Path) -> None:
    _, _, scored = site
    listed = json.loads(ok("objects", scored.study_uid, "--out", str(tmp_path / "objects"), "--json"))
    assert {row["kind"] for row in listed} == {"sr", "seg", "sc"}
    assert len(list((tmp_path / "objects").glob("2.25.*.dcm"))) == 3
    ok("report", scored.study_uid, "-o", str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").stat().st_size > 2000
    assert "0 studies" in ok("export", str(tmp_path / "none"))
    assert "1 studies, 4 images" in ok("export", str(tmp_path / "out"), "--all")
    assert call("export", str(tmp_path / "out"), "--all").exit_code != 0
    assert "would go: 0 files" in ok("clean", "--dry-run")
    assert "no day had enough" in ok("drift")


def test_acknowledging_ends_in_the_audit(site: tuple[Settings, Database, Scored]) -> None:
    assert "acknowledged by Dr. A" in ok("flags", "ack", site[2].study_uid, "--by", "Dr. A")
    assert [row["action"] for row in json.loads(ok("audit", "--json"))] == ["flag.acknowledge"]
