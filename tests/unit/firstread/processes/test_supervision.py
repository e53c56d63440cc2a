"""One rule for child processes: when one is started again, and how it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys

from firstread.processes.supervision import Backoff, ChildProcess

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


def _python(code: str) -> ChildProcess:
    return ChildProcess(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))


def test_pauses_grow_with_each_early_end_and_have_an_end() -> None:
    backoff = Backoff(early_s=20.0, longest_s=15.0, most=5)
    assert backoff.is_over and backoff.pause_s == 0.0
    pauses = []
    for _ in range(4):
        backoff.record_end(1.0)
        pauses.append(backoff.pause_s)
        assert not backoff.is_over and not backoff.is_exhausted
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    backoff.record_end(1.0)
    assert backoff.is_exhausted


def test_a_late_end_and_one_after_readiness_start_the_count_anew() -> None:
    backoff = Backoff(early_s=20.0, most=2)
    for age_s, was_ready in ((21.0, False), (1.0, True)):
        backoff.record_end(1.0)
        backoff.record_end(age_s, was_ready=was_ready)
        assert backoff.pause_s == 0.0 and backoff.is_over and not backoff.is_exhausted


def test_after_a_good_start_it_fails_and_is_tried_for_ever() -> None:
    backoff = Backoff(early_s=20.0, longest_s=60.0, most=3)
    backoff.record_end(21.0)
    for _ in range(2000):
        backoff.record_end(0.1)
    assert backoff.is_failing and not backoff.is_exhausted and backoff.pause_s == 60.0
    backoff.record_good()
    assert not backoff.is_failing and backoff.pause_s == 0.0


def test_without_a_limit_it_is_tried_for_ever() -> None:
    backoff = Backoff(early_s=5.0, first_s=5.0, longest_s=5.0)
    for _ in range(50):
        backoff.record_end(0.1)
    assert backoff.pause_s == 5.0 and not backoff.is_exhausted


def test_a_process_that_ignores_the_stop_is_waited_for_and_killed() -> None:
    child = _python(DEAF)
    assert child.process.stdout is not None
    child.process.stdout.readline()
    child.ask_to_stop()
    asked = child.stop_asked
    child.ask_to_stop()
    assert child.stop_asked == asked is not None
    assert not child.wait(0.2) and child.is_running
    assert not child.wait(60.0, give_up=lambda: True)
    assert child.stop(0.2) == child.poll() == -signal.SIGKILL
    child.send(signal.SIGTERM)  # to nobody


def test_an_end_is_seen() -> None:
    child = _python("raise SystemExit(7)")
    assert child.wait(60.0) and child.poll() == 7
