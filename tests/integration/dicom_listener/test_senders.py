"""Whose studies close at once: what counts for a sender, what takes it back, and what never counts. On both engines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from dicom_listener.intake.arrivals import Ending
from firstread.clock import utcnow
from firstread.metrics.state import StateCollector
from firstread.records import Database, Revision, SelfTest, SenderHabit
from firstread.records.senders import WHOLE_STUDIES
from firstread.settings import Settings
from firstread_cli.doctor.senders import check_habits
from tests.builders.door import Door
from tests.builders.listening import all_closed, listening, send, small_files, small_series
from tests.builders.timing import until

MakeSettings = Callable[..., Settings]
HOST = "10.0.0.9"
GRACE_S = 600.0
"""The whole grace in these tests, so that no slow machine takes it for the short one."""
JUST_NOW_S = 3.0
LONG_AGO_S = GRACE_S + 100


class Sender:
    """Sends numbered studies of two slices through a door."""

    def __init__(self, door: Door, calling_ae: str = "CT1", host: str = HOST) -> None:
        self.door, self.calling_ae, self.host = door, calling_ae, host

    def part(self, seed: int, objects: slice, ago_s: float = JUST_NOW_S, ending: str = "released") -> None:
        """One association that brings a part of a study, ended ``ago_s`` seconds ago."""
        visit = self.door.open(ago_s + 2, self.calling_ae, host=self.host)
        self.door.bring(small_series(2, seed=seed)[objects], visit, ago_s=ago_s + 1)
        self.door.end(visit, ending, ago_s=ago_s)

    def whole(self, seed: int, ago_s: float = JUST_NOW_S) -> list[str]:
        """A whole study in one association, and what closes then."""
        self.part(seed, slice(None), ago_s)
        return self.door.close()

    def whole_ones(self, n: int, first: int = 1) -> None:
        """``n`` whole studies, each in an association of its own, in one transaction."""
        visits = [self.door.open(LONG_AGO_S + 2, self.calling_ae, host=self.host) for _ in range(n)]
        arrivals = [
            self.door.arrival(ds, visit, ago_s=LONG_AGO_S + 1)
            for seed, visit in enumerate(visits, start=first)
            for ds in small_series(2, seed=seed)
        ]
        at = utcnow() - timedelta(seconds=LONG_AGO_S)
        self.door.assembler.write([*arrivals, *(Ending(visit, "released", at) for visit in visits)])
        assert self.door.close() == ["released"] * n

    def known(self) -> None:
        """As many whole studies as it takes."""
        with self.door.db.write() as session:
            row = SenderHabit(calling_ae=self.calling_ae, host=self.host, whole_studies=WHOLE_STUDIES)
            row.noted_at = utcnow()
            session.add(row)


@pytest.fixture
def settings(db: Database, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("firstread.settings.AUTO_GRACE_S", GRACE_S)
    return make_settings(database_url=db.url, quiet_s=7200.0, max_wait_s=36000.0)


@pytest.fixture
def sender(db: Database, settings: Settings) -> Sender:
    return Sender(Door(db, settings))


def counted(db: Database) -> dict[str, int]:
    """Whole studies in a row by calling AE."""
    with db.read() as session:
        return {row.calling_ae: row.whole_studies for row in session.scalars(select(SenderHabit))}


def test_after_twenty_whole_studies_the_next_one_closes_at_once(db: Database, sender: Sender) -> None:
    sender.whole_ones(WHOLE_STUDIES - 1)
    assert sender.whole(50) == [], "nineteen are too few"
    sender.part(51, slice(None), LONG_AGO_S)
    assert sender.door.close() == ["released"]
    assert counted(db) == {"CT1": WHOLE_STUDIES}
    assert sender.whole(52) == ["released", "released"], "50 closes too: its sender is known now"
    with db.read() as session:
        spared = session.scalars(select(Revision.spared_s).order_by(Revision.closed_at)).all()
    assert set(spared[:WHOLE_STUDIES]) == {0.0}
    assert all(GRACE_S / 2 < spared_s <= GRACE_S - JUST_NOW_S for spared_s in spared[WHOLE_STUDIES:])


def test_what_is_known_holds_for_another_process(db: Database, sender: Sender, settings: Settings) -> None:
    sender.whole_ones(WHOLE_STUDIES)
    other = Sender(Door(db, settings, "listener-2"))
    assert other.whole(99) == ["released"]


def test_an_image_after_a_close_takes_all_of_it_back_at_once(db: Database, sender: Sender) -> None:
    sender.known()
    sender.part(60, slice(1))
    assert sender.door.close() == ["released"]
    late = sender.door.open(host=HOST)
    sender.door.bring(small_series(2, seed=60)[1:], late)
    assert counted(db) == {"CT1": 0}, "before its association has ended"
    with db.read() as session:
        assert session.scalars(select(SenderHabit.went_on_at)).one() is not None
    assert sender.whole(61) == []


def test_an_image_long_after_a_close_counts_for_nothing(db: Database, make_settings: MakeSettings) -> None:
    sender = Sender(Door(db, make_settings(quiet_s=7200.0, max_wait_s=900.0)))
    sender.whole_ones(3)
    with db.write() as session:
        session.execute(update(Revision).values(closed_at=utcnow() - timedelta(seconds=901)))
    changed = small_series(2, seed=1)
    changed[0].ImageComments = "an addendum"
    sender.door.bring(changed[:1], sender.door.open(host=HOST))
    assert counted(db) == {"CT1": 3}


def test_the_same_images_again_count_for_nothing(db: Database, sender: Sender) -> None:
    sender.whole_ones(3)
    sender.part(1, slice(None))
    assert counted(db) == {"CT1": 3}


def test_a_study_in_several_associations_counts_against_its_sender(db: Database, sender: Sender) -> None:
    sender.whole_ones(5)
    sender.part(60, slice(1), LONG_AGO_S + 10)
    sender.part(60, slice(1, None), LONG_AGO_S)
    assert sender.door.close() == ["released"]
    assert counted(db) == {"CT1": 0}


def test_a_second_association_of_a_study_brings_the_whole_grace(sender: Sender) -> None:
    sender.known()
    sender.part(60, slice(1))
    sender.part(60, slice(1, None))
    assert sender.door.close() == []


@pytest.mark.parametrize("ending", ["aborted", "lost"])
def test_broken_associations_never_count(db: Database, sender: Sender, ending: str) -> None:
    sender.known()
    sender.part(60, slice(None), 2 * LONG_AGO_S, ending=ending)
    assert sender.door.close() == [], "an abort closes nothing, whoever the sender is"
    sender.part(60, slice(None), LONG_AGO_S)
    assert sender.door.close() == ["released"], "it has made good, and had the whole grace"
    with db.read() as session:
        assert session.scalars(select(Revision.spared_s)).one() == 0
    assert counted(db) == {"CT1": WHOLE_STUDIES}


def test_a_study_of_two_senders_waits_and_counts_against_both(db: Database, sender: Sender) -> None:
    sender.known()
    other = Sender(sender.door, "WS1", "10.0.0.10")
    other.known()
    sender.part(60, slice(1))
    other.part(60, slice(1, None))
    assert sender.door.close() == [], "each is known, together they are not"
    sender.part(61, slice(1), LONG_AGO_S + 10)
    other.part(61, slice(1, None), LONG_AGO_S)
    assert sender.door.close() == ["released"]
    assert counted(db) == {"CT1": 0, "WS1": 0}


def test_an_image_of_a_second_sender_after_the_close_counts_against_both(db: Database, sender: Sender) -> None:
    sender.known()
    other = Sender(sender.door, "WS1", "10.0.0.10")
    other.known()
    sender.part(60, slice(1))
    assert sender.door.close() == ["released"]
    other.part(60, slice(1, None))
    assert counted(db) == {"CT1": 0, "WS1": 0}


def test_hosts_with_one_title_are_two_senders(sender: Sender) -> None:
    sender.known()
    assert Sender(sender.door, "CT1", "10.0.0.77").whole(70) == []


def test_a_number_fixes_the_grace_for_everybody(db: Database, make_settings: MakeSettings) -> None:
    sender = Sender(Door(db, make_settings(grace_s=GRACE_S, quiet_s=7200.0)))
    sender.known()
    sender.whole_ones(1)
    assert counted(db) == {"CT1": WHOLE_STUDIES + 1}, "what was learned is there when it is set to auto"
    assert sender.whole(60) == []


def test_the_inbox_has_a_grace_of_its_own_and_learns_nothing(db: Database, make_settings: MakeSettings) -> None:
    sender = Sender(Door(db, make_settings(inbox_grace_s=GRACE_S, quiet_s=7200.0)))
    sender.calling_ae = ""
    sender.known()
    for ago_s, closes in ((JUST_NOW_S, []), (LONG_AGO_S, ["released"])):
        drain = sender.door.open(LONG_AGO_S + 2, calling_ae="", source="inbox", host=HOST)
        sender.door.bring(small_series(2, seed=int(ago_s)), drain, ago_s=LONG_AGO_S + 1)
        sender.door.end(drain, ago_s=ago_s)
        assert sender.door.close() == closes
    assert counted(db) == {"": WHOLE_STUDIES}


def test_the_phantom_of_the_doctor_teaches_nothing(db: Database, sender: Sender) -> None:
    uid = str(small_series(1, seed=5)[0].StudyInstanceUID)
    with db.write() as session:
        session.add(SelfTest(study_instance_uid=uid, started_at=sender.door.open().opened_at))
    assert sender.whole(5, LONG_AGO_S) == ["released"]
    assert counted(db) == {}


def test_doctor_and_metrics_show_who_is_known(db: Database, sender: Sender, settings: Settings) -> None:
    assert [check.detail for check in check_habits(settings)] == []
    sender.known()
    Sender(sender.door, "CT2", "10.0.0.10").whole_ones(1, first=40)
    details = {check.name: check.detail for check in check_habits(settings)}
    assert details[f"sender CT1 at {HOST}"].startswith("its studies close at once: the last 20 came whole")
    assert details["sender CT2 at 10.0.0.10"].startswith("its studies close 600 s after a release: 1 of the 20")
    (fixed,) = check_habits(settings.model_copy(update={"grace_s": 4.0}))
    assert "4 s after a release" in fixed.detail
    collector = StateCollector(settings, db)

    def figures() -> dict[str, float]:
        (family,) = (f for f in collector.collect() if f.name == "firstread_known_senders")
        return {sample.labels["outcome"]: sample.value for sample in family.samples}

    assert until(figures) == {"at_once": 1, "default": 1}


def test_the_end_of_an_association_wakes_whoever_closes_studies(
    make_settings: MakeSettings, broker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a wake-up nothing would be looked at within this test."""
    monkeypatch.setattr("dicom_listener.studies.timer.LOOK_S", 600.0)
    with listening(make_settings(broker_url=broker, grace_s=0.3)) as service:
        assert service.closer.reconciled.wait(30)
        assert all(outcome.ok for outcome in send(service, *small_files(tmp_path / "ct", 3)))
        assert [row[1:4] for row in all_closed(service.db)] == [(1, "released", 3)]
