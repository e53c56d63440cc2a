"""Who gets a place, and who loses one."""

from __future__ import annotations

from dicom_listener.scp.places import STALLED_S, Places


class Holder:
    """Holds a place for so many seconds without using it."""

    def __init__(self, stalled_s: float = 0.0) -> None:
        self.stalled_s = stalled_s
        self.reason: str | None = None

    def cut(self, reason: str) -> None:
        self.reason = reason


def fill(
    places: Places, count: int, calling_ae: str = "CT1", host: str = "10.0.0.1", stalled_s: float = 0.0
) -> list[Holder]:
    """Take places as far as there is room."""
    holders = []
    for _ in range(count):
        if not places.has_room(calling_ae, host):
            break
        holders.append(Holder(stalled_s))
        places.take(holders[-1], calling_ae, host)
    return holders


def test_one_caller_leaves_a_quarter_to_others() -> None:
    places = Places(64)
    assert len(fill(places, 64)) == 48
    assert not places.has_room("CT1", "10.0.0.1")
    assert places.has_room("CT2", "10.0.0.1") and places.has_room("CT1", "10.0.0.2")
    assert len(fill(places, 64, host="10.0.0.2")) == 16
    assert not places.has_room("CT3", "10.0.0.3")


def test_as_many_modalities_behind_one_balancer_as_there_are_places() -> None:
    places = Places(64)
    assert sum(len(fill(places, 1, calling_ae=f"CT{number}")) for number in range(64)) == 64


def test_few_places_are_not_divided() -> None:
    for count in (1, 2, 3):
        assert len(fill(Places(count), 9)) == count


def test_a_place_is_free_again() -> None:
    places = Places(1)
    (holder,) = fill(places, 1)
    assert not places.has_room("A", "10.0.0.2")
    places.leave(holder)
    places.leave(holder)
    assert places.has_room("A", "10.0.0.2") and len(places) == 0


def test_the_longest_stalled_of_the_greediest_host_goes_once() -> None:
    places = Places(4)
    slow = [Holder(stalled_s=STALLED_S + n) for n in (0, 2, 1)]
    for number, holder in enumerate(slow):
        places.take(holder, f"A{number}", "10.0.0.1")
    other = Holder(stalled_s=100.0)
    places.take(other, "CT", "10.0.0.2")
    assert not places.has_room("CT", "10.0.0.3")
    assert places.make_room("10.0.0.3") and [h.reason for h in slow] == [None, "displaced", None]
    assert places.has_room("CT", "10.0.0.3")
    assert places.make_room("10.0.0.3") and [h.reason for h in slow] == [None, "displaced", "displaced"]
    assert places.make_room("10.0.0.3") and not places.make_room("10.0.0.3")
    assert other.reason is None


def test_nobody_goes_who_sends_or_whose_host_is_modest() -> None:
    places = Places(4)
    assert not places.make_room("10.0.0.9")
    busy = fill(places, 3, stalled_s=STALLED_S / 2)
    assert not places.make_room("10.0.0.2")
    for holder in busy:
        holder.stalled_s = 100.0
    assert not places.make_room("10.0.0.1"), "for a caller of the same host"
    places.leave(busy[0])
    assert not places.make_room("10.0.0.2"), "of half of the places"
