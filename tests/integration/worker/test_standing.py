"""Later revisions of a study whose earlier result stands, on both engines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, JPEGLSNearLossless
from sqlalchemy import select, text

from firstread.actions.retry import end_waiting, retry_study
from firstread.clock import utcnow
from firstread.dicom.uids import stable_uid
from firstread.metrics.state import _families, read_database
from firstread.records import Database, Delivery, Job, Revision, Transition
from firstread.settings import Settings
from firstread.states import JobState
from firstread.upkeep.retention import finished_studies
from firstread_cli.study import study as study_command
from tests.builders.deliveries import deliver_all, ris
from tests.builders.hl7_receiver import fields_of, hl7_receiver
from tests.builders.routed_study import (
    UID,
    Site,
    corrected,
    deliveries,
    dose_report,
    encoded,
    flagged_with_mask,
    slices,
)
from worker.outputs.deliveries.attempt import Skipped, attempt
from worker.outputs.destinations.watch import watch_of
from worker.outputs.objects.files import ensure_objects
from worker.pipelines.base import Evidence, Finding, Outcome
from worker.process.sweeper import find_due
from worker.routing.earlier_results import RoutingDecision
from worker.routing.jobs import Overtaken, commit_routing
from worker.scoring.results import Report, commit_failure, commit_outcome


@pytest.fixture
def settings(make_settings: Callable[..., Settings], db: Database) -> Settings:
    settings = make_settings(database_url=db.url, max_attempts=1)
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "destinations.toml").write_text(
        '[[destination]]\nname = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = 9\ncalled_ae = "PACS"\n',
        encoding="utf-8",
    )
    return settings


@pytest.fixture
def site(db: Database, settings: Settings) -> Site:
    return Site(db, settings)


def test_a_late_dose_report_makes_no_job_and_sends_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    images = slices()
    site.put(*images)
    site.score(0.9, flagged=True)
    site.put(*images, dose_report())
    assert site.claim() is None
    assert site.jobs() == [(1, "DONE")]
    assert site.standing() == [(2, "unchanged")]
    with site.db.read() as session:
        assert len(session.scalars(select(Delivery)).all()) == 1
        families = _families()
        read_database(session, families)
    states = {s.labels["outcome"]: s.value for s in families["firstread_state_studies"].samples}
    assert (states["DONE"], states["REJECTED"], states["WAITING"]) == (1, 0, 0)
    assert families["firstread_waiting_age_seconds"].samples[0].value == 0
    (row,) = site.view("study_result")
    assert (row["revision"], row["state"], row["probability"], row["flagged"]) == (1, "DONE", 0.9, True)
    later = [r for r in site.view("study_result_history") if r["revision"] == 2]
    assert [(r["state"], r["reason"], r["pipeline"], r["finding"]) for r in later] == [
        ("DONE", "unchanged", "head_ct", None)
    ]
    assert find_due(site.db, utcnow())[0] == []
    monkeypatch.setenv("FIRSTREAD_HOME", str(site.settings.home))
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", site.db.url)
    output = CliRunner().invoke(study_command, [UID]).output
    assert "head_ct: unchanged, the result of revision 1 stands (DONE)" in output


def test_the_same_images_in_another_syntax_are_unchanged_and_lossy_ones_are_not(site: Site) -> None:
    images = slices()
    site.put(*images)
    site.score()
    site.put(*encoded(images, JPEGLSLossless))
    site.put(*encoded(images, JPEGLSLossless), dose_report())
    assert site.claim() is None
    assert site.standing() == [(2, "unchanged"), (3, "unchanged")]
    site.put(*encoded(images, JPEGLSNearLossless, jls_error=3))
    site.score(0.3)
    assert site.jobs() == [(1, "DONE"), (4, "DONE")]


def test_slices_that_cannot_be_read_are_no_late_report(site: Site) -> None:
    """A negative does not stand where images have come that could not be read."""
    images = slices()
    site.put(*images[:-2])
    site.score()
    for ds in images[-2:]:
        del ds.Rows, ds.Columns, ds.PixelData
    site.put(*images)
    assert site.claim() is not None
    assert site.standing() == []


def test_one_more_series_of_slices_is_scored(site: Site) -> None:
    images = slices()
    site.put(*images)
    site.score()
    site.put(*images, *slices(9, "bone", ConvolutionKernel="H60s"))
    site.score()
    assert site.jobs() == [(1, "DONE"), (2, "DONE")]
    assert site.standing() == []


def test_what_waits_stands_too_and_what_failed_does_not(site: Site) -> None:
    images = slices()
    site.put(*images)
    site.put(*images, dose_report())
    claim = site.claim()
    assert claim is not None and claim.number == 1
    assert site.claim() is None
    assert site.standing() == [(2, "unchanged")]
    commit_failure(site.db, job_id=claim.job_id, owner="w1", reason="e", error="", settings=site.settings)
    late = dose_report()
    late.SOPInstanceUID = stable_uid(UID, "dose", 2)
    site.put(*images, late)
    again = site.claim()
    assert again is not None
    assert site.jobs() == [(1, "FAILED"), (3, "SCORING")]


def test_a_rejected_study_stays_rejected_without_a_second_job(site: Site) -> None:
    images = slices(3)
    site.put(*images)
    claim = site.claim()
    assert claim is not None
    commit_outcome(
        site.db,
        site.settings,
        job_id=claim.job_id,
        owner="w1",
        report=Report(reasons=("too_few_slices",)),
        evidence_path=None,
    )
    site.put(*images, dose_report())
    assert site.claim() is None
    assert site.jobs() == [(1, "REJECTED")]
    assert site.standing() == [(2, "unchanged")]


def test_an_order_by_hand_and_a_second_patient_are_news(site: Site) -> None:
    images = slices()
    site.put(*images)
    site.score()
    site.put(*images, forced_pipeline="head_ct")
    site.score()
    strange = dose_report()
    strange.PatientID = "SOMEBODY-ELSE"
    revision = site.put(*images, strange, forced_pipeline="head_ct")
    with site.db.write() as session:
        session.get_one(Revision, revision).warnings = ["patient_mismatch"]
    site.score()
    assert site.jobs() == [(1, "DONE"), (2, "DONE"), (3, "DONE")]
    assert "patient_mismatch" in site.view("study_result")[0]["warnings"]


def test_retry_and_give_up_reach_the_job_that_stands(site: Site) -> None:
    images = slices()
    site.put(*images)
    site.score()
    site.put(*images, dose_report())
    assert site.claim() is None
    assert retry_study(site.db, site.settings, UID, None, "tester") == ["head_ct"]
    site.score(0.7, version="2")
    assert site.view("study_result")[0]["model_version"] == "2"
    assert site.jobs() == [(1, "DONE")]
    retry_study(site.db, site.settings, UID, "head_ct", "tester")
    assert end_waiting(site.db, UID, None, "tester") == ["head_ct"]


def test_a_study_with_a_standing_result_is_finished(site: Site) -> None:
    images = slices()
    site.put(*images)
    site.score()
    site.put(*images, dose_report())
    site.claim()
    with site.db.write() as session:
        session.execute(text("UPDATE delivery SET state = 'DELIVERED'"))
    assert [(outcome) for _, outcome, _ in finished_studies(site.db)] == ["DONE"]


def test_work_that_came_meanwhile_is_looked_at_again(site: Site) -> None:
    """Two revisions of a study routed at once: the second to commit decides anew."""
    images = slices()
    first, second = site.put(*images), site.put(*images, dose_report())
    stale = RoutingDecision()
    commit_routing(
        site.db, first, ["head_ct"], None, serving=["head_ct"], actor="w2", settings=site.settings, decision=stale
    )
    with pytest.raises(Overtaken):
        commit_routing(
            site.db, second, ["head_ct"], None, serving=["head_ct"], actor="w1", settings=site.settings, decision=stale
        )
    site.score()
    assert site.claim() is None
    assert site.jobs() == [(1, JobState.DONE)]
    assert site.standing() == [(2, "unchanged")]


def objects_of(site: Site, revision: int) -> dict[str, Dataset]:
    """The objects of a revision's job, made now."""
    with site.db.read() as session:
        job_id = session.scalar(select(Job.id).join(Revision).where(Revision.number == revision))
    assert job_id is not None
    objects = ensure_objects(site.db, site.settings, job_id)
    assert [row.reason for row in objects] == [None, None, None]
    return {row.kind: dcmread(site.settings.objects_dir / str(row.path)) for row in objects}


def test_a_corrected_patient_is_not_scored_again_and_is_sent_under_the_new_name(site: Site) -> None:
    images = flagged_with_mask(site)
    before = objects_of(site, 1)
    site.put(*corrected(images), dose_report())
    assert site.claim() is None
    assert site.jobs() == [(1, "DONE"), (2, "DONE")]
    (row,) = [r for r in site.view("study_result") if r["finding"] == "any"]
    assert (row["revision"], row["patient_id"], row["accession_number"]) == (2, "RIGHT-1", "A-200")
    assert (row["probability"], row["flagged"]) == (0.9, True)
    assert "identity_corrected" in row["warnings"]
    (flag,) = site.view("hemorrhage_flag")
    assert (flag["revision"], flag["patient_id"], flag["acknowledged_at"]) == (2, "RIGHT-1", None)
    assert "identity_corrected" in flag["warnings"]
    assert [r["revision"] for r in site.view("slice_score")] == [2] * 10
    assert deliveries(site) == [(1, "SKIPPED", "identity_corrected"), (2, "PENDING", None)]
    after = objects_of(site, 2)
    for kind, ds in after.items():
        assert (ds.PatientID, ds.AccessionNumber) == ("RIGHT-1", "A-200"), kind
        assert ds.SOPInstanceUID != before[kind].SOPInstanceUID
    (study,) = after["sr"].PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (UID, before["sr"].SeriesInstanceUID)
    assert [s.ReferencedSOPInstanceUID for s in series.ReferencedSOPSequence] == [before["sr"].SOPInstanceUID]
    assert "PredecessorDocumentsSequence" not in before["sr"]
    assert np.array_equal(after["seg"].pixel_array, before["seg"].pixel_array)
    with site.db.read() as session:
        moves = session.scalars(select(Transition.to_state).where(Transition.subject == "job").order_by(Transition.id))
        assert list(moves) == ["WAITING", "SCORING", "DONE", "DONE"], "nothing was scored again"


def test_a_ris_is_told_under_the_corrected_name(site: Site) -> None:
    with hl7_receiver() as receiver:
        (site.settings.home / "destinations.toml").write_text(ris(receiver.port), encoding="utf-8")
        images = flagged_with_mask(site)
        site.put(*corrected(images), dose_report())
        assert site.claim() is None
        assert deliveries(site) == [(1, "SKIPPED", "identity_corrected"), (2, "PENDING", None)]
        deliver_all(site.db, site.settings)
        assert deliveries(site)[1] == (2, "DELIVERED", "AA")
        (message,) = receiver.messages
    assert fields_of(message, "PID")[0][3].startswith("RIGHT-1^")
    assert fields_of(message, "OBR")[0][3] == "A-200"
    assert receiver.faults == []


def test_one_and_the_same_correction_twice_is_carried_once(site: Site) -> None:
    images = flagged_with_mask(site)
    site.put(*corrected(images))
    site.put(*corrected(images), dose_report())
    site.put(*encoded(corrected(images), JPEGLSLossless), dose_report())
    assert site.claim() is None
    assert site.jobs() == [(1, "DONE"), (2, "DONE")]
    assert site.standing() == [(3, "unchanged"), (4, "unchanged")]


def test_a_correction_of_a_part_corrects_nothing_and_warns(site: Site) -> None:
    images = flagged_with_mask(site)
    site.put(*images[:6], *corrected(images[6:]))
    site.score(0.9, flagged=True)
    (row,) = [r for r in site.view("study_result") if r["finding"] == "any"]
    assert (row["revision"], row["patient_id"], row["accession_number"]) == (2, "MRN-7771234", "A-100")
    assert "patient_mismatch" in row["warnings"] and "identity_corrected" not in row["warnings"]
    site.put(*corrected(images))  # and then the rest
    assert site.claim() is None
    (row,) = [r for r in site.view("study_result") if r["finding"] == "any"]
    assert (row["revision"], row["patient_id"]) == (3, "RIGHT-1")
    assert "identity_corrected" in row["warnings"] and "patient_mismatch" not in row["warnings"]


def test_a_correction_while_the_study_waits_is_scored_under_the_new_name_alone(site: Site) -> None:
    images = slices()
    site.put(*images)
    first = site.claim()
    assert first is not None
    site.put(*corrected(images))
    site.score(0.3)
    outcome = Outcome(
        findings=[Finding("any", "bleed", "1", probability=0.3, threshold=0.5)],
        evidence=Evidence(),
        SeriesInstanceUID=stable_uid(UID, "plain"),
    )
    commit_outcome(
        site.db, site.settings, job_id=first.job_id, owner="w1", report=Report(outcome=outcome), evidence_path=None
    )
    assert site.jobs() == [(1, "DONE"), (2, "DONE")]
    with site.db.read() as session:
        late = session.scalars(select(Delivery).where(Delivery.job_id == first.job_id)).one()
    destination = watch_of(site.settings).current().named("pacs")
    assert destination is not None
    with pytest.raises(Skipped, match="identity_corrected"):
        attempt(site.db, site.settings, destination, late)
    assert site.view("study_result")[0]["patient_id"] == "RIGHT-1"


@pytest.mark.parametrize("keyword", ["PatientName", "PatientBirthDate", "PatientSex"])
def test_every_part_of_an_identity_counts(site: Site, keyword: str) -> None:
    images = flagged_with_mask(site)
    value = {"PatientName": "Other^Person", "PatientBirthDate": "19600606", "PatientSex": "M"}[keyword]
    site.put(*corrected(images, **{keyword: value}))
    assert site.claim() is None
    assert str(objects_of(site, 2)["sr"][keyword].value) == value


def test_a_rejected_study_is_corrected_too(site: Site) -> None:
    images = slices(3)
    site.put(*images)
    claim = site.claim()
    assert claim is not None
    commit_outcome(
        site.db,
        site.settings,
        job_id=claim.job_id,
        owner="w1",
        report=Report(reasons=("too_few_slices",)),
        evidence_path=None,
    )
    site.put(*corrected(images))
    assert site.claim() is None
    (row,) = site.view("study_result")
    assert (row["revision"], row["state"]) == (2, "REJECTED")
    assert (row["reason"], row["patient_id"]) == ("too_few_slices", "RIGHT-1")
