"""Intake gives way while a worker loads its models and none is ready, and only then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from dicom_listener.intake import pace
from dicom_listener.intake.pace import Pace
from firstread.records import WORKER, Database, Process, write_heartbeat
from firstread.records.clock import now_of
from firstread.records.migrate import upgrade


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(f"sqlite:///{tmp_path / 'pace.db'}")
    upgrade(db)
    yield db
    db.dispose()


def _worker(db: Database, key: str, state: str) -> None:
    write_heartbeat(db, Process(id=key, kind=WORKER, host="ct-room", pid=1, details={"state": state}))


def _compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _gives_way(here: Pace) -> bool:
    here.look()
    return here.gives_way


def test_who_is_given_way_to(db: Database) -> None:
    here = Pace(db)
    assert not _gives_way(here)  # nobody is there
    _worker(db, "near", "starting")
    assert _gives_way(here)
    _worker(db, "far", "ready")
    assert not _gives_way(here)  # somebody scores
    _worker(db, "far", "stopping")
    assert _gives_way(here)
    with db.write() as session:
        long_ago = now_of(session) - timedelta(seconds=2 * pace.SILENT_S)
        session.execute(update(Process).where(Process.id == "near").values(heartbeat_at=long_ago))
    assert not _gives_way(here)  # that one is gone


def test_a_pause_follows_what_an_image_took(db: Database) -> None:
    here = Pace(db)
    here.step()
    _compute(0.02)
    assert here.step() == 0.0
    here.gives_way = True
    _compute(0.02)
    assert here.step() == pytest.approx(pace.SHARE * 0.02, rel=0.5)
    assert here.step() < pace.SHARE * 0.02  # the pause itself is no work
    _compute(0.5)
    assert here.step() == pace.LONGEST_S


def test_associations_share(db: Database) -> None:
    here = Pace(db)
    here.gives_way = True
    here.step()
    other = threading.Thread(target=here.step)
    other.start()
    other.join()
    _compute(0.02)
    assert here.step() == pytest.approx(2 * pace.SHARE * 0.02, rel=0.5)


def test_it_looks_while_images_come(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LOOK_S", 0.01)
    _worker(db, "near", "starting")
    here = Pace(db)
    here.start()
    try:
        time.sleep(0.1)
        assert not here.gives_way  # no image, no look
        end = time.monotonic() + 10.0
        while not here.gives_way and time.monotonic() < end:
            here.step()
            time.sleep(0.01)
        assert here.gives_way
    finally:
        here.stop()


def test_a_database_that_is_away_slows_nobody_down(tmp_path: Path) -> None:
    here = Pace(Database(f"sqlite:///{tmp_path / 'none' / 'no.db'}"))
    here.gives_way = True
    assert not _gives_way(here)
