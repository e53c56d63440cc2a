"""Retention, drift, the heartbeat, and the export that training reads."""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import event, func, select, text, update

from firstread.actions.deliveries import cancel_delivery
from firstread.actions.verdicts import acknowledge, record_verdict
from firstread.clock import utcnow
from firstread.export.deidentify import Pseudonyms
from firstread.export.studies import ExportError, export_studies
from firstread.records import (
    AuditEvent,
    Database,
    Deletion,
    Delivery,
    DriftRow,
    Flag,
    Instance,
    IntakeRefusal,
    Job,
    Process,
    Revision,
)
from firstread.settings import Settings
from firstread.storage.spool import DiskFull, Spool
from firstread.storage.store import retention_lines, retention_watermark_bytes
from firstread.upkeep.drift import LEAST_STUDIES, Histogram, compute_drift, psi
from firstread.upkeep.retention import clean, finished_studies, kept_back
from firstread.upkeep.service import RoomKeeper, beat, problems, run_upkeep
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.servers import recorder
from tests.builders.site import database_in, settings_in
from tests.builders.stored_images import SECRET_ID
from tests.builders.timing import until
from training.datasets.folders import PlainCsv
from worker.outputs.objects.files import ensure_objects

NOW = datetime(2026, 12, 25, tzinfo=UTC)


def files_of(settings: Settings) -> int:
    return len(list(settings.spool_dir.rglob("*.dcm")))


def test_rules_by_outcome_and_age(tmp_path: Path, database_url: str) -> None:
    settings = settings_in(
        tmp_path / "home", database_url=database_url, retention_days={"DONE": 30, "REJECTED": 7, "FAILED": 90}
    )
    db = database_in(settings)
    old = scored_study(db, settings, n=2, closed_at=NOW - timedelta(days=31))
    young = scored_study(db, settings, n=2, closed_at=NOW - timedelta(days=29))
    rejected = scored_study(db, settings, n=2, state="REJECTED", closed_at=NOW - timedelta(days=8))
    failed = scored_study(db, settings, n=2, state="FAILED", closed_at=NOW - timedelta(days=89))
    ensure_objects(db, settings, old.job_id)
    assert clean(db, settings, now=NOW, dry_run=True).files == 2 + 2 + 3
    assert files_of(settings) == 8
    removed = clean(db, settings, now=NOW)
    assert (removed.studies, removed.files, removed.reasons) == (2, 7, {"age": 2})
    assert files_of(settings) == 4
    assert not list(settings.objects_dir.rglob("*.dcm"))
    with db.read() as session:
        gone = set(session.scalars(select(Instance.study_id).where(Instance.deleted_at.is_not(None))))
        assert gone == {old.study_id, rejected.study_id}
        assert not gone & {young.study_id, failed.study_id}
        rows = session.scalars(select(Deletion)).all()
        assert {(r.study_id, r.what) for r in rows} == {
            (old.study_id, "images"),
            (old.study_id, "objects"),
            (rejected.study_id, "images"),
        }
        assert session.scalar(select(func.count()).select_from(AuditEvent)) == 2
        n_results = session.execute(text("SELECT COUNT(*) FROM study_result WHERE state = 'DONE'")).scalar()
        assert n_results, "rows stay"
    assert clean(db, settings, now=NOW).files == 0
    db.dispose()


@pytest.mark.parametrize("obstacle", ["open_revision", "unrouted", "waiting_job", "pending", "failed_delivery"])
def test_what_is_not_finished_stays_whatever_the_disk_says(tmp_path: Path, obstacle: str) -> None:
    settings = settings_in(tmp_path / "home", retention_days={"DONE": 0}, retention_free_mb=1)
    db = database_in(settings)
    scored = scored_study(db, settings, n=2, closed_at=NOW - timedelta(days=400))
    with db.write() as session:
        if obstacle == "open_revision":
            session.add(
                Revision(study_id=scored.study_id, number=2, state="RECEIVING", opened_at=NOW, last_seen_at=NOW)
            )
        elif obstacle == "unrouted":
            session.execute(update(Revision).values(routed_at=None))
        elif obstacle == "waiting_job":
            session.execute(update(Job).values(state="WAITING"))
        else:
            state = "PENDING" if obstacle == "pending" else "FAILED"
            session.add(
                Delivery(job_id=scored.job_id, run=1, kind="dicom", destination="pacs", state=state, created_at=NOW)
            )
    removed = clean(db, settings, now=NOW, free_bytes=lambda: 0)
    assert (removed.studies, files_of(settings)) == (0, 2)
    if obstacle == "failed_delivery":
        cancel_delivery(db, 1, by="me")
        assert clean(db, settings, now=NOW).studies == 1


def test_a_delivery_that_failed_keeps_the_files_for_a_month(tmp_path: Path, database_url: str) -> None:
    settings = settings_in(tmp_path / "home", database_url=database_url, retention_days={"DONE": 30})
    db = database_in(settings)
    scored = scored_study(db, settings, n=2, closed_at=NOW - timedelta(days=400))
    failed = {"job_id": scored.job_id, "run": 1, "kind": "dicom", "state": "FAILED", "created_at": NOW}
    with db.write() as session:
        session.add(Delivery(**failed, destination="pacs", finished_at=NOW - timedelta(days=29)))
    assert clean(db, settings, now=NOW).studies == 0
    with db.write() as session:
        session.add(Delivery(**failed, destination="archive", finished_at=NOW - timedelta(days=31)))
    assert clean(db, settings, now=NOW + timedelta(hours=23)).studies == 0
    assert clean(db, settings, now=NOW + timedelta(days=1)).studies == 1
    db.dispose()


def test_the_urgent_watermark_takes_the_oldest_until_there_is_room(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home", retention_days={"DONE": 999}, retention_free_mb=100)
    db = database_in(settings)
    studies = [scored_study(db, settings, n=1, closed_at=NOW - timedelta(days=d)) for d in (3, 9, 6)]
    flagged = scored_study(db, settings, n=1, closed_at=NOW - timedelta(days=99))
    for study in studies:
        acknowledge(db, study.study_uid, "Dr. A")
    free = iter([50, 60, 120])
    removed = clean(db, settings, now=NOW, free_bytes=lambda: next(free) * 2**20)
    assert removed.reasons == {"disk": 2}
    with db.read() as session:
        left = set(session.scalars(select(Instance.study_id).where(Instance.deleted_at.is_(None))))
    assert left == {studies[0].study_id, flagged.study_id}
    assert kept_back(db) == {"work": 0, "delivery": 0, "flag": 1}


def test_only_studies_that_may_go_are_read(tmp_path: Path, database_url: str) -> None:
    settings = settings_in(tmp_path / "home", database_url=database_url)
    db = database_in(settings)
    for state, days in (("DONE", 31), ("DONE", 29), ("REJECTED", 31), ("FAILED", 8)):
        accession = f"{state} {days}"
        scored_study(db, settings, n=1, state=state, closed_at=NOW - timedelta(days=days), accession=accession)
    due = {"DONE": NOW - timedelta(days=30), "FAILED": NOW - timedelta(days=7)}
    assert [outcome for _, outcome, _ in finished_studies(db, before=due)] == ["DONE", "FAILED"]
    assert len(list(finished_studies(db))) == 4
    with db.write() as session:
        session.execute(update(Instance).values(deleted_at=NOW))
    assert list(finished_studies(db)) == []
    db.dispose()


def test_studies_without_images_on_disk_cost_retention_nothing(tmp_path: Path) -> None:
    """The index of the images on disk leads to their studies; years of studies whose images are gone are not read."""
    db = database_in(settings_in(tmp_path / "home"))
    statements: list[tuple[str, Any]] = []
    event.listen(db.engine, "before_cursor_execute", lambda *call: statements.append((call[2], call[3])))
    assert list(finished_studies(db, before={"DONE": NOW}, no_open_flag=True)) == []
    statement, parameters = next(row for row in statements if "ix_" not in row[0] and "FROM study" in row[0])
    with db.engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)]
    assert any("ix_instance_on_disk" in step for step in plan)
    assert not any(step.startswith("SCAN study") for step in plan)


class Disk:
    """A disk of 16 GiB on which every file of the spool takes 500 MiB, and the rest of the machine 6 GiB."""

    total_mb, others_mb, file_mb = 16 * 1024, 6 * 1024, 500

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, path: object) -> Any:
        used = self.others_mb + self.file_mb * len(list(self.folder.rglob("*.dcm")))
        return shutil._ntuple_diskusage(self.total_mb * 2**20, used * 2**20, (self.total_mb - used) * 2**20)


def fed_for_days(settings: Settings, db: Database, disk: Disk, days: int = 6) -> tuple[int, list[Scored]]:
    """Feed a site a study every four hours, 3 GiB of images a day; how many were refused, and the studies."""
    spool, room, refused, studies = Spool(settings.spool_dir, settings.min_free_mb), RoomKeeper(db, settings), 0, []
    for hour in range(0, 24 * days, 4):
        at = NOW + timedelta(hours=hour)
        try:
            spool.check_space(disk.file_mb * 2**20)
        except DiskFull:
            refused += 1
            continue
        study = scored_study(db, settings, n=1, closed_at=at, accession=f"A{hour}", probability=0.9 - hour / 1e4)
        studies.append(study)
        if hour not in (4, 40):  # two flags that nobody looks at
            acknowledge(db, study.study_uid, "Dr. A")
        if hour == 8:
            row = Delivery(job_id=study.job_id, run=1, kind="dicom", destination="pacs", state="PENDING", created_at=at)
            with db.write() as session:
                session.add(row)
        room.look()
    return refused, studies


def test_a_small_disk_fed_for_days_never_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the settings as they come; and with the retention off the same disk is full within two days."""
    plain = Settings(home=tmp_path / "home")
    assert plain.retention_free_mb > plain.min_free_mb > 0
    disk = Disk(plain.spool_dir)
    monkeypatch.setattr(shutil, "disk_usage", disk)
    db = database_in(plain)
    refused, studies = fed_for_days(plain, db, disk)
    assert (refused, len(studies)) == (0, 36)
    with db.read() as session:
        left = [row.study_id for row in session.scalars(select(Instance).where(Instance.deleted_at.is_(None)))]
        gone = session.scalar(select(func.count()).select_from(Instance).where(Instance.deleted_at.is_not(None)))
        rows = session.execute(text("SELECT COUNT(DISTINCT study_instance_uid) FROM study_result")).scalar()
    waiting = [studies[1].study_id, studies[2].study_id, studies[10].study_id]
    newest = [s.study_id for s in studies[-(len(left) - 3) :]]
    assert sorted(left) == sorted(waiting + newest), "the oldest finished go, and none that waits for somebody"
    assert gone and rows == 36
    assert len(list(plain.evidence_dir.rglob("*.png"))) == 36, "evidence stays"

    off = Settings(home=tmp_path / "off", retention_free_mb=0)
    disk.folder = off.spool_dir
    assert fed_for_days(off, database_in(off), disk, days=5)[0] > 0


@pytest.mark.parametrize(
    ("values", "total_mb", "expected_mb"),
    [
        ({}, 500_000, 4096),
        ({"retention_free_mb": 0}, 500_000, 0),
        ({"min_free_mb": 10_000}, 500_000, 20_000),
        ({}, 3000, 2012),
        ({"min_free_mb": 0}, 5000, 2500),
        ({"store_url": "s3://bucket/x"}, 500_000, 0),
    ],
)
def test_room_is_made_before_anything_is_refused(
    tmp_path: Path, values: dict[str, Any], total_mb: int, expected_mb: int
) -> None:
    settings = Settings(home=tmp_path, **values)
    assert retention_watermark_bytes(settings, total_mb * 2**20) == expected_mb * 2**20


def test_up_says_what_becomes_of_images(tmp_path: Path) -> None:
    lines = {mb: " ".join(retention_lines(Settings(home=tmp_path, retention_free_mb=mb))) for mb in (4096, 0)}
    assert "images of finished studies go, the oldest first" in lines[4096]
    assert "FIRSTREAD_RETENTION_FREE_MB=0" in lines[4096]
    assert "under 1024 MiB free new ones are refused" in lines[0]


def test_what_keeps_images_on_a_full_disk_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_in(tmp_path / "home", retention_free_mb=2**40)
    db = database_in(settings)
    scored_study(db, settings, n=1)
    clock = iter([100.0, 101.0, 120.0, 161.0, 162.0])
    room = RoomKeeper(db, settings, lambda: next(clock))
    room.look()
    assert "work 0, delivery 0, flag 1" in caplog.text
    caplog.clear()
    room.look()
    assert caplog.text == "", "not every two seconds"


def test_a_crash_between_file_and_row_is_made_good(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home", retention_days={"DONE": 1})
    db = database_in(settings)
    scored_study(db, settings, n=3, closed_at=NOW - timedelta(days=9))
    next(settings.spool_dir.rglob("*.dcm")).unlink()
    assert clean(db, settings, now=NOW).files == 3
    assert files_of(settings) == 0


def test_evidence_has_a_rule_of_its_own(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home", retention_days={"evidence": 10})
    db = database_in(settings)
    waiting = scored_study(db, settings, n=1, closed_at=NOW - timedelta(days=20))
    seen = scored_study(db, settings, n=1, closed_at=NOW - timedelta(days=21))
    acknowledge(db, seen.study_uid, "Dr. A")
    assert clean(db, settings, now=NOW).evidence == 1
    with db.read() as session:
        paths = {row.study_id: row.evidence_path for row in session.execute(select(Flag.study_id, Flag.evidence_path))}
        assert paths[seen.study_id] is None
        assert paths[waiting.study_id] is not None
    assert len(list(settings.evidence_dir.rglob("*.png"))) == 1
    assert files_of(settings) == 2


def write_card(settings: Settings, baseline: dict[str, Any]) -> None:
    folder = settings.models_dir / "bleed_net" / "1.0"
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "name": "bleed_net",
        "version": "1.0",
        "pipeline": "head_ct",
        "baseline": baseline,
        "input": {"kind": "hu", "windows": [[0, 80]]},
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")


def test_what_was_refused_has_a_rule_of_its_own(tmp_path: Path, database_url: str) -> None:
    settings = settings_in(tmp_path / "home", database_url=database_url, retention_days={"refused": 30})
    db = database_in(settings)
    files = {
        "old": settings.home / "refused" / "20261101" / "10" / "a.dcm",
        "young": settings.home / "refused" / "20261201" / "10" / "b.dcm",
        "dropped": settings.inbox_dir / "rejected" / "head_ct" / "x" / "c.jpg",
        "outside": tmp_path / "elsewhere" / "d.dcm",
    }
    days = {"old": 31, "young": 29, "dropped": 40, "outside": 40}
    with db.write() as session:
        for name, path in files.items():
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x" * 10)
            at = NOW - timedelta(days=days[name])
            session.add(IntakeRefusal(received_at=at, source="dicom", reason="no_uids", kept_path=str(path)))
        session.add(IntakeRefusal(received_at=NOW - timedelta(days=99), source="dicom", reason="disk_full"))
    explanation = files["dropped"].with_name("c.jpg.txt")
    explanation.write_text("reason: corrupt")
    cleaned = clean(db, settings, now=NOW, dry_run=True)
    assert (cleaned.refused, cleaned.size_bytes, all(path.is_file() for path in files.values())) == (2, 20, True)
    cleaned = clean(db, settings, now=NOW)
    assert (cleaned.refused, cleaned.size_bytes, cleaned.studies) == (2, 20, 0)
    assert [name for name, path in files.items() if path.is_file()] == ["young", "outside"]
    assert not explanation.exists() and not (settings.inbox_dir / "rejected" / "head_ct").exists()
    assert (settings.inbox_dir / "rejected").is_dir()
    with db.read() as session:
        paths = set(session.scalars(text("SELECT kept_path FROM intake_refusal")))
        assert paths == {str(files["young"]), str(files["outside"]), None}
        events = session.execute(select(AuditEvent.action, AuditEvent.subject, AuditEvent.detail)).all()
    assert [tuple(e) for e in events] == [
        ("retention.delete", "refused", {"reason": "age", "files": 2, "size_bytes": 20})
    ]
    assert clean(db, settings, now=NOW).refused == 0
    db.dispose()


def test_drift_by_modality_and_scanner(tmp_path: Path, database_url: str) -> None:
    settings = settings_in(tmp_path / "home", database_url=database_url, models_dir=tmp_path / "models")
    tenths = [round(0.1 * i, 1) for i in range(11)]
    write_card(
        settings,
        {
            "score": {"edges": tenths, "counts": [50, 20, 10, 5, 5, 5, 5, 5, 20, 30]},
            "intensity": {"edges": tenths, "counts": [0, 0, 0, 100, 5, 0, 0, 0, 0, 0]},
            "broken": {"edges": [1, 1], "counts": [3]},
        },
    )
    db = database_in(settings)
    rng = np.random.default_rng(0)
    day = datetime(2026, 11, 20, 10, tzinfo=UTC)
    for number in range(LEAST_STUDIES):
        p = float(rng.choice([0.05, 0.15, 0.95, 0.85], p=[0.5, 0.1, 0.2, 0.2]))
        scored_study(db, settings, n=1, probability=p, accession=f"a{number}", closed_at=day)
        scored_study(db, settings, n=1, probability=0.97, station="CT9", accession=f"b{number}", closed_at=day)
    scored_study(db, settings, n=1, station="rare", accession="c", closed_at=day)
    drifts = {(r.scanner, r.quantity): r for r in compute_drift(db, settings, day.date())}
    assert set(drifts) == {(s, q) for s in ("*", "CT1", "CT9") for q in ("score", "intensity")}
    assert drifts["CT9", "score"].psi > 0.5 > drifts["CT1", "score"].psi
    assert drifts["CT1", "intensity"].psi < 0.25, "30 HU in a window of 80 is where the card says"
    assert drifts["*", "score"].n == 2 * LEAST_STUDIES + 1
    compute_drift(db, settings, day.date())
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(DriftRow)) == 6
        assert len(session.execute(text("SELECT * FROM drift")).all()) == 6
    assert compute_drift(db, settings, day.date() - timedelta(days=1)) == []
    db.dispose()


def test_psi_against_the_formula() -> None:
    assert psi([10, 10], [10, 10]) == pytest.approx(0.0)
    p, q = np.array([10.5, 90.5]) / 101, np.array([90.5, 10.5]) / 101
    assert psi([10, 90], [90, 10]) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    histogram = Histogram.of([1.0, 1.0, 1.0])
    assert histogram.count([0.0, 1.0, 5.0]) == (3.0,)


def alive(db: Database, age_s: float = 0.0) -> None:
    at = utcnow() - timedelta(seconds=age_s)
    with db.write() as session:
        session.merge(Process(id="w", kind="worker", host="h", pid=1, started_at=at, heartbeat_at=at))
        session.merge(Process(id="l", kind="listener", host="h", pid=2, started_at=at, heartbeat_at=at))


def test_the_heartbeat_is_silent_when_something_is_wrong(tmp_path: Path) -> None:
    with recorder([200, 500]) as server:
        settings = settings_in(tmp_path / "home", heartbeat_url=server.url)
        db = database_in(settings)
        settings.spool_dir.mkdir(parents=True, exist_ok=True)
        assert problems(db, settings) == ["listener_silent", "worker_silent"]
        assert not beat(db, settings)
        assert server.requests == []
        alive(db)
        assert beat(db, settings)
        assert json.loads(server.requests[0][2]) == {"status": "ok"}
        assert not beat(db, settings), "an answer other than 2xx is no delivery"
        alive(db, age_s=120)
        assert not beat(db, settings)
        assert len(server.requests) == 2
        assert str(settings.printable()["heartbeat_url"]) == "***"


def test_upkeep_runs_everything_and_ends_when_asked(tmp_path: Path) -> None:
    with recorder() as server:
        settings = settings_in(tmp_path / "home", heartbeat_url=server.url, heartbeat_s=0.5, retention_days={"DONE": 0})
        db = database_in(settings)
        scored_study(db, settings, n=1)
        alive(db)
        stop = threading.Event()
        thread = threading.Thread(target=run_upkeep, args=(settings, stop), daemon=True)
        thread.start()
        try:
            until(lambda: files_of(settings) == 0 and server.requests, 20)
        finally:
            stop.set()
            thread.join(timeout=10)
        assert not thread.is_alive()


IDENTIFYING = (SECRET_ID, "Nachtigall", "Storch", "Klinik", "A-100", "19500102", "20261120", "CT1")


def test_the_export_is_what_training_reads(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)

    def private(ds: Dataset) -> None:
        block = ds.private_block(0x0019, "SECRETS", create=True)
        block.add_new(1, "LO", SECRET_ID)
        ds.ImageComments = "Nachtigall"
        ds.PatientAge = "095Y"

    agreed = scored_study(db, settings, change=private)
    alarm = scored_study(db, settings, probability=0.8, accession="F")
    scored_study(db, settings, probability=0.7, accession="unjudged")
    film = scored_study(db, settings, pipeline="chest_xray", n=1)
    record_verdict(db, agreed.study_uid, "head_ct", agree=True)
    record_verdict(db, alarm.study_uid, "head_ct", agree=False)
    record_verdict(db, film.study_uid, "chest_xray", agree=True)
    out = tmp_path / "out"
    export = export_studies(db, settings, out, key_file=tmp_path / "key")
    assert (export.studies, export.images, export.left_out) == (3, 9, {})
    for path in (p for p in out.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for word in (*IDENTIFYING, agreed.study_uid):
            assert word.encode() not in content, (path.name, word)
    items = PlainCsv(out / "head_ct").items()
    assert len(items) == 8
    by_study: dict[str, list[dict[str, float]]] = {}
    for item in items:
        by_study.setdefault(item.study, []).append(dict(item.labels))
    counted = sorted(sum(labels.get("any", 9) for labels in rows) for rows in by_study.values())
    assert counted == [0.0, 28.0], "a false alarm teaches with every slice, a true one with the slice that was seen"
    assert [item.order for item in items[:4]] == sorted(item.order for item in items[:4])
    hu = PlainCsv(out / "head_ct").pixels(items[0])
    assert hu.shape == (64, 64)
    first = dcmread(next((out / "head_ct").rglob("*.dcm")))
    assert first.PatientAge in {"090Y", "076Y"}
    assert first.PatientIdentityRemoved == "YES"
    assert hu.max() < 0
    film_item = PlainCsv(out / "chest_xray", kind="grey").items()[0]
    assert film_item.labels["pneumonia"] == 1.0
    with (out / "head_ct" / "studies.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] == "any"]
    assert sorted((row["truth"], row["agree"], row["flagged"]) for row in rows) == [("0", "0", "1"), ("1", "1", "1")]
    assert re.fullmatch(r"p-[0-9a-f]{12}", rows[0]["patient"])
    again = tmp_path / "again"
    export_studies(db, settings, again, key_file=tmp_path / "key")
    assert (again / "head_ct" / "labels.csv").read_bytes() == (out / "head_ct" / "labels.csv").read_bytes()
    other = tmp_path / "other"
    export_studies(db, settings, other)
    assert (other / "head_ct" / "labels.csv").read_bytes() != (out / "head_ct" / "labels.csv").read_bytes()
    with pytest.raises(ExportError, match="not empty"):
        export_studies(db, settings, out)
    with db.read() as session:
        assert session.scalar(select(func.count()).where(AuditEvent.action == "export")) == 3


def test_what_cannot_be_exported_is_counted_by_reason(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)

    def burned_in(ds: Dataset) -> None:
        ds.BurnedInAnnotation = "YES"

    scored_study(db, settings, n=2, change=burned_in)
    gone = scored_study(db, settings, n=1, accession="gone")
    with db.read() as session:
        key = session.scalars(select(Instance.spool_key).where(Instance.study_id == gone.study_id)).one()
    (settings.spool_dir / key).unlink()
    export = export_studies(db, settings, tmp_path / "out", judged_only=False, pipelines=["head_ct"])
    assert (export.studies, export.images) == (0, 0)
    assert export.left_out == {"burned_in_annotation": 2, "deleted": 1}


def test_pseudonyms_need_a_real_key() -> None:
    with pytest.raises(ValueError, match="32"):
        Pseudonyms(b"short")
    names = Pseudonyms(bytes(32))
    assert names.name("patient", "x") != Pseudonyms(bytes([1]) * 32).name("patient", "x")
    assert len(names.uid("1.2.3")) <= 64
