"""The assembler on both engines: outcomes, revisions, and when a study closes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_listener.intake.arrivals import Refusal
from dicom_listener.studies.closing import reap_lost
from firstread.clock import utcnow
from firstread.records import Database, Process
from firstread.settings import Settings
from tests.builders.door import LISTENER, Door
from tests.builders.listening import all_closed, closed, outcomes, rows, small_series

MakeSettings = Callable[..., Settings]


@pytest.fixture
def door(db: Database, make_settings: MakeSettings) -> Door:
    return Door(db, make_settings(grace_s=2.0, quiet_s=60.0, max_wait_s=600.0, inbox_grace_s=3.0))


def test_released_study_closes_after_its_grace(door: Door) -> None:
    delivery = door.open(ago_s=30)
    door.bring(small_series(3), delivery, ago_s=20)
    assert door.close() == []
    door.end(delivery, ago_s=1)
    assert door.close() == []
    door.end(delivery, ago_s=2.1)
    assert door.close() == ["released"]
    assert [row[1:4] for row in closed(door.db)] == [(1, "released", 3)]
    assert door.close() == []


def test_one_open_association_keeps_the_study_open(door: Door) -> None:
    first, second = door.open(30), door.open(30)
    objects = small_series(4)
    door.bring(objects[:2], first, ago_s=20)
    door.bring(objects[2:], second, ago_s=20)
    door.end(first, ago_s=10)
    assert door.close() == []
    door.end(second, ago_s=3)
    assert door.close() == ["released"]
    assert closed(door.db)[0][3] == 4


def test_quiet_closes_under_an_open_association(door: Door) -> None:
    door.bring(small_series(2), door.open(90), ago_s=61)
    assert door.close() == ["quiet"]


def test_a_study_is_not_quiet_while_nobody_listens(door: Door) -> None:
    """After a restart the quiet time starts anew: the sender could not go on."""
    door.bring(small_series(2), door.open(90), ago_s=80)
    with door.db.write() as session:
        row = session.get(Process, LISTENER)
        assert row is not None
        row.started_at = utcnow() - timedelta(seconds=30)
    assert door.close() == []
    with door.db.write() as session:
        row = session.get(Process, LISTENER)
        assert row is not None
        row.started_at = utcnow() - timedelta(seconds=61)
    assert door.close() == ["quiet"]


def test_every_instance_moves_the_quiet_clock(door: Door) -> None:
    delivery = door.open(200)
    objects = small_series(2)
    door.bring(objects[:1], delivery, ago_s=190)
    door.bring(objects[1:], delivery, ago_s=30)
    assert door.close() == []


def test_max_wait_closes_a_study_that_never_rests(door: Door) -> None:
    delivery = door.open(700)
    objects = small_series(2)
    door.bring(objects[:1], delivery, ago_s=601)
    door.bring(objects[1:], delivery, ago_s=0)
    assert door.close() == ["max_wait"]


@pytest.mark.parametrize("ending", ["aborted", "lost"])
def test_a_broken_association_waits_for_quiet(door: Door, ending: str) -> None:
    delivery = door.open(100)
    door.bring(small_series(2), delivery, ago_s=50)
    door.end(delivery, ending, ago_s=40)
    assert door.close() == []
    other = door.open(45, calling_ae="CT2")
    door.bring(small_series(2), other, ago_s=30)
    door.end(other, ago_s=20)
    assert door.close() == [], "another sender says nothing about the broken one"


def test_a_later_release_of_the_same_sender_makes_good(door: Door) -> None:
    broken = door.open(100)
    objects = small_series(3)
    door.bring(objects[:2], broken, ago_s=50)
    door.end(broken, "aborted", ago_s=45)
    again = door.open(40)
    door.bring(objects, again, ago_s=30)
    assert door.close() == []
    door.end(again, ago_s=5)
    assert door.close() == ["released"]
    assert closed(door.db)[0][1:4] == (1, "released", 3)


def test_a_parallel_release_does_not_make_good(door: Door) -> None:
    objects = small_series(2)
    broken, parallel = door.open(100), door.open(100)
    door.bring(objects[:1], broken, ago_s=40)
    door.bring(objects[1:], parallel, ago_s=50)
    door.end(broken, "aborted", ago_s=35)
    door.end(parallel, ago_s=30)
    assert door.close() == []


def test_lost_listener_counts_as_a_broken_association(db: Database, make_settings: MakeSettings) -> None:
    door = Door(db, make_settings(grace_s=0.0, quiet_s=60.0))
    dead = Door(db, door.settings, "listener-2")
    dead.bring(small_series(2), dead.open(50), ago_s=40)
    assert reap_lost(db) == 0
    with db.write() as session:
        row = session.get(Process, "listener-2")
        assert row is not None
        row.heartbeat_at = utcnow() - timedelta(seconds=16)
    assert door.close() == []
    assert reap_lost(db) == 1
    assert rows(db, "SELECT ending FROM association") == [("lost",)]
    assert door.close() == []


def test_same_bytes_again_change_nothing(door: Door) -> None:
    objects = small_series(3)
    first = door.open(30)
    arrivals = door.bring(objects, first, ago_s=25)
    door.end(first, ago_s=20)
    assert door.close() == ["released"]
    second = door.open(10)
    again = [door.arrival(ds, second) for ds in objects]
    done = door.assembler.write(again)
    assert sorted(done.superfluous) == sorted(a.spool_key for a in again)
    assert outcomes(door.db) == {"stored": 3, "repeat": 3}
    assert rows(door.db, "SELECT count(*) FROM revision") == [(1,)]
    assert {row[0] for row in rows(door.db, "SELECT spool_key FROM instance")} == {a.spool_key for a in arrivals}


def test_other_bytes_make_a_revision_with_a_warning(door: Door) -> None:
    objects = small_series(3)
    first = door.open(30)
    door.bring(objects, first, ago_s=25)
    door.end(first, ago_s=20)
    door.close()
    objects[1].ImageComments = "corrected"
    second = door.open(15)
    newest = door.bring([objects[1]], second, ago_s=10)[0]
    door.end(second, ago_s=5)
    assert door.close() == ["released"]
    assert outcomes(door.db) == {"stored": 3, "changed": 1}
    assert [row[1:] for row in closed(door.db)] == [
        (1, "released", 3, "[]"),
        (2, "released", 3, '["instance_changed"]'),
    ]
    keys = _scored(door, 2)
    assert newest.spool_key in keys and len(keys) == 3
    assert rows(door.db, "SELECT count(*) FROM instance") == [(4,)]


def _scored(door: Door, number: int) -> list[str]:
    """Spool keys of a revision's members."""
    query = f"""SELECT i.spool_key FROM revision_instance m JOIN instance i ON i.id = m.instance_id
                JOIN revision r ON r.id = m.revision_id WHERE r.number = {number}"""
    return [key for (key,) in rows(door.db, query)]


@pytest.mark.parametrize("at_once", [False, True])
def test_the_bytes_received_last_are_scored_also_where_they_came_before(door: Door, at_once: bool) -> None:
    """A, B and A again under one UID: the third delivery takes the correction back."""
    original, corrected = small_series(1), small_series(1)
    corrected[0].ImageComments = "corrected"
    delivery = door.open(60)
    arrivals = []
    for objects, ago_s in ((original, 50), (corrected, 40), (original, 30)):
        arrivals += [door.arrival(objects[0], delivery, ago_s)]
        if not at_once:
            door.assembler.write([arrivals[-1]])
            door.end(delivery, ago_s=ago_s - 1)
            assert door.close() == ["released"]
            delivery = door.open(ago_s - 2)
    if at_once:
        done = door.assembler.write(arrivals)
        assert done.superfluous == [arrivals[2].spool_key]
        door.end(delivery, ago_s=20)
        assert door.close() == ["released"]
    assert outcomes(door.db) == {"stored": 1, "changed": 2}
    assert rows(door.db, "SELECT count(*) FROM instance") == [(2,)]
    assert _scored(door, 1 if at_once else 3) == [arrivals[0].spool_key]
    assert closed(door.db)[-1][1:] == (1 if at_once else 3, "released", 1, '["instance_changed"]')


def test_old_bytes_that_are_registered_late_take_nothing_back(door: Door) -> None:
    original, corrected = small_series(1), small_series(1)
    corrected[0].ImageComments = "corrected"
    delivery = door.open(60)
    door.bring(original, delivery, ago_s=50)
    newest = door.bring(corrected, delivery, ago_s=30)[0]
    door.bring(original, delivery, ago_s=40)
    door.end(delivery, ago_s=20)
    assert door.close() == ["released"]
    assert outcomes(door.db) == {"stored": 1, "changed": 1, "repeat": 1}
    assert _scored(door, 1) == [newest.spool_key]


def test_two_series_may_share_sop_instance_uids(door: Door) -> None:
    """Soft and bone series of a scanner that numbers each from the start: all images belong to the revision."""
    soft = small_series(3, series="soft")
    bone = small_series(3, series="bone")
    for one, other in zip(soft, bone, strict=True):
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    delivery = door.open(30)
    door.bring(soft + bone, delivery, ago_s=25)
    door.end(delivery, ago_s=20)
    door.close()
    assert outcomes(door.db) == {"stored": 6}
    assert [row[1:] for row in closed(door.db)] == [(1, "released", 6, "[]")]
    bone[1].ImageComments = "corrected"
    second = door.open(15)
    door.bring([bone[0], bone[1]], second, ago_s=10)
    door.end(second, ago_s=5)
    door.close()
    assert outcomes(door.db) == {"stored": 6, "repeat": 1, "changed": 1}
    assert closed(door.db)[-1][1:] == (2, "released", 6, '["instance_changed"]')


def test_whatever_a_header_says_has_its_rows(door: Door) -> None:
    """Numbers beyond the columns, NUL characters and half of a surrogate pair: stored, the rest of the group too."""
    objects = small_series(3)
    odd = objects[1]
    odd.add_new(0x00200013, "LO", "99999999999999")  # Instance Number
    odd.PatientID, odd.AccessionNumber = "A\x00B\ud83d" + "9" * 300, "\x00" * 20
    odd.StationName, odd.Manufacturer = "\U0001f600" * 200, "M" * 5000
    delivery = door.open(30, calling_ae="CT1")
    door.bring(objects, delivery, ago_s=25)
    door.end(delivery, ago_s=20)
    door.close()
    assert [row[1:4] for row in closed(door.db)] == [(1, "released", 3)]
    assert rows(door.db, "SELECT count(*) FROM instance WHERE instance_number IS NULL") == [(1,)]


def test_one_more_slice_makes_a_revision_of_all(door: Door) -> None:
    objects = small_series(4)
    for part in (objects[:3], objects[3:]):
        delivery = door.open(30)
        door.bring(part, delivery, ago_s=20)
        door.end(delivery, ago_s=10)
        assert door.close() == ["released"]
    assert [row[1:4] for row in closed(door.db)] == [(1, "released", 3), (2, "released", 4)]


def test_a_frozen_revision_never_changes(door: Door) -> None:
    objects = small_series(2)
    delivery = door.open(30)
    door.bring(objects[:1], delivery, ago_s=20)
    door.end(delivery, ago_s=10)
    door.close()
    before = rows(door.db, "SELECT * FROM revision WHERE number = 1")
    members = rows(door.db, "SELECT * FROM revision_instance")
    door.bring(objects[1:], door.open())
    assert rows(door.db, "SELECT * FROM revision WHERE number = 1") == before
    assert rows(door.db, "SELECT * FROM revision_instance") == members


def test_two_patients_in_one_study_give_a_warning(door: Door) -> None:
    objects = small_series(2)
    objects[1].PatientID = "SOMEBODY-ELSE"
    delivery = door.open(30)
    door.bring(objects, delivery, ago_s=20)
    door.end(delivery, ago_s=10)
    door.close()
    assert closed(door.db)[0][4] == '["patient_mismatch"]'


def test_writing_the_same_file_twice_registers_it_once(door: Door) -> None:
    arrivals = door.bring(small_series(2), door.open(5))
    door.assembler.write(arrivals)
    Door(door.db, door.settings, "listener-2").assembler.write([replace(a, delivery=None) for a in arrivals])
    assert outcomes(door.db) == {"stored": 2}


def test_a_hint_on_known_bytes_asks_for_another_reading(door: Door) -> None:
    objects = small_series(1)
    first = door.open(30)
    door.bring(objects, first, ago_s=25)
    door.end(first, ago_s=20)
    door.close()
    for _ in range(2):
        drain = door.open(15, source="inbox")
        door.bring(objects, drain, ago_s=10, pipeline_hint="head_ct")
        door.end(drain, ago_s=5)
        door.close()
    revisions = rows(door.db, "SELECT number, forced_pipeline FROM revision ORDER BY number")
    assert revisions == [(1, None), (2, "head_ct")]
    assert outcomes(door.db) == {"stored": 1, "repeat": 2}


def test_an_order_stays_after_a_later_copy_without_one(door: Door) -> None:
    drain = door.open(30, source="inbox")
    door.bring(small_series(1), drain, ago_s=25, pipeline_hint="head_ct")
    door.end(drain, ago_s=20)
    door.close()
    changed = small_series(1)
    changed[0].SeriesDescription = "sent again"
    again = door.open(15)
    door.bring(changed, again, ago_s=10)
    door.end(again, ago_s=5)
    door.close()
    revisions = rows(door.db, "SELECT number, forced_pipeline FROM revision ORDER BY number")
    assert revisions == [(1, "head_ct"), (2, "head_ct")]


def test_priority_of_a_class_without_modality_and_of_an_order_for_a_sender(
    db: Database, make_settings: MakeSettings
) -> None:
    door = Door(db, make_settings(grace_s=0.0, force_pipelines_by_calling_ae={"CT2": ("head_ct",)}))
    for seed, (calling_ae, modality) in enumerate([("CT1", None), ("CT1", "MR"), ("CT2", "MR")]):
        delivery = door.open(10, calling_ae)
        objects = small_series(1, seed=seed)
        objects[0].Modality = modality
        door.bring(objects, delivery, ago_s=8)
        door.end(delivery, ago_s=5)
    door.close()
    assert [row[0] for row in rows(db, "SELECT priority FROM revision ORDER BY study_id")] == [3, 6, 3]


def test_priority_follows_sender_and_c_store(db: Database, make_settings: MakeSettings) -> None:
    door = Door(db, make_settings(grace_s=0.0, priority_by_calling_ae={"TRAUMA": 1}))
    for seed, (calling_ae, dicom_priority) in enumerate([("CT1", 0), ("TRAUMA", 0), ("CT1", 1), ("CT1", 2)]):
        delivery = door.open(10, calling_ae)
        door.bring(small_series(1, seed=seed), delivery, ago_s=8, dicom_priority=dicom_priority)
        door.end(delivery, ago_s=5)
    door.close()
    assert [row[0] for row in rows(db, "SELECT priority FROM revision ORDER BY study_id")] == [3, 1, 1, 4]


def test_closing_and_refusals_are_seen_through_the_views(door: Door) -> None:
    refusal = Refusal(utcnow(), "inbox", "a/b.dcm", None, "not_dicom", "no prefix", "/kept/b.dcm")
    door.assembler.write([refusal])
    door.assembler.write([refusal])
    assert rows(door.db, "SELECT source_name, reason, kept_path FROM intake_refusal") == [
        ("a/b.dcm", "not_dicom", "/kept/b.dcm")
    ]
    delivery = door.open(30)
    door.bring(small_series(2), delivery, ago_s=20)
    state = "SELECT state, source, source_name, calling_ae, closed_at IS NULL FROM study_result"
    assert rows(door.db, state) == [("RECEIVING", "dicom", "10.0.0.9", "CT1", True)]
    door.end(delivery, ago_s=10)
    door.close()
    assert rows(door.db, state) == [("WAITING", "dicom", "10.0.0.9", "CT1", False)]


def test_two_listeners_close_a_study_once(db: Database, make_settings: MakeSettings, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    doors = [Door(db, make_settings(grace_s=0.0), f"listener-{n}") for n in (1, 2)]
    for seed in range(8):
        objects = small_series(4, seed=seed)

        def bring(door: Door, part: list[Any]) -> None:
            delivery = door.open(5)
            door.bring(part, delivery, ago_s=3)
            door.end(delivery, ago_s=2)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(bring, doors, [objects[:3], objects[1:]]))
        with ThreadPoolExecutor(2) as pool:
            done = [reason for reasons in pool.map(Door.close, doors) for reason in reasons]
        assert done == ["released"]
    assert [row[3] for row in all_closed(db, 8)] == [4] * 8
    assert outcomes(db) == {"stored": 32, "repeat": 16}


def test_the_grace_is_longer_after_a_close_that_came_too_soon(door: Door) -> None:
    objects = small_series(3)
    first = door.open(20)
    door.bring(objects[:1], first, ago_s=15)
    door.end(first, ago_s=12)
    assert door.close() == ["released"]
    second = door.open(6)
    door.bring(objects[1:], second, ago_s=5)
    door.end(second, ago_s=3)
    assert door.close() == [], "two seconds were too few before"
    door.end(second, ago_s=4.1)
    assert door.close() == ["released"]
