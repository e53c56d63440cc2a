"""Places by the descriptors there are, and a peer's pace by the time it was waited for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dicom_listener.peers.limits import (
    FILES_OF_A_TUNNEL,
    FILES_OF_AN_ASSOCIATION,
    SLOWEST_BYTES_PER_S,
    VISITORS,
    Fault,
    Limits,
    Pace,
)
from firstread.settings import Settings


@pytest.mark.parametrize("descriptors", [20, 100, 200, 1024, 65536])
def test_at_most_half_of_the_descriptors(make_settings: Callable[..., Settings], descriptors: int) -> None:
    limits = Limits.of(make_settings(max_associations=64), descriptors)
    used = limits.associations * FILES_OF_AN_ASSOCIATION + limits.visitors
    assert used <= max(descriptors // 2, FILES_OF_AN_ASSOCIATION + 1)
    assert limits.associations >= 1 and 1 <= limits.visitors_of_a_host <= limits.visitors <= VISITORS
    assert (limits.associations == 64) == (descriptors >= 1024)


@pytest.mark.parametrize("descriptors", [100, 1024, 65536])
def test_at_most_half_of_the_descriptors_with_tls(make_settings: Callable[..., Settings], descriptors: int) -> None:
    limits = Limits.of(make_settings(max_associations=64, tls_cert="/x.pem"), descriptors)
    used = limits.associations * (FILES_OF_AN_ASSOCIATION + FILES_OF_A_TUNNEL) + limits.visitors * (
        1 + FILES_OF_A_TUNNEL
    )
    assert used <= descriptors // 2
    assert (limits.associations == 64) == (descriptors >= 1024)


def test_times_are_no_longer_than_the_network_timeout(make_settings: Callable[..., Settings]) -> None:
    limits = Limits.of(make_settings(network_timeout_s=2.0))
    assert (limits.request_s, limits.pdu_s, limits.pace_s) == (2.0, 2.0, 2.0)
    limits = Limits.of(make_settings(network_timeout_s=600.0))
    assert (limits.request_s, limits.pdu_s, limits.pace_s) == (10.0, 60.0, 60.0)


def test_a_pdu_has_its_time_however_its_bytes_are_spread() -> None:
    pace = Pace(Limits())
    pace.waited(1000.0)
    pace.begin_pdu()
    for _ in range(59):
        pace.came(1)
        pace.waited(1.0)
    with pytest.raises(Fault, match="slow"):
        pace.waited(1.0)
    pace.begin_pdu()
    pace.waited(59.0)
    pace.end_pdu()
    pace.waited(59.0)


def test_a_data_set_keeps_a_pace() -> None:
    pace = Pace(Limits())
    pace.begin_data()
    for _ in range(10):
        pace.came(SLOWEST_BYTES_PER_S * 60)
        pace.waited(60.0)
    pace.came(SLOWEST_BYTES_PER_S * 60 - 1)
    with pytest.raises(Fault, match="slow"):
        pace.waited(60.0)
    pace.end_data()
    pace.waited(60.0)
