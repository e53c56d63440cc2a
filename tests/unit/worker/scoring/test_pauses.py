"""Pauses grow with faults in a row, and end."""

from __future__ import annotations

import pytest

from worker.scoring import pauses
from worker.scoring.pauses import FIRST_S, LONGEST_S, Pause


def test_pauses_double_up_to_the_longest_and_begin_anew_after_success(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pauses, "monotonic", lambda: now[0])
    pause = Pause()
    assert pause.left_s() == 0.0
    lengths = []
    for _ in range(7):
        lengths.append(pause.begin())
        assert pause.begin() == lengths[-1], "faults of several threads make one pause"
        assert pause.left_s() == lengths[-1]
        now[0] += lengths[-1]
        assert pause.left_s() == 0.0
    assert lengths == [min(LONGEST_S, FIRST_S * 2**n) for n in range(7)]
    pause.forget()
    assert pause.begin() == FIRST_S


def test_the_supervisor_does_not_take_a_pause_for_a_dead_consumer() -> None:
    from worker.process.supervisor import SILENT_S

    assert LONGEST_S < SILENT_S
