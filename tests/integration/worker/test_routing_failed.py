"""A study that cannot be read to be routed is a FAILED job: seen, reported and tried again as every other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, text

from firstread.actions.retry import retry_study
from firstread.dicom.uids import stable_uid
from firstread.records import Database, Delivery, Job, Revision
from firstread.settings import Settings
from tests.builders.closed_revisions import job_of, put_probe
from tests.builders.probe_worker import ROW
from tests.builders.scoring import claimer_of
from tests.builders.servers import recorder
from worker.outputs.deliveries.lanes import work_one
from worker.outputs.destinations.file import read_file
from worker.pipelines import registry
from worker.pipelines.registry import Orders, PipelineRow
from worker.routing.jobs import guess_pipelines
from worker.scoring.claims import Claimer

UID = stable_uid("probe", "s")


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (ROW,))
    monkeypatch.setenv("HOOK_SECRET", "a shared secret")


@pytest.fixture
def settings(make_settings: Callable[..., Settings], db: Database) -> Settings:
    return make_settings(database_url=db.url, broker_url="redis://127.0.0.1:9/0")


def move_spool(settings: Settings, source: str, target: str) -> None:
    """Take the images away, or bring them back."""
    (settings.home / source).rename(settings.home / target)


def route(db: Database, settings: Settings) -> Claimer:
    """Ask for work until routing has given up or a job is claimed."""
    claimer = claimer_of(db, settings)
    for _ in range(settings.max_attempts):
        claimer.next()
        claimer.router._blocked_until.clear()
    return claimer


def failures() -> float:
    return REGISTRY.get_sample_value("firstread_jobs_total", {"pipeline": "probe", "outcome": "FAILED"}) or 0.0


def test_it_is_a_failed_job_until_it_can_be_read(db: Database, settings: Settings) -> None:
    revision_id = put_probe(db, settings, "s")
    before = failures()
    move_spool(settings, "spool", "away")
    route(db, settings)
    job = job_of(db, revision_id)
    assert job is not None
    assert (job.state, job.reason, job.run) == ("FAILED", "routing_failed", 0)
    assert job.detail is None and job.error is not None and job.error.startswith("FilesMissing at ")
    assert job.finished_at is not None and failures() == before + 1
    with db.read() as session:
        assert session.get_one(Revision, revision_id).reason == "routing_failed"
        row = session.execute(text("SELECT state, reason, pipeline FROM study_result")).one()
    assert tuple(row) == ("FAILED", "routing_failed", "probe")

    assert retry_study(db, settings, UID, None, "alice") == ["routing"]
    route(db, settings)
    assert [failed.id for failed in [job_of(db, revision_id)] if failed] == [job.id], "one job a pipeline"

    move_spool(settings, "away", "spool")
    assert retry_study(db, settings, UID, "probe", "alice") == ["routing"]
    route(db, settings)
    claimed = job_of(db, revision_id)
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.attempts, claimed.error) == (job.id, "SCORING", 1, None)
    with db.read() as session:
        assert session.get_one(Revision, revision_id).reason is None


def test_a_pipeline_that_does_not_want_it_after_all_is_rejected(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision_id = put_probe(db, settings, "s")
    move_spool(settings, "spool", "away")
    route(db, settings)
    move_spool(settings, "away", "spool")
    monkeypatch.setattr(PipelineRow, "wants", lambda *_: False)
    assert retry_study(db, settings, UID, None, "alice") == ["routing"]
    route(db, settings)
    job = job_of(db, revision_id)
    assert job is not None and (job.state, job.reason) == ("REJECTED", "no_pipeline")


def test_it_is_sent_once(sqlite_db: Database, make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with recorder() as server:
        file = tmp_path / "destinations.toml"
        file.write_text(
            f'[[destination]]\nkind = "webhook"\nname = "flags"\nurl = "{server.url}/flags"\n'
            'secret = { env = "HOOK_SECRET" }\nwhen = { flagged = true }\n',
            encoding="utf-8",
        )
        settings = make_settings(
            database_url=sqlite_db.url, destinations=file, broker_url="redis://127.0.0.1:9/0", max_attempts=2
        )
        put_probe(sqlite_db, settings, "s")
        move_spool(settings, "spool", "away")
        route(sqlite_db, settings)
        (destination,) = read_file(settings).destination
        while work_one(sqlite_db, settings, destination):
            pass
        retry_study(sqlite_db, settings, UID, None, "alice")
        route(sqlite_db, settings)
        with sqlite_db.read() as session:
            assert [row.state for row in session.scalars(select(Delivery))] == ["DELIVERED"]
            assert session.scalars(select(Job.state)).all() == ["FAILED"]
        ((_, _, body),) = server.requests
        message = json.loads(body)
        assert (message["event"], message["state"], message["reason"]) == ("not_read", "FAILED", "routing_failed")


@pytest.mark.parametrize(
    ("modalities", "orders", "names"),
    [
        ({"CT"}, Orders(), ["head_ct"]),
        ({"CT", "SR"}, Orders(), ["head_ct"]),
        ({"MR"}, Orders(), []),
        (set(), Orders(), []),
        ({"DX", "XC"}, Orders(), ["chest_xray", "dermoscopy"]),
        ({"CT"}, Orders(folder="dermoscopy"), ["dermoscopy"]),
        ({"CT"}, Orders(folder="palmistry"), []),
        ({"ES"}, Orders(sender=frozenset({"dermoscopy"})), ["dermoscopy"]),
        ({"CT"}, Orders(sender=frozenset({"dermoscopy"})), ["head_ct"]),
        ({"OT"}, Orders(), ["chest_xray", "dermoscopy"]),
    ],
)
def test_pipelines_are_guessed_as_they_would_be_asked(
    modalities: set[str], orders: Orders, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert guess_pipelines(modalities, orders) == names
