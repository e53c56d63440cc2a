"""Results that do not flag are held until the study is quiet; flags go at once. On both engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from firstread.actions.deliveries import retry_delivery
from firstread.clock import utcnow
from firstread.records import Database, Delivery, Revision
from firstread.settings import Settings
from tests.builders.routed_study import Site, corrected, deliveries, dose_report, slices
from tests.builders.servers import Recorder
from worker.outputs.deliveries.lanes import work_one
from worker.outputs.destinations.watch import watch_of

HELD_S = 120.0


@pytest.fixture
def site(make_settings: Callable[..., Settings], db: Database, hook: Recorder) -> Site:
    settings = make_settings(database_url=db.url, deliver_after_s=HELD_S)
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "secret").write_text("s", encoding="utf-8")
    (settings.home / "destinations.toml").write_text(
        f'[[destination]]\nname = "hook"\nkind = "webhook"\nurl = "{hook.url}"\n'
        f'secret = {{ file = "{settings.home / "secret"}" }}\n',
        encoding="utf-8",
    )
    return Site(db, settings)


def send(site: Site) -> bool:
    destination = watch_of(site.settings).current().named("hook")
    assert destination is not None
    return work_one(site.db, site.settings, destination)


def make_due(site: Site, seen_ago_s: float) -> None:
    """The hold of every row is over by its own time, and the study's last image came so long ago."""
    now = utcnow()
    with site.db.write() as session:
        session.execute(update(Delivery).where(Delivery.state == "PENDING").values(next_at=now - timedelta(seconds=1)))
        session.execute(update(Revision).values(last_seen_at=now - timedelta(seconds=seen_ago_s)))


def revisions_told(hook: Recorder) -> list[tuple[str, int]]:
    messages = [json.loads(body) for _, _, body in hook.requests]
    return [(content["event"], content["revision"]) for content in messages]


def test_a_quiet_result_waits_and_a_flag_does_not(site: Site, hook: Recorder) -> None:
    images = slices(12)
    site.put(*images[:10])
    site.score(0.1)
    assert not send(site)
    with site.db.read() as session:
        row = session.scalars(select(Delivery)).one()
        last = session.scalars(select(Revision.last_seen_at)).one()
        assert row.next_at is not None and abs((row.next_at - last).total_seconds() - HELD_S) < 1
    site.put(*images)
    site.score(0.9, flagged=True)
    assert send(site)
    assert revisions_told(hook) == [("flag", 2)]
    assert deliveries(site)[0] == (1, "SKIPPED", "superseded")


def test_of_a_study_in_pieces_only_the_last_result_is_sent(site: Site, hook: Recorder) -> None:
    images = slices(14)
    for n in range(10, 15):
        site.put(*images[:n])
        site.score(0.1)
    make_due(site, seen_ago_s=HELD_S + 1)
    assert send(site) and not send(site)
    assert revisions_told(hook) == [("result", 5)]
    assert [state for _, state, _ in deliveries(site)] == ["SKIPPED"] * 4 + ["DELIVERED"]


def test_a_later_image_starts_the_hold_anew_and_costs_no_attempt(site: Site, hook: Recorder) -> None:
    images = slices()
    site.put(*images)
    site.score(0.1)
    site.put(*images, dose_report())
    assert site.claim() is None
    make_due(site, seen_ago_s=HELD_S - 60)
    assert send(site)
    assert hook.requests == []
    with site.db.read() as session:
        row = session.scalars(select(Delivery)).one()
        assert (row.state, row.attempts) == ("PENDING", 0)
        assert row.next_at is not None and 50 < (row.next_at - utcnow()).total_seconds() <= 61
    make_due(site, seen_ago_s=HELD_S + 1)
    assert send(site)
    assert revisions_told(hook) == [("result", 1)]


def test_it_waits_for_a_later_result_that_is_on_its_way_but_not_for_ever(site: Site, hook: Recorder) -> None:
    images = slices(12)
    site.put(*images[:10])
    site.score(0.1)
    site.put(*images)
    make_due(site, seen_ago_s=HELD_S + 1)
    assert send(site)
    assert hook.requests == []
    make_due(site, seen_ago_s=HELD_S + 1000)
    assert send(site)
    assert revisions_told(hook) == [("result", 1)]


def test_a_person_who_tries_again_does_not_wait(site: Site, hook: Recorder) -> None:
    site.put(*slices())
    site.score(0.1)
    with site.db.read() as session:
        key = session.scalars(select(Delivery.id)).one()
    retry_delivery(site.db, key, by="tester")
    assert send(site)
    assert revisions_told(hook) == [("result", 1)]


def closed_at_once(site: Site, spared_s: float, closed_ago_s: float = 0.0) -> None:
    """As if every revision so far had been closed at once, so long ago."""
    with site.db.write() as session:
        closed_at = utcnow() - timedelta(seconds=closed_ago_s)
        session.execute(update(Revision).values(spared_s=spared_s, closed_at=closed_at))


def test_a_result_of_a_study_closed_at_once_waits_for_the_grace_that_it_was_spared(site: Site, hook: Recorder) -> None:
    site = Site(site.db, site.settings.model_copy(update={"deliver_after_s": 0.0}))
    site.put(*slices())
    closed_at_once(site, spared_s=300.0)
    site.score(0.1)
    assert not send(site)
    make_due(site, seen_ago_s=1)
    assert send(site), "it is looked at, and put off"
    assert hook.requests == []
    closed_at_once(site, spared_s=300.0, closed_ago_s=301.0)
    make_due(site, seen_ago_s=1)
    assert send(site)
    assert revisions_told(hook) == [("result", 1)]


def test_of_a_study_that_went_on_after_it_was_closed_at_once_only_the_last_result_is_sent(
    site: Site, hook: Recorder
) -> None:
    site = Site(site.db, site.settings.model_copy(update={"deliver_after_s": 0.0}))
    images = slices(12)
    site.put(*images[:10])
    closed_at_once(site, spared_s=300.0)
    site.score(0.1)
    site.put(*images)
    make_due(site, seen_ago_s=1)
    closed_at_once(site, spared_s=300.0, closed_ago_s=301.0)
    assert send(site), "the grace is over, and a later result on its way"
    assert hook.requests == []
    site.score(0.2)
    assert deliveries(site)[0] == (1, "SKIPPED", "superseded")


def test_a_flag_of_a_study_closed_at_once_goes_at_once(site: Site, hook: Recorder) -> None:
    site = Site(site.db, site.settings.model_copy(update={"deliver_after_s": 0.0}))
    site.put(*slices())
    closed_at_once(site, spared_s=300.0)
    site.score(0.9, flagged=True)
    assert send(site)
    assert revisions_told(hook) == [("flag", 1)]


def test_the_longer_of_the_two_holds_counts(site: Site) -> None:
    site.put(*slices())
    closed_at_once(site, spared_s=HELD_S + 300)
    site.score(0.1)
    with site.db.read() as session:
        row = session.scalars(select(Delivery)).one()
        assert row.next_at is not None and (row.next_at - utcnow()).total_seconds() > HELD_S + 200


def test_without_the_setting_results_go_at_once(site: Site, hook: Recorder) -> None:
    site = Site(site.db, site.settings.model_copy(update={"deliver_after_s": 0.0}))
    images = slices()
    site.put(*images)
    site.score(0.1)
    assert send(site)
    site.put(*corrected(images))
    assert site.claim() is None
    assert not send(site), "objects go to a PACS alone"
    assert revisions_told(hook) == [("result", 1)]
