"""docs/more_than_one_host.md on real processes: whatever one host, server or node is lost, nothing acknowledged is.

Two listeners behind HAProxy, three workers, PostgreSQL with a synchronous standby, Redis, two nodes of an S3 store;
every host has a home of its own. ``make soak`` does the same for longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.builders.hospital import LEASE_S, Hospital, hospital
from tests.builders.timing import until

pytestmark = pytest.mark.timeout(240)
SWEEP_S = 0.5
ROOM_S = 5.0
"""For a busy machine."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """The whole site, started once; each test leaves it serving."""
    with hospital(tmp_path_factory.mktemp("hospital")) as running:
        yield running


def sending(site: Hospital, names: list[str], behaviour: str = "ok") -> threading.Thread:
    """Studies on their way, one after the other, in a thread."""
    studies = [site.write_study(name, behaviour) for name in names]

    def send() -> None:
        for paths in studies:
            site.send(paths)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_study_goes_all_the_way(site: Hospital) -> None:
    site.send(site.write_study("first", "flag"))
    site.settled()
    assert len(site.flags()) == 1


def test_a_broker_that_is_away_and_comes_back_empty(site: Hospital) -> None:
    site.broker.kill()
    thread = sending(site, ["broker0", "broker1"])
    thread.join(timeout=60)
    site.broker.start()
    site.settled()


def test_a_node_of_the_store_that_is_gone(site: Hospital) -> None:
    thread = sending(site, ["store0", "store1", "store2"])
    site.stores.stop(site.stores.ports[0])
    thread.join(timeout=60)
    site.send(site.write_study("store3"))
    site.settled()
    site.stores.start(site.stores.ports[0])


def test_a_worker_host_that_is_lost_costs_a_flag_one_lease(site: Hospital) -> None:
    site.send(site.write_study("lease", "slow_flag:2"))
    uid = next(reversed(site.sent.studies))
    query = text(
        "SELECT j.lease_owner FROM job j JOIN revision r ON r.id = j.revision_id JOIN study s ON s.id = r.study_id"
        " WHERE s.study_instance_uid = :uid AND j.state = 'SCORING'"
    )

    def owner() -> str | None:
        with site.db.read() as session:
            found: str | None = session.scalar(query, {"uid": uid})
            return found

    host = str(until(owner, 30)).split(":")[1]
    site.lose(host)
    until(lambda: uid in site.flags(), LEASE_S + 2.0 + SWEEP_S + ROOM_S, "the flag")
    site.settled()
    site.start_worker(host)


def test_a_listener_host_that_is_lost_while_it_receives(site: Hospital) -> None:
    thread = sending(site, [f"listener{n}" for n in range(4)])
    time.sleep(0.3)
    site.lose("listener1")
    thread.join(timeout=60)
    site.settled(90.0)
    site.start_listener(1)


def test_a_standby_that_is_promoted_while_images_come(site: Hospital) -> None:
    """Last: from here on there is one server."""
    flags = len(site.flags())
    thread = sending(site, [f"promoted{n}" for n in range(6)], "flag")
    time.sleep(0.5)
    site.database.fail_over()
    thread.join(timeout=90)
    site.settled(90.0)
    assert len(site.flags()) == flags + 6
