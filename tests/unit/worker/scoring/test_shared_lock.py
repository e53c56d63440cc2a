"""Shared and alone."""

from __future__ import annotations

import threading

import pytest

from worker.scoring.shared_lock import SharedLock


def test_alone_waits_for_the_others_and_keeps_new_ones_out() -> None:
    lock = SharedLock()
    order: list[str] = []
    inside, leave, alone_waits = threading.Event(), threading.Event(), threading.Event()
    late_waits = threading.Semaphore(0)

    def first() -> None:
        with lock.shared():
            inside.set()
            assert leave.wait(10)
            order.append("first out")

    def alone() -> None:
        with lock.alone(still=alone_waits.set) as got:
            assert got
            order.append("alone")
            assert late_waits.acquire(timeout=10), "the late one still waits while another is alone"

    def late() -> None:
        with lock.shared(still=lambda: late_waits.release()):
            order.append("late")

    threads = [threading.Thread(target=run) for run in (first, alone, late)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert alone_waits.wait(10)
    threads[2].start()
    assert late_waits.acquire(timeout=10)
    assert order == []
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first out", "alone", "late"]


def test_alone_gives_up_after_its_limit_and_says_so() -> None:
    lock = SharedLock()
    with lock.shared(), lock.alone(limit_s=0.1) as got:
        assert not got
    with lock.alone() as got:
        assert got


def test_waiting_can_be_broken_off() -> None:
    lock = SharedLock()

    def stop() -> None:
        raise RuntimeError("no longer")

    with lock.shared(), pytest.raises(RuntimeError), lock.alone(still=stop):
        pass
    with lock.shared():
        pass
