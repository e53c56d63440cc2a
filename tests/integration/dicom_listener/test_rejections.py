"""Rejection notes of a department, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from sqlalchemy import select, update

from firstread.clock import utcnow
from firstread.records import Database, Delivery, EscalationStep, Flag, Job, Revision, Study
from firstread.settings import Settings
from firstread_cli.study import study as study_command
from tests.builders.rejection import rejection
from tests.builders.routed_study import UID, Site, deliveries, dose_report, flagged_with_mask, slices
from tests.builders.servers import Recorder
from worker.outputs.deliveries.escalation import escalate_flags
from worker.outputs.deliveries.lanes import work_one
from worker.outputs.destinations.watch import watch_of
from worker.outputs.objects.files import ensure_objects
from worker.outputs.senders.mail import mail_text


@pytest.fixture
def site(make_settings: Callable[..., Settings], db: Database, hook: Recorder) -> Site:
    settings = make_settings(database_url=db.url, max_attempts=1)
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "secret").write_text("s", encoding="utf-8")
    common = f'kind = "webhook"\nurl = "{hook.url}"\nsecret = {{ file = "{settings.home / "secret"}" }}\n'
    (settings.home / "destinations.toml").write_text(
        '[[destination]]\nname = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = 9\ncalled_ae = "PACS"\n'
        f'[[destination]]\nname = "worklist"\npatient_data = true\n{common}'
        f'[[destination]]\nname = "second"\npatient_data = true\n{common}'
        f'[[destination]]\nname = "duty"\n{common}[[destination]]\nname = "chief"\npatient_data = true\n{common}'
        '[[escalation]]\nname = "bleeds"\ndestinations = ["duty", "chief"]\nack_timeout_s = 60\n',
        encoding="utf-8",
    )
    return Site(db, settings)


def send(site: Site, name: str) -> bool:
    destination = watch_of(site.settings).current().named(name)
    assert destination is not None
    return work_one(site.db, site.settings, destination)


def contents(hook: Recorder) -> list[dict[str, Any]]:
    import json

    return [json.loads(body) for _, _, body in hook.requests]


@pytest.mark.parametrize("code", ["113001", "113037", "113038"])
def test_rejected_images_are_left_out_and_the_flag_stays(site: Site, code: str) -> None:
    images = flagged_with_mask(site)
    site.put(*images, rejection(images[:2], code))
    site.score(0.1)
    (row,) = [r for r in site.view("study_result") if r["finding"] == "any"]
    assert (row["revision"], row["probability"], row["flagged"]) == (2, 0.1, True)
    assert "images_rejected" in row["warnings"]
    (flag,) = site.view("hemorrhage_flag")
    assert (flag["revision"], flag["acknowledged_at"]) == (1, None)
    assert "images_rejected" in flag["warnings"]
    assert ("identity_in_doubt" in flag["warnings"]) == (code == "113038")
    earlier = [r for r in site.view("study_result_history") if r["revision"] == 1 and r["finding"] == "any"]
    assert all("images_rejected" in r["warnings"] for r in earlier)
    with site.db.read() as session:
        job_id = session.scalar(select(Job.id).join(Revision).where(Revision.number == 2))
    assert job_id is not None
    objects = {row.kind: row for row in ensure_objects(site.db, site.settings, job_id)}
    named = str(dcmread(site.settings.objects_dir / str(objects["sr"].path)))
    assert images[5].SOPInstanceUID in named and images[0].SOPInstanceUID not in named
    site.put(*images, rejection(images[:2], code), dose_report())
    assert site.claim() is None, "the note is found again, and nothing else is new"
    assert site.standing() == [(3, "unchanged")]


def test_where_every_image_is_rejected_the_result_stands_with_the_warning(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = flagged_with_mask(site)
    site.put(*images, rejection(images, "113001"))
    assert site.claim() is None
    assert site.jobs() == [(1, "DONE")]
    (row,) = [r for r in site.view("study_result") if r["finding"] == "any"]
    assert (row["state"], row["flagged"], "images_rejected" in row["warnings"]) == ("DONE", True, True)
    later = [r for r in site.view("study_result_history") if r["revision"] == 2]
    assert [(r["state"], r["reason"]) for r in later] == [("REJECTED", "images_rejected")]
    monkeypatch.setenv("FIRSTREAD_HOME", str(site.settings.home))
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", site.db.url)
    output = CliRunner().invoke(study_command, [UID]).output
    assert "rejection note 113001 (Rejected for Quality Reasons) on 10 images" in output
    assert "10 of them rejected" in output


def test_an_open_flag_goes_on_escalating_and_says_so(site: Site, hook: Recorder) -> None:
    images = flagged_with_mask(site)
    file = watch_of(site.settings).current()
    assert escalate_flags(site.db, file) == 1
    assert send(site, "duty")
    site.put(*images, rejection(images, "113037"))
    assert site.claim() is None
    with site.db.write() as session:
        session.execute(update(EscalationStep).values(at=utcnow() - timedelta(seconds=90)))
    assert escalate_flags(site.db, file) == 1
    assert send(site, "chief")
    last = contents(hook)[-1]
    assert (last["event"], last["escalation"]) == ("escalation", 1)
    assert "images_rejected" in last["warnings"]
    assert "The department took images of the study back." in mail_text(last)


def test_a_wrong_worklist_entry_holds_back_the_name_and_is_reported_once(site: Site, hook: Recorder) -> None:
    images = flagged_with_mask(site)
    file = watch_of(site.settings).current()
    assert send(site, "worklist")  # sent, under the name; the other webhook and the PACS are not yet
    assert contents(hook)[0]["patient_id"] == "MRN-7771234"
    assert escalate_flags(site.db, file) == 1
    assert send(site, "duty")
    note = rejection(images, "113038")
    site.put(*images, note)
    site.put(*images, note, dose_report())
    assert site.claim() is None
    states = {(name, topic): (state, status) for name, topic, state, status in _all(site)}
    assert states["pacs", ""] == ("SKIPPED", "identity_in_doubt")
    assert states["worklist", "identity_in_doubt"][0] == states["duty", "identity_in_doubt"][0] == "PENDING"
    assert sum(topic == "identity_in_doubt" for _, topic in states) == 2
    assert send(site, "worklist") and not send(site, "worklist")
    message = contents(hook)[-1]
    assert message["event"] == "identity_in_doubt" and "patient_id" not in message
    assert "IDENTITY IN DOUBT" in mail_text(message)
    assert send(site, "second"), "a flag is sent all the same, without the name"
    late = contents(hook)[-1]
    assert late["event"] == "flag" and "patient_id" not in late and "identity_in_doubt" in late["warnings"]
    with site.db.write() as session:
        session.execute(update(EscalationStep).values(at=utcnow() - timedelta(seconds=90)))
    assert escalate_flags(site.db, file) == 1
    assert send(site, "chief") and "patient_id" not in contents(hook)[-1]
    with site.db.read() as session:
        assert session.scalars(select(Flag.acknowledged_at)).all() == [None]
        assert session.scalars(select(Study.patient_id)).all() == ["MRN-7771234"]


def test_a_result_that_flags_nothing_is_not_sent_under_a_name_in_doubt(site: Site) -> None:
    images = slices()
    site.put(*images)
    site.score(0.1)
    site.put(*images, rejection(images, "113038"))
    assert site.claim() is None
    assert {(state, status) for _, state, status in deliveries(site)} == {("SKIPPED", "identity_in_doubt")}


def test_a_job_that_ends_after_the_note_sends_no_objects(site: Site) -> None:
    images = slices()
    site.put(*images)
    claim = site.claim()
    assert claim is not None
    site.put(*images, rejection(images, "113038"))
    assert site.claim() is None
    site.commit(claim, 0.9, flagged=True)
    assert send(site, "pacs")
    assert ("pacs", "", "SKIPPED", "identity_in_doubt") in _all(site)
    assert "identity_in_doubt" in site.view("hemorrhage_flag")[0]["warnings"]


def test_expired_images_are_noted_and_nothing_else(site: Site) -> None:
    images = flagged_with_mask(site)
    site.put(*images, rejection(images, "113039"))
    assert site.claim() is None
    assert site.standing() == [(2, "unchanged")]
    for row in [*site.view("study_result"), *site.view("hemorrhage_flag")]:
        assert "images_rejected" not in row["warnings"]
    assert {state for _, state, _ in deliveries(site)} == {"PENDING"}
    with site.db.read() as session:
        from firstread.records import RejectionRow

        assert [(row.code, row.images) for row in session.scalars(select(RejectionRow))] == [("113039", 10)]


def test_images_that_come_with_their_note_are_not_scored(site: Site) -> None:
    images = slices()
    site.put(*images, rejection(images, "113001"))
    assert site.claim() is None
    (row,) = site.view("study_result")
    assert (row["state"], row["reason"], row["warnings"]) == ("REJECTED", "images_rejected", ["images_rejected"])


def _all(site: Site) -> list[tuple[str, str, str, str | None]]:
    with site.db.read() as session:
        rows = session.scalars(select(Delivery).order_by(Delivery.id))
        return [(row.destination, row.topic, row.state, row.last_status) for row in rows]
