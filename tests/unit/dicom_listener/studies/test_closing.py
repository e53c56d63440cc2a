"""When a revision may close: a function of times alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.studies.closing import AT_ONCE_S, close_reason
from dicom_listener.studies.senders import Visit, only_sender
from firstread.records import Instance, newest_of_each
from firstread.settings import Settings

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def visit(opened: float, last: float, ended: float | None, ending: str | None, source: str = "dicom") -> Visit:
    return Visit(source, "CT1", "ct-1", at(opened), None if ended is None else at(ended), ending, at(last))


def settings(**values: float) -> Settings:
    defaults: dict[str, Any] = {"grace_s": 2.0, "quiet_s": 60.0, "max_wait_s": 600.0, "inbox_grace_s": 3.0}
    return Settings(**(defaults | values))


@pytest.mark.parametrize(
    ("visits", "seconds", "reason"),
    [
        ([], 59.0, None),
        ([], 60.0, "quiet"),
        ([visit(0, 0, None, None)], 59.0, None),
        ([visit(0, 0, 1, "released")], 2.9, None),
        ([visit(0, 0, 1, "released")], 3.0, "released"),
        ([visit(0, 0, 1, "released", "inbox")], 3.9, None),
        ([visit(0, 0, 1, "released", "inbox")], 4.0, "released"),
        ([visit(0, 0, 1, "released"), visit(0, 0, 5, "released")], 6.0, None),
        ([visit(0, 0, 1, "released"), visit(0, 0, None, None)], 30.0, None),
        ([visit(0, 0, 1, "aborted")], 30.0, None),
        ([visit(0, 0, 1, "lost"), visit(2, 3, 4, "released")], 7.0, "released"),
        ([visit(0, 0, 1, "aborted"), visit(2, 3, 4, "released", "inbox")], 30.0, None),
        ([visit(0, 0, 1, "aborted"), visit(2, 3, 4, "aborted")], 30.0, None),
    ],
)
def test_close_reason(visits: list[Visit], seconds: float, reason: str | None) -> None:
    assert close_reason(T0, T0, visits, settings(), at(seconds)) == reason


@pytest.mark.parametrize(("host", "reason"), [("router-1", "released"), ("router-2", None)])
def test_who_sends_by_stow_is_known_by_its_host(host: str, reason: str | None) -> None:
    broken = Visit("stow", None, "router-1", at(0), at(1), "aborted", at(0))
    later = Visit("stow", None, host, at(2), at(4), "released", at(3))
    assert close_reason(T0, T0, [broken, later], settings(), at(7)) == reason


def test_max_wait_wins_over_everything() -> None:
    busy = [visit(0, 599, None, None)]
    assert close_reason(T0, at(599), busy, settings(), at(599.5)) is None
    assert close_reason(T0, at(599), busy, settings(), at(600)) == "max_wait"


endings = st.sampled_from([None, "released", "aborted", "lost"])


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), endings), max_size=5), st.floats(0, 59))
def test_nothing_open_or_broken_closes_early(parts: list[tuple[float, float, str | None]], seconds: float) -> None:
    """Before the quiet time a study closes only if all is over and the last sender came to its end."""
    visits = [visit(o, o + d, None if e is None else o + d, e) for o, d, e in parts]
    if close_reason(T0, at(50), visits, settings(), at(seconds)) is not None:
        assert visits and all(v.ending for v in visits)
        assert any(v.ending == "released" for v in visits)
        assert all(at(seconds) >= v.ended_at for v in visits if v.ended_at and v.ending == "released")


def test_an_instance_is_series_and_sop_uid_together() -> None:
    named = [("soft", "1", 0), ("bone", "1", 0), ("soft", "2", 5), ("soft", "1", 9), ("bone", "2", 0)]
    rows = [
        Instance(id=n, series_instance_uid=series, sop_instance_uid=sop, received_at=at(s))
        for n, (series, sop, s) in enumerate(named)
    ]
    assert [row.id for row in newest_of_each(rows)] == [1, 2, 3, 4]
    assert [row.id for row in newest_of_each(reversed(rows))] == [4, 3, 2, 1], "the order stays"


def test_a_study_of_a_known_sender_closes_at_once() -> None:
    visits = [visit(0, 0, 1, "released")]
    times = {s: close_reason(T0, T0, visits, settings(), at(s), at_once=True) for s in (1, 1 + AT_ONCE_S)}
    assert times == {1: None, 1 + AT_ONCE_S: "released"}


@pytest.mark.parametrize(
    ("visits", "sender"),
    [
        ([], None),
        ([visit(0, 0, 1, "released")], ("CT1", "ct-1")),
        ([visit(0, 0, 1, "released"), visit(0, 0, 1, "released")], None),
        ([visit(0, 0, 1, "aborted")], None),
        ([visit(0, 0, None, None)], None),
        ([visit(0, 0, 1, "released", "inbox")], None),
    ],
)
def test_one_released_association_says_who_sent_a_study(visits: list[Visit], sender: tuple[str, str] | None) -> None:
    assert only_sender(visits) == sender


def test_a_study_that_was_closed_too_soon_gets_a_longer_grace() -> None:
    visits = [visit(0, 0, 0, "released")]
    due = [next(s for s in range(1, 100) if close_reason(T0, T0, visits, settings(), at(s), n)) for n in range(8)]
    assert due[:4] == [2, 4, 8, 16]
    assert max(due) == due[-1] == settings().quiet_s / 2
    assert close_reason(T0, T0, visits, settings(grace_s=0.0), at(0), 5) == "released"
