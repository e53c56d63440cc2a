"""Result objects that come back, of this installation or of another, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from sqlalchemy import text

from dicom_listener.intake.part10 import IntakeNote
from dicom_listener.studies.reconcile import arrival_of
from firstread.clock import utcnow
from firstread.dicom.datasets import opened
from firstread.dicom.network import IMPLEMENTATION_CLASS_UID
from firstread.records import Database, Instance, OutputObject
from firstread.records.migrate import downgrade, upgrade
from firstread.settings import Settings
from firstread.upkeep.retention import clean
from tests.builders.door import Door
from tests.builders.listening import closed, outcomes, rows, small_series
from tests.builders.scored_studies import Scored, scored_study
from worker.outputs.objects.files import ensure_objects

MakeSettings = Callable[..., Settings]


@pytest.fixture
def door(db: Database, make_settings: MakeSettings) -> Door:
    settings = make_settings(database_url=db.url, grace_s=2.0, quiet_s=60.0, priority_by_calling_ae={"PACS": 0})
    return Door(db, settings)


def results_of(db: Database, settings: Settings, **values: Any) -> tuple[Scored, list[Path]]:
    """A scored study, and the files of the objects that it made."""
    scored = scored_study(db, settings, **values)
    objects = ensure_objects(db, settings, scored.job_id)
    files = [settings.objects_dir / str(row.path) for row in objects if row.path]
    assert len(files) == 3
    return scored, files


def foreign(door: Door, tmp_path: Path) -> list[Dataset]:
    """SR, SEG and SC that another installation made of the study of :func:`small_series`."""
    settings = Settings(home=tmp_path / "elsewhere", min_free_mb=0)
    other = Database(settings.database_url)
    upgrade(other)
    _, files = results_of(other, settings, study_uid=small_series(1)[0].StudyInstanceUID)
    other.dispose()
    return [dcmread(file) for file in files]


def test_our_own_objects_open_nothing_however_often_they_come(door: Door) -> None:
    scored, files = results_of(door.db, door.settings)
    objects = [dcmread(file) for file in files]
    objects[0].Manufacturer = "A PACS that writes its own name"  # the UID is known all the same
    objects[2].PatientID = "CORRECTED"
    for _ in range(3):
        delivery = door.open(20, calling_ae="PACS")
        door.bring(objects, delivery, ago_s=15)
        door.end(delivery, ago_s=10)
        assert door.close() == []
    assert outcomes(door.db) == {"stored": 4, "own": 9}
    assert rows(door.db, "SELECT number FROM revision") == [(1,)]
    assert rows(door.db, "SELECT count(*) FROM association_study") == [(0,)]
    assert rows(door.db, "SELECT count(*) FROM instance WHERE own") == [(3,)]
    assert rows(door.db, "SELECT DISTINCT state FROM study_result") == [("DONE",)]
    late = small_series(1, seed=5)
    late[0].StudyInstanceUID = scored.study_uid
    door.bring(late, None, ago_s=90)
    assert door.close() == ["quiet"]
    assert [row[1:5] for row in closed(door.db)][-1][:3] == (2, "quiet", 5), "four images and the late one"


def test_objects_of_another_installation_are_not_images(door: Door, tmp_path: Path) -> None:
    objects = foreign(door, tmp_path)
    pacs = door.open(40, calling_ae="PACS")
    door.bring(objects, pacs, ago_s=35)
    assert outcomes(door.db) == {"own": 3}
    assert rows(door.db, "SELECT count(*) FROM revision") == [(0,)]
    assert rows(door.db, "SELECT count(*) FROM study_result") == [(0,)]
    images = small_series(3)
    delivery = door.open(30)
    door.bring(images, delivery, ago_s=20)
    door.bring(objects, pacs, ago_s=1)  # while the study is open: it does not wait for the PACS
    door.end(delivery, ago_s=10)
    assert door.close() == ["released"]
    ((_, number, _, members, warnings),) = closed(door.db)
    assert (number, members, warnings) == (1, 3, "[]"), "another patient's name on a result is no mismatch"
    studies = rows(door.db, "SELECT patient_id, modality, manufacturer, calling_ae FROM study_result")
    assert studies == [(str(images[0].PatientID), "CT", "Firstread phantom", "CT1")]
    assert rows(door.db, "SELECT priority FROM revision") == [(3,)], "the rule for the PACS is not for the study"


def test_images_and_results_in_one_group(door: Door, tmp_path: Path) -> None:
    delivery = door.open(30, calling_ae="PACS2")
    door.bring([*foreign(door, tmp_path), *small_series(2)], delivery, ago_s=20)
    door.end(delivery, ago_s=10)
    assert door.close() == ["released"]
    assert outcomes(door.db) == {"own": 3, "stored": 2}
    assert closed(door.db)[0][3] == 2
    assert rows(door.db, "SELECT modality FROM study_result") == [("CT",)]


def test_a_file_found_after_a_restart_is_known_too(door: Door, tmp_path: Path) -> None:
    note = IntakeNote(source="dicom", source_name="pacs", received_at=utcnow().isoformat(), listener_id="gone")
    for number, ds in enumerate(foreign(door, tmp_path)):
        path = tmp_path / f"{number}.dcm"
        ds.save_as(path)
        with opened(path) as content:
            door.assembler.write([arrival_of(f"20260101/00/{number:032x}.dcm", content, note)])
    assert outcomes(door.db) == {"own": 3}
    assert rows(door.db, "SELECT count(*) FROM revision") == [(0,)]


def test_retention_takes_results_of_others_without_images(door: Door, tmp_path: Path) -> None:
    door.bring(foreign(door, tmp_path), None, ago_s=5)
    settings = door.settings.model_copy(update={"retention_days": {"REJECTED": 7}})
    assert clean(door.db, settings).files == 0
    assert clean(door.db, settings, now=utcnow() + timedelta(days=8)).files == 3
    assert rows(door.db, "SELECT count(*) FROM instance WHERE deleted_at IS NULL") == [(0,)]


def test_an_upgrade_marks_what_came_back_before(database_url: str, make_settings: MakeSettings) -> None:
    db = Database(database_url)
    upgrade(db)
    settings = make_settings(database_url=database_url)
    _, files = results_of(db, settings)
    Door(db, settings).bring([dcmread(file) for file in files], None)
    downgrade(db, "0004")
    with db.engine.begin() as connection:
        before = [connection.execute(text(f"SELECT COUNT(*) FROM {t}")).scalar() for t in ("receipt", "instance")]
    upgrade(db)
    with db.read() as session:
        owned = session.query(Instance.sop_instance_uid).where(Instance.own.is_(True)).all()
        assert set(owned) == set(session.query(OutputObject.sop_instance_uid).all())
        assert [session.execute(text(f"SELECT COUNT(*) FROM {t}")).scalar() for t in ("receipt", "instance")] == before
    db.dispose()


def test_phantoms_that_our_own_sender_brings_are_images_as_ever(door: Door) -> None:
    images = small_series(2)
    for ds in images:
        ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        ds.file_meta.ImplementationVersionName = "FIRSTREAD"
        ds.file_meta.SourceApplicationEntityTitle = "FIRSTREAD"
    delivery = door.open(30, calling_ae="FIRSTREAD")
    door.bring(images, delivery, ago_s=20)
    door.end(delivery, ago_s=10)
    assert door.close() == ["released"]
    assert outcomes(door.db) == {"stored": 2}
